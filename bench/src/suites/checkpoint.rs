//! What a checkpoint costs after which the program runs on: how long it stands still by its own clock, how long the command takes,
//! and what is written.
//!
//! | tool | what |
//! |---|---|
//! | fastmig | `fastmig checkpoint`, in rounds, the first of a container |
//! | fastmig-next | the same a second later |
//! | fastmig-stop-copy | `fastmig checkpoint --strategy stop-copy` |
//! | fastmig-store | `fastmig checkpoint --to` a directory: compressed, in parts |
//! | runc | `runc checkpoint --leave-running` |
//! | podman | `podman container checkpoint --leave-running --export`, compressed as it does by default |
//!
//! All of them write to a tmpfs. Each round starts the program anew, and looks at all of its memory afterwards.

use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use fastmig_tests::apps::container::Container;
use fastmig_tests::apps::memory::{image, setup, Program};
use fastmig_tests::framework::image::programs::PROGRAM;
use fastmig_tests::framework::image::reference;
use fastmig_tests::framework::Host;

use super::migration::runc;
use crate::bench::Bench;
use crate::figures::Metric;

/// What it does before each.
const LIFE: Duration = Duration::from_secs(1);
const LIMIT: Duration = Duration::from_secs(180);
const PLACE: &str = "/bench/images";
/// MiB of memory, in a quick run and in a thorough one.
const MIB: [usize; 2] = [256, 1024];
/// MiB written each second.
const WRITES: usize = 20;

const GAP: Metric = Metric::new("gap", "ms");
const TIME: Metric = Metric::new("time", "ms");
const SIZE: Metric = Metric::new("size", "MiB");
const RATE: Metric = Metric::new("throughput", "MiB/s");

/// Who makes checkpoints of a program that is started for him.
type Way = fn(&mut Bench, &Arc<Host>, &Case) -> Result<()>;

const WAYS: [(&str, Way); 5] = [
    ("fastmig", |bench, host, case| {
        by_fastmig(bench, host, case, &["fastmig", "fastmig-next"], &["--strategy", "pre-copy"])
    }),
    ("fastmig-stop-copy", |bench, host, case| {
        by_fastmig(bench, host, case, &["fastmig-stop-copy"], &["--strategy", "stop-copy"])
    }),
    ("fastmig-store", by_store),
    ("runc", by_runc),
    ("podman", by_podman),
];

/// What is saved.
struct Case {
    work: String,
    mib: usize,
    words: Vec<String>,
}

/// Measures.
pub(super) fn run(bench: &mut Bench) -> Result<()> {
    let [host, _] = bench.hosts_with_clients(&[image()])?;
    runc::prepare(&host)?;
    let mib = MIB[usize::from(!bench.how.quick)];
    let words =
        ["tick", "--mib", &mib.to_string(), "--writes", &WRITES.to_string()].map(str::to_owned).to_vec();
    let case = Case { work: format!("m{mib}-write"), mib, words };
    let mut ways = WAYS.to_vec();
    for round in 0..bench.rounds(2, 5) {
        ways.retain(|(tool, way)| {
            if !bench.wants(&[tool]) || (round > 0 && !bench.has_time()) {
                return true;
            }
            let done = way(bench, &host, &case);
            if let Err(error) = &done {
                bench.fail(tool, error);
            }
            // Also what a failure has left.
            let _ = host.sh(REMOVE).output();
            done.is_ok()
        });
    }
    Ok(())
}

const REMOVE: &str =
    "podman rm -f -t 0 bench-rest >/dev/null 2>&1; runc delete -f gap 2>/dev/null; rm -rf /bench/images/*";

/// One checkpoint by `save`, which answers how many bytes there are afterwards.
fn measure(
    bench: &mut Bench,
    host: &Host,
    (tool, case): (&str, &Case),
    save: impl FnOnce() -> Result<f64>,
) -> Result<()> {
    let program = Program::on(host)?;
    sleep(LIFE);
    program.reset()?;
    let begun = Instant::now();
    let bytes = save()?;
    let seconds = begun.elapsed().as_secs_f64();
    let gap = program.pause()?.as_secs_f64() * 1000.0;
    program.check()?;
    bench.add(&case.work, tool, GAP, gap);
    bench.note(&case.work, tool, TIME, seconds * 1000.0);
    bench.note(&case.work, tool, SIZE, bytes / 1048576.0);
    bench.note(&case.work, tool, RATE, case.mib as f64 / seconds);
    Ok(())
}

fn words(case: &Case) -> Vec<&str> {
    case.words.iter().map(String::as_str).collect()
}

fn by_fastmig(
    bench: &mut Bench,
    host: &Arc<Host>,
    case: &Case,
    tools: &[&str],
    options: &[&str],
) -> Result<()> {
    let container = Container::run(host, "rest", &setup(&words(case)))?;
    Program::on(host)?.wait_until_up()?;
    for (number, tool) in tools.iter().enumerate() {
        let path = format!("{PLACE}/{number}");
        let arguments = [&["--leave-running", "--image-path", &path], options].concat();
        measure(bench, host, (tool, case), || {
            let told = container.operate("checkpoint", &arguments)?;
            told["written"].as_f64().context("nothing is told of what was written")
        })?;
    }
    container.remove()
}

fn by_store(bench: &mut Bench, host: &Arc<Host>, case: &Case) -> Result<()> {
    let container = Container::run(host, "rest", &setup(&words(case)))?;
    Program::on(host)?.wait_until_up()?;
    let to = format!("{PLACE}/store/");
    host.cmd(["mkdir", "-p", &to]).ok()?;
    measure(bench, host, ("fastmig-store", case), || {
        container.operation("checkpoint", &["--leave-running", "--to", &to]).timeout(LIMIT).ok()?;
        size(host, &to)
    })?;
    container.remove()
}

fn by_runc(bench: &mut Bench, host: &Arc<Host>, case: &Case) -> Result<()> {
    runc::start(host, &words(case))?;
    let script = format!(
        "runc checkpoint --leave-running --image-path {PLACE}/runc --work-path {PLACE}/work gap >/dev/null ||
           {{ tail -n 20 {PLACE}/work/dump.log >&2; exit 1; }}"
    );
    measure(bench, host, ("runc", case), || {
        host.cmd(["sh", "-ec", &script]).timeout(LIMIT).ok()?;
        size(host, &format!("{PLACE}/runc"))
    })
}

fn by_podman(bench: &mut Bench, host: &Arc<Host>, case: &Case) -> Result<()> {
    let run =
        ["podman", "run", "-d", "--network", "host", "--name", "bench-rest", &reference(image()), PROGRAM];
    host.cmd([&run[..], &words(case)].concat()).ok()?;
    Program::on(host)?.wait_until_up()?;
    let to = format!("{PLACE}/podman.tar.zst");
    measure(bench, host, ("podman", case), || {
        let argv = ["podman", "container", "checkpoint", "--leave-running", "--export", &to, "bench-rest"];
        host.cmd(argv).timeout(LIMIT).ok()?;
        size(host, &to)
    })
}

/// Bytes of a file, or of all files below a directory.
fn size(host: &Host, path: &str) -> Result<f64> {
    let told = host.cmd(["du", "-sb", "--", path]).ok()?;
    let bytes = told.split_whitespace().next().and_then(|bytes| bytes.parse().ok());
    bytes.with_context(|| format!("no size of {path}: {told}"))
}
