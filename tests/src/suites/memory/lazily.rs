//! Restores that begin before all of a checkpoint is read.

use std::ops::RangeInclusive;
use std::thread::sleep;

use anyhow::{ensure, Context, Result};
use serde_json::Value;

use super::at_rest::{number, Stage, CHURN, FAMILY, HUGE, LIFE, PLACE, SHARED};
use super::stage::error_of;
use crate::framework::flip::FLIP;
use crate::framework::{Case, Ctx};

pub(super) const CASES: &[Case] = &[
    Case { name: "a restore begins before memory is read", run: |ctx| begins(ctx, LARGE, ALL).into() },
    Case { name: "a restored family gets its memory later", run: |ctx| begins(ctx, FAMILY, ALL).into() },
    Case { name: "a restore reads shared memory before", run: |ctx| begins(ctx, SHARED, LITTLE).into() },
    Case { name: "a restore reads huge pages later", run: |ctx| begins(ctx, HUGE, ALL).into() },
    Case {
        name: "a restore follows memory that is mapped at random",
        run: |ctx| begins(ctx, CHURN, ALL).into(),
    },
    Case { name: "a restore meets damage when the application runs", run: |ctx| damaged(ctx).into() },
    Case { name: "who restores is killed while memory follows", run: |ctx| killed(ctx).into() },
];

/// What may follow, in bytes: of shared memory nothing, but next to it lies some that is not.
const LITTLE: RangeInclusive<u64> = 0..=1 << 20;
const ALL: RangeInclusive<u64> = 1 << 20..=u64::MAX;

const LARGE: &[&str] = &["tick", "--mib", "256", "--writes", "20"];

impl Stage {
    fn restore_lazily(&self, name: &str) -> Result<Value> {
        self.container.operate("standby", &[])?;
        let path = format!("{PLACE}/{name}");
        let told = self.container.operate("restore", &["--image-path", &path, "--lazy-pages"])?;
        // Nothing, where all memory is shared.
        let later = told["memory_ms"].as_u64().unwrap_or(0);
        let (all, faults) = (number(&told, "total_ms")?, told["faults"].as_u64().unwrap_or(0));
        println!(
            "    ran after {} ms, had all after {all} ms, waited {faults} times",
            all.saturating_sub(later)
        );
        Ok(told)
    }

    fn is_whole(&self, life: &Value) -> Result<()> {
        self.container.require("running")?;
        self.program.wait_until_up()?;
        self.program.check()?;
        ensure!(self.program.life()? == *life, "another program came back");
        Ok(())
    }
}

/// Twice, and the second time from a checkpoint of what had come so.
fn begins(ctx: &Ctx, words: &[&str], follows: RangeInclusive<u64>) -> Result<()> {
    let stage = Stage::start(ctx, words)?;
    let life = stage.program.life()?;
    sleep(LIFE);
    stage.checkpoint("1", "--standby")?;
    let told = stage.restore_lazily("1")?;
    let bytes = told["memory_bytes"].as_u64().unwrap_or(0);
    ensure!(follows.contains(&bytes), "{bytes} bytes followed, of {follows:?}: {told}");
    stage.is_whole(&life).context("the first time")?;
    sleep(LIFE);
    stage.checkpoint("2", "--standby")?;
    stage.restore_lazily("2")?;
    stage.is_whole(&life).context("the second time")?;
    sleep(LIFE);
    stage.is_whole(&life).context("some time after")?;
    stage.end()
}

/// One page of those in the middle, which nobody touches at once.
const DAMAGE: &str =
    "set -e; cd \"$0\"; rm -rf bad; cp -a whole bad; cd bad; file=$(ls -S *.pages | head -1); \
     flip $file $(($(stat -c %s $file) / 2))";

fn damaged(ctx: &Ctx) -> Result<()> {
    let stage = Stage::start(ctx, &["tick", "--mib", "64"])?;
    let life = stage.program.life()?;
    stage.checkpoint("whole", "--standby")?;
    stage.host.cmd(["bash", "-c", &format!("{FLIP}; {DAMAGE}"), PLACE]).ok()?;
    let path = format!("{PLACE}/bad");
    let restore = || stage.container.operation("restore", &["--image-path", &path, "--lazy-pages"]).output();
    let output = restore()?;
    let said = error_of(&output.out())?;
    ensure!(!output.status.success() && said.contains(".pages") && said.contains("does not come"), "{said}");
    stage.container.require("standby")?;
    stage.restore_lazily("whole")?;
    stage.is_whole(&life)?;

    let plain = format!("{PLACE}/plain");
    let options = ["--standby", "--image-path", &plain, "--strategy", "stop-copy"];
    stage.container.operate("checkpoint", &options)?;
    let options = ["--image-path", &plain, "--lazy-pages"];
    let said = error_of(&stage.container.operation("restore", &options).output()?.out())?;
    ensure!(said.contains("not taken in rounds") && said.contains("--lazy-pages"), "{said}");
    stage.container.restore(&plain)?;
    stage.is_whole(&life)?;
    stage.end()
}

/// Stops who restores when the application runs, and kills it while something is missing. $0 is the checkpoint.
const KILL: &str = r#"
fastmig --json restore at-rest --image-path "$0" --lazy-pages >/tmp/lazily.out 2>&1 &
pid=$!
while kill -0 $pid 2>/dev/null; do
  if ls /proc/$pid/task/*/ 2>/dev/null | grep -q . && ls -l /proc/$pid/fd 2>/dev/null | grep -q userfaultfd; then
    sleep 0.01; kill -KILL $pid; break
  fi
done
wait $pid
echo "ended with $?"
"#;

fn killed(ctx: &Ctx) -> Result<()> {
    let stage = Stage::start(ctx, &["tick", "--mib", "512"])?;
    stage.checkpoint("1", "--standby")?;
    stage.container.operate("standby", &[])?;
    let told = stage.host.cmd(["bash", "-c", KILL, &format!("{PLACE}/1")]).ok()?;
    ensure!(told.contains("ended with 137"), "it was not killed in time: {told}");
    // Nobody brings what it misses: it must not run on with zeros, and may have ended its container with it.
    let state = |stage: &Stage| stage.container.status().map(|status| status.application);
    let mut waited = 0;
    while state(&stage).is_ok_and(|state| state == "running") {
        ensure!(waited < 100, "it runs on without its memory");
        sleep(LIFE / 8);
        waited += 1;
    }
    stage.end()
}
