//! Linux 6.1: writes are seen by soft-dirty bits alone.

use anyhow::{ensure, Result};

use super::container::{Container, FASTMIG};
use crate::framework::vm::Kernel;
use crate::framework::Case;

pub(super) const CASES: &[Case] =
    &[Case { name: "older: memory travels in rounds that soft-dirty bits make", run: |_| rounds().into() }];

/// Writes here and there in 48 MiB, and checks what it wrote; what it prints each time is how often.
const WRITER: &str = "
import time
size, step = 48 << 20, 4096
memory = bytearray(size)
turn = 0
while True:
    turn += 1
    for place in range(0, size, step * 97):
        assert memory[place] == (turn - 1) & 255, place
        memory[place] = turn & 255
    print(turn, flush=True)
    time.sleep(0.05)
";

fn rounds() -> Result<()> {
    let cluster = super::cluster(Kernel::Bookworm)?;
    let (first, second) = (&cluster.nodes[0], &cluster.nodes[1]);
    let said = first.sh("fastmig check")?;
    ensure!(said.contains("soft-dirty"), "{said}");
    let source =
        Container::run(first, "writer", (FASTMIG, &["--seccomp"]), "python", &["python3", "-c", WRITER])?;
    source.wait_for_line(3)?;
    let target = Container::in_standby(second, "writer", &["--seccomp"], "python")?;
    let report = &source.operate("migrate", "--to node2 --strategy pre-copy --verify")?["report"];
    println!(
        "    frozen {} ms, in {} rounds",
        report["frozen_ms"],
        report["rounds"].as_array().map_or(0, Vec::len)
    );
    ensure!(report["strategy"] == "pre-copy", "strategy {}", report["strategy"]);
    let lines = target.output()?.lines().count();
    target.wait_for_line(lines + 3)?;
    ensure!(target.application()? == "running", "it is {}", target.application()?);
    Ok(())
}
