//! Checkpoints at rest: their memory is written in rounds, and only what has changed since the one before.

use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use serde_json::Value;

use super::stage::hosts;
use crate::apps::container::Container;
use crate::apps::memory::{setup, Program};
use crate::framework::{Case, Ctx, Host};
use crate::suites::migration::stage::nothing_is_left;

pub(super) const CASES: &[Case] = &[
    Case { name: "a periodic checkpoint writes what has changed", run: |ctx| periodic(ctx).into() },
    Case { name: "checkpoints of a family keep what it shares", run: |ctx| comes_back(ctx, FAMILY).into() },
    Case { name: "checkpoints of shared memory by rounds", run: |ctx| comes_back(ctx, SHARED).into() },
    Case { name: "checkpoints of huge pages by rounds", run: |ctx| comes_back(ctx, HUGE).into() },
    Case { name: "checkpoints of memory that is mapped at random", run: |ctx| comes_back(ctx, CHURN).into() },
];

const FAMILY: &[&str] = &["tick", "--processes", "6", "--mib", "24", "--writes", "20", "--forked-after"];
const SHARED: &[&str] = &["shared"];
const HUGE: &[&str] = &["huge", "--mib", "64", "--writes", "50"];
const CHURN: &[&str] = &["churn"];

const PLACE: &str = "/var/lib/at-rest";
const MIB: u64 = 1 << 20;

/// What it does between two checkpoints.
const LIFE: Duration = Duration::from_millis(800);
const ROUNDS: &[&str] = &["--strategy", "pre-copy", "--verify"];

/// A program that is checkpointed, and the place for that.
struct Stage {
    host: Arc<Host>,
    container: Container,
    program: Program,
}

impl Stage {
    fn start(ctx: &Ctx, words: &[&str]) -> Result<Self> {
        let (host, _) = hosts(ctx)?;
        host.cmd(["rm", "-rf", PLACE]).ok()?;
        let container = Container::run(&host, "at-rest", &setup(words))?;
        let program = Program::on(&host)?;
        program.wait_until_up()?;
        Ok(Self { host, container, program })
    }

    /// Takes one, and the program runs on or not.
    fn checkpoint(&self, name: &str, after: &str) -> Result<Value> {
        let path = format!("{PLACE}/{name}");
        let options = [&["--image-path", &path, after], ROUNDS].concat();
        let told = self.container.operate("checkpoint", &options)?;
        println!(
            "    {name}: {} rounds, {} MiB written, {} reused, {} KiB in the freeze, {} ms",
            told["rounds"],
            number(&told, "written")? / MIB,
            number(&told, "reused")? / MIB,
            number(&told, "last_round")? >> 10,
            told["frozen_ms"],
        );
        ensure!(number(&told, "verified_pages")? > 0, "nothing was compared: {told}");
        Ok(told)
    }

    /// The program as it was then, with all of its memory.
    fn comes_back(&self, name: &str) -> Result<Value> {
        self.container.operate("standby", &[])?;
        self.container.restore(&format!("{PLACE}/{name}"))?;
        self.program.wait_until_up()?;
        self.program.check()?;
        self.program.life()
    }

    fn end(self) -> Result<()> {
        self.container.remove()?;
        self.host.cmd(["rm", "-rf", PLACE]).ok()?;
        nothing_is_left(&self.host)
    }
}

fn number(told: &Value, field: &str) -> Result<u64> {
    told[field].as_u64().with_context(|| format!("no {field} in {told}"))
}

/// Five of them, of which each holds what the program was then, also when those before are gone.
fn periodic(ctx: &Ctx) -> Result<()> {
    let stage = Stage::start(ctx, &["tick", "--mib", "256", "--writes", "10"])?;
    let life = stage.program.life()?;
    let names: Vec<String> = (1..=5).map(|n| n.to_string()).collect();
    for (index, name) in names.iter().enumerate() {
        let told = stage.checkpoint(name, "--leave-running")?;
        let (written, reused) = (number(&told, "written")?, number(&told, "reused")?);
        if index == 0 {
            ensure!(written > 256 * MIB && reused == 0, "the first is not whole: {told}");
        } else {
            // Much less than all, on a machine that is ever so slow.
            ensure!(written < 200 * MIB && reused > 60 * MIB, "it wrote what was there: {told}");
        }
        ensure!(number(&told, "last_round")? < 128 * MIB, "the freeze waited for memory: {told}");
        stage.program.check()?;
        sleep(LIFE);
    }
    let ticks = stage.comes_back("1")?;
    ensure!(ticks == life, "another program came back");
    for name in &names[1..] {
        stage.host.cmd(["rm", "-rf", &format!("{PLACE}/{}", name.parse::<u32>()? - 1)]).ok()?;
        stage.comes_back(name).with_context(|| format!("checkpoint {name}"))?;
    }
    stage.end()
}

/// Twice saved and brought back, the second time upon the first.
fn comes_back(ctx: &Ctx, words: &[&str]) -> Result<()> {
    let stage = Stage::start(ctx, words)?;
    let life = stage.program.life()?;
    sleep(LIFE);
    stage.checkpoint("1", "--leave-running")?;
    sleep(LIFE);
    stage.checkpoint("2", "--standby")?;
    for name in ["2", "1", "2"] {
        ensure!(stage.comes_back(name)? == life, "another program came back");
        sleep(LIFE);
        stage.program.check().context("some time after")?;
    }
    stage.end()
}
