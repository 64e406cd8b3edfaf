//! Checkpoints at rest: their memory is written in rounds, and only what has changed since the one before.

use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use serde_json::Value;

use super::snapshot::Snapshot;
use super::stage::{error_of, hosts};
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
    Case {
        name: "a checkpoint keeps no file for the little that is left of it",
        run: |ctx| gathers(ctx).into(),
    },
    Case { name: "a damaged checkpoint by rounds is refused", run: |ctx| damaged(ctx).into() },
    Case { name: "a checkpoint by rounds that fails changes nothing", run: |ctx| fails(ctx).into() },
];

pub(super) const FAMILY: &[&str] =
    &["tick", "--processes", "6", "--mib", "24", "--writes", "20", "--forked-after"];
pub(super) const SHARED: &[&str] = &["shared"];
pub(super) const HUGE: &[&str] = &["huge", "--mib", "64", "--writes", "50"];
pub(super) const CHURN: &[&str] = &["churn"];

pub(super) const PLACE: &str = "/var/lib/at-rest";
const MIB: u64 = 1 << 20;

/// What it does between two checkpoints.
pub(super) const LIFE: Duration = Duration::from_millis(800);
/// With files, for memory of which two names are known is a file in /dev/shm.
const ROUNDS: &[&str] = &["--strategy", "pre-copy", "--verify", "--files"];

/// A program that is checkpointed, and the place for that.
pub(super) struct Stage {
    pub(super) host: Arc<Host>,
    pub(super) container: Container,
    pub(super) program: Program,
}

impl Stage {
    pub(super) fn start(ctx: &Ctx, words: &[&str]) -> Result<Self> {
        let (host, _) = hosts(ctx)?;
        host.cmd(["rm", "-rf", PLACE]).ok()?;
        let container = Container::run(&host, "at-rest", &setup(words))?;
        let program = Program::on(&host)?;
        program.wait_until_up()?;
        Ok(Self { host, container, program })
    }

    /// Takes one, and the program runs on or not.
    pub(super) fn checkpoint(&self, name: &str, after: &str) -> Result<Value> {
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

    /// It runs as if nothing had been.
    fn goes_on(&self, life: &Value, before: &Snapshot) -> Result<()> {
        self.container.require("running")?;
        self.program.check()?;
        ensure!(self.program.life()? == *life, "another program runs");
        before.require_same(&Snapshot::of(&self.host)?)
    }

    pub(super) fn end(self) -> Result<()> {
        self.container.remove()?;
        self.host.cmd(["rm", "-rf", PLACE]).ok()?;
        nothing_is_left(&self.host)
    }
}

pub(super) fn number(told: &Value, field: &str) -> Result<u64> {
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

/// Whoever writes nearly everything anew leaves no use for the file before.
fn gathers(ctx: &Ctx) -> Result<()> {
    let stage = Stage::start(ctx, &["tick", "--mib", "32", "--writes", "100"])?;
    for name in ["1", "2", "3"] {
        stage.checkpoint(name, "--leave-running")?;
        sleep(LIFE * 3);
    }
    let files = stage.host.sh(&format!("ls {PLACE}/3 | grep -c '[.]pages$'")).ok()?;
    ensure!(files.trim() == "1", "there are {} files of pages", files.trim());
    stage.comes_back("3")?;
    stage.end()
}

/// What happens to a checkpoint, as a command in its directory, and which file must be named.
const DAMAGE: [(&str, &str); 6] = [
    ("flip $(ls *.pages) 1000000", ".pages"),
    ("truncate -s -4096 $(ls *.pages)", ".pages"),
    ("rm *.pages", ".pages"),
    ("flip $(ls *.hashes) 1000", ".hashes"),
    ("printf xxxx | dd of=memory.map bs=1 seek=30 conv=notrunc", "memory.map"),
    ("rm memory.map", "memory.map"),
];

/// Turns every bit of a byte: what was there before is not what was there.
pub(super) const FLIP: &str = r#"flip() {
  byte=$(od -An -tu1 -j $2 -N 1 $1)
  printf "\\$(printf %03o $((byte ^ 255)))" | dd of=$1 bs=1 seek=$2 conv=notrunc 2>/dev/null
}"#;

fn damaged(ctx: &Ctx) -> Result<()> {
    let stage = Stage::start(ctx, &["tick", "--mib", "16"])?;
    let life = stage.program.life()?;
    stage.checkpoint("whole", "--standby")?;
    for (damage, file) in DAMAGE {
        let script = format!("{FLIP}; set -e; cd {PLACE}; rm -rf bad; cp -a whole bad; cd bad; {damage}");
        stage.host.sh(&script).ok()?;
        let output =
            stage.container.operation("restore", &["--image-path", &format!("{PLACE}/bad")]).output()?;
        let said = error_of(&output.out()).with_context(|| damage.to_owned())?;
        ensure!(!output.status.success() && said.contains(file), "{damage}: {said}");
        stage.container.require("standby")?;
    }
    ensure!(stage.comes_back("whole")? == life, "another program came back");
    stage.end()
}

/// Stops a checkpoint by its process when it has begun to write memory; the script goes on with its pid in $1.
const MEANWHILE: &str = r#"
fastmig --json checkpoint at-rest --image-path "$2" --leave-running --strategy pre-copy >/tmp/at-rest.out 2>&1 &
pid=$!
for n in $(seq 2000); do
  kill -STOP $pid 2>/dev/null || break
  written=$(cat "$2".partial-*/memory-*.pages 2>/dev/null | head -c 4000000 | wc -c)
  if [ "$written" = 4000000 ]; then break; fi
  kill -CONT $pid; sleep 0.003
done
eval "$1"
kill -CONT $pid 2>/dev/null
wait $pid
echo "ended with $?"
cat /tmp/at-rest.out; rm /tmp/at-rest.out
"#;

fn fails(ctx: &Ctx) -> Result<()> {
    let stage = Stage::start(ctx, &["tick", "--mib", "128", "--writes", "20"])?;
    let life = stage.program.life()?;
    let before = Snapshot::of(&stage.host)?;
    let mount = format!("mkdir -p {PLACE} && mount -t tmpfs -o size=60m at-rest {PLACE}");
    stage.host.sh(&mount).ok()?;
    let full = stage
        .container
        .operation("checkpoint", &["--leave-running", "--image-path", &format!("{PLACE}/full")]);
    let said = full.output()?.out();
    let left = stage.host.sh(&format!("ls -A {PLACE}; umount {PLACE}")).ok()?;
    ensure!(error_of(&said)?.contains("No space left") && left.trim().is_empty(), "{said}: {left}");
    stage.goes_on(&life, &before).context("a full disk")?;
    for (what, action) in [("CRIU is killed", KILL_CRIU_THERE), ("it is killed itself", "kill -9 $pid")] {
        let path = format!("{PLACE}/failed");
        let told = stage.host.cmd(["bash", "-c", MEANWHILE, "sh", action, &path]).ok()?;
        println!("    {what}: {}", told.trim());
        ensure!(!told.contains("ended with 0"), "{what}: {told}");
        ensure!(
            stage.host.cmd(["test", "-e", &path]).output()?.status.code() == Some(1),
            "something stands there"
        );
        stage.goes_on(&life, &before).context(what)?;
    }
    stage.checkpoint("failed", "--leave-running")?;
    let left = stage.host.sh(&format!("ls -A {PLACE}")).ok()?;
    ensure!(left.trim() == "failed", "what a killed one has left stays: {left}");
    ensure!(stage.comes_back("failed")? == life, "another program came back");
    stage.end()
}

const KILL_CRIU_THERE: &str = r#"for dir in /proc/[0-9]*; do
  if tr '\0' ' ' <$dir/cmdline 2>/dev/null | grep -q '^/dev/.fastmig/criu/'; then kill -9 ${dir#/proc/}; fi
done"#;
