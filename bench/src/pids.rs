//! What process numbers cost a restore: one process beside sixteen with the same memory in all. Each has the number that it
//! had; the kernel is told which (`clone3` with `set_tid`), so that nobody forks until it comes up.

use std::sync::Arc;

use anyhow::{ensure, Context, Result};
use clap::Args;
use fastmig_tests::apps::container::Container;
use fastmig_tests::apps::memory::{image, setup, Program};
use fastmig_tests::framework::cache::Cache;
use fastmig_tests::framework::realm::Realm;
use fastmig_tests::framework::{dist, Equipment, Generation, Host};

/// Where the checkpoints lie: on a tmpfs.
const PLACE: &str = "/run/bench-pids";

/// What is measured.
#[derive(Args, Debug)]
pub struct Options {
    /// MiB of memory in all
    #[arg(long, default_value_t = 128)]
    mib: usize,
    /// Processes, beside one
    #[arg(long, default_value_t = 16)]
    processes: usize,
    /// Measurements of each
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

/// Measures, and prints a table.
///
/// # Errors
/// When the host cannot be made, or an application does not come back.
pub fn run(options: &Options) -> Result<()> {
    ensure!(options.rounds > 0 && options.processes > 0, "nothing to measure");
    let host = up()?;
    let kinds = [1, options.processes];
    let mut times = kinds.map(|_| Vec::new());
    for round in 1..=options.rounds {
        for (processes, times) in kinds.into_iter().zip(&mut times) {
            let time = restore(&host, processes, options.mib / processes)?;
            eprintln!("round {round}: {processes} processes: {time} ms");
            times.push(time);
        }
    }
    let [one, many] = times.map(middle);
    println!("medians of {} rounds, {} MiB in all", options.rounds, options.mib);
    println!("| processes | restore | ratio |\n|---|---|---|");
    println!("| 1 | {one} ms | 1 |");
    println!("| {} | {many} ms | {:.2} |", options.processes, ratio(many, one));
    Ok(())
}

fn up() -> Result<Arc<Host>> {
    let (realm, cache) = (Realm::or_from_environment("bench")?, Cache::open()?);
    let host = Host::up(&realm, &cache, "a", Generation::Forky, Equipment::Plain).map(Arc::new)?;
    host.install(&dist::build()?)?;
    host.start_containerd()?;
    host.import_images(&[image()])?;
    Ok(host)
}

/// Milliseconds of one restore, from the order to CRIU to the adopted application.
fn restore(host: &Arc<Host>, processes: usize, mib: usize) -> Result<u64> {
    let (processes, mib) = (processes.to_string(), mib.to_string());
    let words = ["tick", "--mib", &mib, "--processes", &processes];
    let container = Container::run(host, "pids", &setup(&words))?;
    let program = Program::on(host)?;
    program.wait_until_up()?;
    container.checkpoint(PLACE)?;
    let report = container.restore(PLACE)?;
    program.check()?;
    container.remove()?;
    host.cmd(["rm", "-rf", PLACE]).ok()?;
    report["restore_ms"].as_u64().with_context(|| format!("no time in {report}"))
}

fn middle(mut times: Vec<u64>) -> u64 {
    times.sort_unstable();
    times[times.len() / 2]
}

#[allow(clippy::cast_precision_loss)] // milliseconds are small
fn ratio(many: u64, one: u64) -> f64 {
    many as f64 / one.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_of_the_middles() {
        assert_eq!(middle(vec![9, 1, 5]), 5);
        assert!((ratio(13, 10) - 1.3).abs() < 1e-9);
    }
}
