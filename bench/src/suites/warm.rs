//! What it saves that a container waits: a migration into one in standby, and into one that is made for it, by docker, with ports
//! published and with an image that the destination lacks. The time is that of the whole command.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use fastmig_tests::apps::memory::image;
use fastmig_tests::framework::image::programs::PROGRAM;
use fastmig_tests::framework::image::reference;
use fastmig_tests::framework::Host;
use serde_json::Value;

use crate::bench::Bench;
use crate::figures::Metric;

const LIMIT: Duration = Duration::from_secs(120);
const NAME: &str = "bench-warm";
const LARGE: &str = "bench-large:1";
/// MiB that make the large image large.
const LARGE_MIB: &str = "256";

const TOTAL: Metric = Metric::new("total", "ms");
const FROZEN: Metric = Metric::new("frozen", "ms");

/// Made from the programs' image. Arguments: that, the new one's name, MiB.
const MAKE_LARGE: &str = r#"
docker image inspect "$2" >/dev/null 2>&1 && exit
dir=/var/lib/docker/bench-large; id=$(docker create "$1"); mkdir -p $dir
docker export $id | tar -x -C $dir; docker rm $id >/dev/null
head -c ${3}M /dev/urandom >$dir/large
tar -c -C $dir . | docker import - "$2" >/dev/null; rm -rf $dir
"#;

const REMOVE: &str =
    "docker rm -f bench-warm >/dev/null 2>&1; docker image rm -f bench-large:1 >/dev/null 2>&1; true";
/// What is saved for the other host.
const ARCHIVE: &str = "/shared/bench-large.tar";

/// What is moved.
struct Case {
    work: String,
    ports: usize,
    large: bool,
}

/// Measures.
pub(super) fn run(bench: &mut Bench) -> Result<()> {
    let hosts = bench.hosts_with_clients(&[image()])?;
    let ports = |ports| Case { work: format!("{ports}-ports"), ports, large: false };
    let cases = [ports(0), ports(10), ports(50), Case { work: "large-image".into(), ports: 0, large: true }];
    for round in 0..bench.rounds(2, 5) {
        for case in &cases {
            for tool in ["fastmig-warm", "fastmig-create"] {
                if !bench.wants(&[&case.work, tool]) || (round > 0 && !bench.has_time()) {
                    continue;
                }
                let moved = measure(&hosts, case, tool == "fastmig-warm");
                // Also what a failure has left.
                hosts.iter().try_for_each(|host| host.sh(REMOVE).ok().map(drop))?;
                match moved {
                    Ok((total, report)) => {
                        bench.add(&case.work, tool, TOTAL, total);
                        bench.note(
                            &case.work,
                            tool,
                            FROZEN,
                            report["report"]["frozen_ms"].as_f64().unwrap_or(f64::NAN),
                        );
                    }
                    Err(error) => bench.fail(&format!("{} {tool}", case.work), &error),
                }
            }
        }
    }
    Ok(())
}

fn measure([a, b]: &[Arc<Host>; 2], case: &Case, is_warm: bool) -> Result<(f64, Value)> {
    if case.large {
        large(a)?;
    }
    start(a, case, &[])?;
    if is_warm {
        if case.large {
            a.cmd(["docker", "save", "-o", ARCHIVE, LARGE]).timeout(LIMIT).ok()?;
            b.cmd(["sh", "-ec", "docker load -q -i $1; rm $1", "sh", ARCHIVE]).timeout(LIMIT).ok()?;
        }
        start(b, case, &["--annotation", "fastmig.dev/start=standby"])?;
    }
    let to = ["fastmig", "--json", "migrate", NAME, "--to", b.name()];
    let how: &[&str] = if is_warm { &["--into", NAME] } else { &["--create"] };
    let begun = Instant::now();
    let answer = a.cmd([&to, how].concat()).timeout(LIMIT).ok()?;
    let total = begun.elapsed().as_secs_f64() * 1000.0;
    Ok((total, serde_json::from_str(&answer).context("no report")?))
}

fn large(host: &Host) -> Result<()> {
    let argv = ["bash", "-o", "pipefail", "-ec", MAKE_LARGE, "bash", &reference(image()), LARGE, LARGE_MIB];
    host.cmd(argv).timeout(LIMIT).ok().map(drop)
}

fn start(host: &Host, case: &Case, options: &[&str]) -> Result<()> {
    let mut line =
        ["docker", "run", "-d", "--runtime", "fastmig", "--name", NAME].map(str::to_owned).to_vec();
    line.extend(options.iter().map(|option| (*option).to_owned()));
    for port in 0..case.ports {
        line.extend(["-p".to_owned(), format!("{0}:{0}", 20000 + port)]);
    }
    line.push(if case.large { LARGE.to_owned() } else { reference(image()) });
    line.extend([PROGRAM, "tick", "--mib", "16"].map(str::to_owned));
    host.cmd(line).timeout(LIMIT).ok().map(drop)
}
