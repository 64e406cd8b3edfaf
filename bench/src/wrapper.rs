//! What `fastmig` costs in front of runc: the time and the memory of commands that it hands over, and of a whole container.
//!
//! | side | what |
//! |---|---|
//! | runc | the command itself |
//! | fastmig | the same command through the wrapper |
//!
//! The wrapper's memory is the anonymous memory and kernel memory that a cgroup is charged for a command of the wrapper's own
//! (`status`), against that for runc's `list`; files are charged to whoever read them first.

use std::time::Duration;

use anyhow::{Context, Result};
use fastmig_tests::framework::cache::Cache;
use fastmig_tests::framework::image::reference;
use fastmig_tests::framework::realm::Realm;
use fastmig_tests::framework::{dist, Equipment, Generation, Host};

/// Calls on each side.
const CALLS: u32 = 200;
/// Whole containers on each side.
const CONTAINERS: u32 = 20;

/// Measures on a host of its own, and prints a table.
///
/// # Errors
/// When the host cannot be made or a command fails.
pub fn run() -> Result<()> {
    let host = host()?;
    println!("| command | runc | fastmig | more |\n|---|---|---|---|");
    for (name, command) in
        [("features", "features"), ("state of a container of runc's", "state plain"), ("list -q", "list -q")]
    {
        let [runc, fastmig] = times(&host, CALLS, command)?;
        println!("| `{name}` | {runc:.2} ms | {fastmig:.2} ms | {:+.2} ms |", fastmig - runc);
    }
    let [runc, fastmig] = times(&host, CONTAINERS, "run -b /bench/bundle b </dev/null")?;
    println!("| `run` of `true`, whole | {runc:.1} ms | {fastmig:.1} ms | {:+.1} ms |", fastmig - runc);
    let [runc, fastmig] = [memory(&host, "runc list")?, memory(&host, "fastmig status")?];
    println!("| memory of a command | {runc} kB | {fastmig} kB | |");
    Ok(())
}

fn host() -> Result<Host> {
    let realm = Realm::or_from_environment("bench")?;
    let host = Host::up(&realm, &Cache::open()?, "w", Generation::Forky, Equipment::Plain)?;
    host.install(&dist::build()?)?;
    host.start_containerd()?;
    host.import_images(&["busybox"])?;
    let image = reference("busybox");
    let script = format!(
        "mkdir -p /bench /tmp/image && mount -t tmpfs bench /bench && mkdir -p /bench/bundle/rootfs && cd /bench/bundle && \
         ctr images mount {image} /tmp/image && cp -a /tmp/image/. rootfs/ && ctr images unmount --rm /tmp/image && \
         runc spec && jq '.process.terminal = false | .process.args = [\"sleep\", \"1000\"]' config.json > c && mv c config.json && \
         runc run -d plain </dev/null >/dev/null 2>&1 && jq '.process.args = [\"true\"]' config.json > c && mv c config.json"
    );
    host.sh(&script).ok().context("no bundle")?;
    Ok(host)
}

/// Milliseconds for one call by runc and by fastmig: the shorter half of the rounds, for the machine is never quiet.
fn times(host: &Host, calls: u32, command: &str) -> Result<[f64; 2]> {
    const ROUNDS: u32 = 10;
    let script = format!(
        "for round in $(seq {ROUNDS}); do for r in runc fastmig; do s=$(date +%s%N); \
         for i in $(seq {each}); do $r {command} >/dev/null || exit 1; done; e=$(date +%s%N); echo $r $((e - s)); done; done",
        each = calls / ROUNDS
    );
    let text = host.sh(&script).timeout(Duration::from_secs(300)).ok()?;
    Ok(["runc", "fastmig"].map(|runtime| {
        let mut rounds: Vec<f64> =
            text.lines().filter_map(|line| line.strip_prefix(runtime)?.trim().parse().ok()).collect();
        rounds.sort_by(f64::total_cmp);
        let better = &rounds[..rounds.len() / 2];
        better.iter().sum::<f64>() / f64::from(calls / ROUNDS) / 1e6 / f64::from(ROUNDS / 2)
    }))
}

/// The most that a cgroup of its own was charged for `command`, in kB; the least of several tries.
fn memory(host: &Host, command: &str) -> Result<u64> {
    let script = format!(
        "{command} >/dev/null; for i in 1 2 3 4 5; do g=/sys/fs/cgroup/memory/bench-$i; mkdir $g; \
         sh -c \"echo \\$\\$ > $g/cgroup.procs; exec {command}\" >/dev/null; cat $g/memory.max_usage_in_bytes; \
         echo 0 > $g/memory.force_empty; rmdir $g; done | sort -n | head -n 1"
    );
    Ok(host.sh(&script).ok()?.trim().parse::<u64>()? / 1024)
}
