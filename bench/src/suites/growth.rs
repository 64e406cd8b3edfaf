//! How the gap grows: with memory, and with processes; the line through what the suite `migration` has measured, and beside it what
//! no move can do without: a copy of memory of the same size, and a dump and a restore of a process that has next to none.

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use fastmig_tests::framework::Host;

use super::migration;
use crate::bench::Bench;
use crate::figures::{fit, Figure, Metric};

const PER_GIB: Metric = Metric::new("slope", "ms/GiB");
const PER_PROCESS: Metric = Metric::new("slope-by-processes", "ms/process");
const FIXED: Metric = Metric::new("fixed", "ms");
const COPY: Metric = Metric::new("memcpy", "ms");
const DUMP: Metric = Metric::new("dump", "ms");
const RESTORE: Metric = Metric::new("restore", "ms");

/// MiB that are copied.
const COPIES: [usize; 4] = [16, 128, 512, 1024];

/// What the fit needs, should the suite `migration` not have run.
const WORKS: &[&str] = &["m16", "m128", "m1024", "p16"];
const TOOLS: &[&str] = &["fastmig-pre-copy"];

/// So many processes are dumped together and come back.
const EMPTY_ONES: [usize; 2] = [1, 16];

/// Processes that sleep are dumped and come back. It prints microseconds of both. Argument: how many.
const EMPTY: &str = r#"
mkdir -p /run/bench-empty && cd /run/bench-empty && rm -rf images && mkdir images
setsid sh -c 'while test $1 -gt 1; do sleep 1000 & set -- $(($1 - 1)); done; exec sleep 1000' sh $1 </dev/null >/dev/null 2>&1 &
pid=$!
until test "$(cat /proc/$pid/comm)" = sleep; do sleep 0.01; done
sleep 0.05
now() { echo "${EPOCHREALTIME/[.,]/}"; }
a=$(now)
criu dump -D images -t $pid --manage-cgroups=ignore -v1 -o dump.log || { cat images/dump.log >&2; exit 1; }
b=$(now); wait $pid || true; c=$(now)
criu restore -D images -d --manage-cgroups=ignore -v1 -o restore.log || { cat images/restore.log >&2; exit 1; }
d=$(now); kill -s KILL -- -$pid; rm -rf /run/bench-empty
echo $((b - a)) $((d - c))
"#;

/// Measures.
pub(super) fn run(bench: &mut Bench) -> Result<()> {
    if lines(&bench.book.figures()).is_empty() {
        migration::only(bench, WORKS, TOOLS)?;
    }
    for (tool, metric, line) in lines(&bench.book.figures()) {
        bench.add("migration", &tool, metric, line.slope);
        if metric == PER_GIB {
            bench.note("migration", &tool, FIXED, line.fixed);
        }
    }
    let mut copied = Vec::new();
    for _ in 0..bench.rounds(3, 9) {
        for mib in COPIES {
            let time = copy(mib).as_secs_f64() * 1000.0;
            bench.note(&format!("m{mib}"), "limit", COPY, time);
            copied.push((mib as f64 / 1024.0, time));
        }
    }
    let line = fit(&copied).context("nothing was copied")?;
    bench.add("memcpy", "limit", PER_GIB, line.slope);
    let [host, _] = bench.hosts(&[])?;
    for _ in 0..bench.rounds(5, 15) {
        for processes in EMPTY_ONES {
            let [dump, restore] = empty(&host, processes)?;
            let work = format!("empty-p{processes}");
            bench.note(&work, "criu", DUMP, dump);
            bench.add(&work, "criu", RESTORE, restore);
        }
    }
    Ok(())
}

/// A line for each tool and each kind of growth that has been measured at two places.
fn lines(figures: &[Figure]) -> Vec<(String, Metric, crate::figures::Fit)> {
    let gaps: Vec<&Figure> = figures
        .iter()
        .filter(|figure| figure.subject().suite == "migration" && figure.subject().metric == "gap")
        .collect();
    let mut tools: Vec<&str> = gaps.iter().map(|gap| gap.subject().tool.as_str()).collect();
    tools.dedup();
    tools.sort_unstable();
    tools.dedup();
    let mut found = Vec::new();
    for tool in tools {
        let of_tool = gaps.iter().filter(|gap| gap.subject().tool == tool);
        let by = |x: fn(&str) -> Option<f64>| {
            let points: Vec<(f64, f64)> =
                of_tool.clone().filter_map(|gap| Some((x(&gap.subject().work)?, gap.median()))).collect();
            fit(&points)
        };
        found.extend(by(gib).map(|line| (tool.to_owned(), PER_GIB, line)));
        found.extend(by(processes).map(|line| (tool.to_owned(), PER_PROCESS, line)));
    }
    found
}

/// GiB of a work that is one process.
fn gib(work: &str) -> Option<f64> {
    Some(work.strip_prefix('m')?.parse::<f64>().ok()? / 1024.0)
}

/// Processes of a work in which each has 128 MiB.
fn processes(work: &str) -> Option<f64> {
    match work {
        "m128" => Some(1.0),
        _ => work.strip_prefix('p')?.parse().ok(),
    }
}

fn copy(mib: usize) -> Duration {
    let from = vec![1_u8; mib << 20];
    // Written once, so that no page is made while it is measured.
    let mut to = vec![2_u8; mib << 20];
    let begun = Instant::now();
    to.copy_from_slice(black_box(&from));
    black_box(&to);
    begun.elapsed()
}

fn empty(host: &Host, processes: usize) -> Result<[f64; 2]> {
    let told = host.cmd(["bash", "-ec", EMPTY, "bash", &processes.to_string()]).ok()?;
    let mut times = told.split_whitespace().map(str::parse::<f64>);
    let mut next = || times.next().and_then(Result::ok).with_context(|| format!("no times: {told}"));
    Ok([next()? / 1000.0, next()? / 1000.0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::{Book, Subject};

    #[test]
    fn a_line_goes_through_what_was_measured() {
        let mut book = Book::default();
        for (work, value) in
            [("m16", 50.0), ("m1040", 90.0), ("m1024-write", 999.0), ("m128", 54.4), ("p16", 84.4)]
        {
            let (work, tool) = (work.to_owned(), "fastmig-pre-copy".to_owned());
            book.add(Subject { suite: "migration", work, tool, metric: "gap", unit: "ms" }, value);
        }
        let lines = lines(&book.figures());
        assert_eq!(lines.len(), 2);
        assert!((lines[0].2.slope - 40.0).abs() < 0.5, "{lines:?}");
        assert!((lines[1].2.slope - 2.0).abs() < 1e-6, "{lines:?}");
    }
}
