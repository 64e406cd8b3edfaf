//! What the life of a container costs: from the order to its first byte of output, a command in it, its end, its removal; one, and
//! fifty at once; and the memory of what stands behind it.
//!
//! | tool | what |
//! |---|---|
//! | stock-shim | containerd's own shim, over runc |
//! | fastmig-shim | FastMig's shim, with its init in the container |
//! | fastmig-wrapper | containerd's own shim, over `fastmig`, with its init in the container |
//!
//! `ctr` gives the orders, which is part of each time. Memory is that of shim, init and whatever else of ours stays, each page by
//! its share (PSS); the application's is not in it. [`commands`]: the wrapper's command line beside runc's.

mod commands;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use fastmig_tests::framework::image::reference;
use fastmig_tests::framework::Host;

use crate::bench::Bench;
use crate::figures::Metric;

const IMAGE: &str = "busybox";
const LIMIT: Duration = Duration::from_secs(120);

/// Containers at once.
const MANY: usize = 50;

const TOOLS: [(&str, &str); 3] = [
    ("stock-shim", "--runtime io.containerd.runc.v2"),
    ("fastmig-shim", "--runtime io.containerd.fastmig.v1"),
    ("fastmig-wrapper", "--runtime io.containerd.runc.v2 --runc-binary /usr/local/bin/fastmig"),
];

/// Metrics that the scripts print, with microseconds.
const TIMES: [Metric; 6] = [
    Metric::new("first-output", "ms"),
    Metric::new("run", "ms"),
    Metric::new("exec", "ms"),
    Metric::new("stop", "ms"),
    Metric::new("delete", "ms"),
    Metric::new("true", "ms"),
];
const PSS: Metric = Metric::new("pss", "MiB");

/// `now` puts microseconds into a variable without starting anything; `pss` adds up KiB.
const BEFORE: &str = r#"
now() { printf -v "$1" %s "${EPOCHREALTIME/[.,]/}"; }
told() { now end; echo "$1 $((end - begun))"; }
pss() {
  for process in /proc/[0-9]*; do
    read -r name 2>/dev/null <$process/comm || continue
    case $name in containerd-shim*|fastmig-init|fastmig) sed -n 's/^Pss: *\([0-9]*\) kB/\1/p' $process/smaps_rollup;; esac
  done 2>/dev/null | awk '{ sum += $1 } END { print "pss", sum + 0 }'
}
image=$1; shift
"#;

/// One container after the other. Arguments: the image, the runtime.
const ONE: &str = r#"
now begun
exec 7< <(exec ctr run --rm "$@" $image bench-out sh -c 'echo; exec sleep 100000')
client=$!
read -r -u 7; told first-output
ctr tasks kill -s SIGKILL bench-out; wait $client || true
exec 7<&-
before=$(pss)
now begun; ctr run -d --null-io "$@" $image bench-one sleep 100000; told run
now begun; ctr tasks exec --exec-id e bench-one true; told exec
after=$(pss); echo "pss $((${after#pss } - ${before#pss }))"
pid=$(ctr tasks ls | awk '$1 == "bench-one" { print $2 }')
now begun; ctr tasks kill -s SIGKILL bench-one; while test -d /proc/$pid; do sleep 0.001; done; told stop
now begun; until ctr tasks rm bench-one >/dev/null 2>&1; do sleep 0.001; done; ctr containers rm bench-one; told delete
now begun; ctr run --rm --null-io "$@" $image bench-true true; told true
"#;

/// All at once. Arguments: the image, how many, the runtime.
const ALL: &str = r#"
many=$1; shift
before=$(pss)
now begun
for i in $(seq $many); do ctr run -d --null-io "$@" $image bench-$i sleep 100000 & all[$i]=$!; done
for i in $(seq $many); do wait ${all[$i]}; done; told run
after=$(pss); echo "pss $(((${after#pss } - ${before#pss }) / many))"
now begun
for i in $(seq $many); do ctr tasks rm -f bench-$i >/dev/null & all[$i]=$!; done
for i in $(seq $many); do wait ${all[$i]}; done; told stop
now begun
ctr containers rm $(seq -f bench-%g $many); told delete
"#;

/// What a failure may have left.
const REMOVE: &str =
    "for id in $(ctr containers ls -q | grep ^bench-); do ctr tasks rm -f $id; ctr containers rm $id; done";

/// Measures.
pub(super) fn run(bench: &mut Bench) -> Result<()> {
    let [host, _] = bench.hosts(&[IMAGE])?;
    let (one, many) = (bench.rounds(5, 15), bench.rounds(1, 3));
    for round in 0..one {
        for (tool, runtime) in TOOLS {
            if bench.wants(&[tool, "one"]) && (round == 0 || bench.has_time()) {
                measure(bench, &host, ("one", tool), ONE, &[&reference(IMAGE)], runtime);
            }
        }
    }
    for round in 0..many {
        for (tool, runtime) in TOOLS {
            if bench.wants(&[tool, "many"]) && (round == 0 || bench.has_time()) {
                measure(bench, &host, ("many", tool), ALL, &[&reference(IMAGE), &MANY.to_string()], runtime);
            }
        }
    }
    match bench.wants(&["commands"]) {
        true => commands::run(bench, &host),
        false => Ok(()),
    }
}

/// A tool that fails leaves the others their turn.
fn measure(
    bench: &mut Bench,
    host: &Arc<Host>,
    (work, tool): (&str, &str),
    script: &str,
    first: &[&str],
    runtime: &str,
) {
    let told = tell(host, script, first, runtime);
    match told {
        Ok(told) => told.into_iter().for_each(|(metric, value)| bench.add(work, tool, metric, value)),
        Err(error) => {
            bench.fail(&format!("{work} {tool}"), &error);
            // The next one would find what is left.
            let _ = host.sh(REMOVE).output();
        }
    }
}

fn tell(host: &Host, script: &str, first: &[&str], runtime: &str) -> Result<Vec<(Metric, f64)>> {
    let script = format!("{BEFORE}{script}");
    let runtime: Vec<&str> = runtime.split(' ').collect();
    let told = host.cmd([&["bash", "-ec", &script, "bash"], first, &runtime].concat()).timeout(LIMIT).ok()?;
    told.lines().map(|line| read(line).with_context(|| format!("no figure: {line:?}"))).collect()
}

/// A line of a script's: a name and a number.
fn read(line: &str) -> Option<(Metric, f64)> {
    let (name, number) = line.split_once(' ')?;
    let number: f64 = number.parse().ok()?;
    match TIMES.iter().find(|metric| metric.name == name) {
        Some(metric) => Some((*metric, number / 1000.0)),
        None => (name == PSS.name).then_some((PSS, number / 1024.0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_scripts_are_read() {
        assert_eq!(read("first-output 1500"), Some((TIMES[0], 1.5)));
        assert_eq!(read("pss 2048"), Some((PSS, 2.0)));
        assert_eq!(read("first-output x"), None);
        assert_eq!(read("other 1"), None);
    }
}
