//! What process numbers cost a restore: one process beside sixteen with the same memory in all. Each has the number that it
//! had; the kernel is told which (`clone3` with `set_tid`), so that nobody forks until it comes up.

use std::sync::Arc;

use anyhow::{Context, Result};
use fastmig_tests::apps::container::Container;
use fastmig_tests::apps::memory::{image, setup, Program};
use fastmig_tests::framework::Host;
use serde_json::Value;

use crate::bench::Bench;
use crate::figures::Metric;

/// Where the checkpoints lie: on a tmpfs.
const PLACE: &str = "/run/bench-pids";
/// MiB of memory in all.
const MIB: usize = 128;
const PROCESSES: [usize; 2] = [1, 16];

/// What somebody waits who restores: all is read and verified.
const TOTAL: Metric = Metric::new("total", "ms");
/// Of it, CRIU's part: from the order to the adopted application.
const RESTORE: Metric = Metric::new("restore", "ms");

/// Measures.
pub(super) fn run(bench: &mut Bench) -> Result<()> {
    let [host, _] = bench.hosts(&[image()])?;
    for round in 0..bench.rounds(3, 9) {
        for processes in PROCESSES {
            if round == 0 || bench.has_time() {
                let report = restore(&host, processes, MIB / processes)?;
                for (metric, field) in [(TOTAL, "total_ms"), (RESTORE, "restore_ms")] {
                    let time = report[field].as_f64().with_context(|| format!("no time in {report}"))?;
                    bench.add(&format!("p{processes}"), "fastmig", metric, time);
                }
            }
        }
    }
    Ok(())
}

/// What `fastmig restore` told of one.
fn restore(host: &Arc<Host>, processes: usize, mib: usize) -> Result<Value> {
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
    Ok(report)
}
