//! Each action, for exit codes, signals and want of memory, under each client.

use anyhow::{ensure, Context, Result};

use super::stage::{Mortal, SHIM, WRAPPER};
use crate::framework::process::wait_until;
use crate::framework::{Case, Ctx, Generation};
use crate::suites::clients::client::{Client, CTR, DOCKER, NERDCTL, PODMAN};
use crate::suites::clients::container::SOON;
use crate::suites::clients::stage::host;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "a policy decides in place: ctr, shim",
        run: |ctx| all(ctx, &CTR, SHIM, "f-ctr", &["--memory-limit", "67108864"]).into(),
    },
    Case {
        name: "a policy decides in place: nerdctl, shim",
        run: |ctx| all(ctx, &NERDCTL, SHIM, "f-nerdctl", &["-m", "64m"]).into(),
    },
    Case {
        name: "a policy decides in place: docker, wrapper",
        run: |ctx| all(ctx, &DOCKER, WRAPPER, "f-docker", &["-m", "64m"]).into(),
    },
    Case {
        name: "a policy decides in place: podman, wrapper",
        run: |ctx| all(ctx, &PODMAN, WRAPPER, "f-podman", &["-m", "64m"]).into(),
    },
    Case { name: "a policy decides in place: a terminal", run: |ctx| terminal(ctx).into() },
    Case { name: "without a policy a container ends as ever", run: |ctx| none(ctx).into() },
];

fn all(ctx: &Ctx, client: &'static dyn Client, runtime: &str, name: &str, memory: &[&str]) -> Result<()> {
    if let Some(why) = client.missing() {
        println!("    left out: {why}");
        return Ok(());
    }
    let host = host(ctx, Generation::Forky)?;
    let mortal = Mortal::start(&host, client, runtime, name, memory)?;
    mortal.end_and_rise("exit 3", 1, 2, "exit code 3")?;
    mortal.end_and_rise("kill -SEGV $$", 2, 3, "signal 11")?;
    mortal.end_and_rise("kill -KILL $$", 3, 4, "signal 9")?;
    mortal.end_and_rise("exec tail /dev/zero", 4, 5, "out of memory")?;
    stands_by(&mortal)?;
    is_restored(&mortal)?;
    // The client's own stop is no fault.
    let code = mortal.container.stop()?;
    ensure!(code == 143, "stopped by its client it ended with {code}");
    mortal.container.wait_until_ended()?;
    mortal.remove()?;

    let mortal = Mortal::start(&host, client, runtime, name, memory)?;
    mortal.tell("echo please stand by; exit 7")?;
    mortal.wait_for_decision(0, "standby", "it said \"please stand by\"")?;
    mortal.container.fastmig("run", &[])?;
    mortal.container.wait_for_log("run 2\n")?;
    mortal.tell("exit 6")?;
    mortal.container.wait_until_ended().context("no rule fits, and it goes on")?;
    mortal.remove()
}

fn stands_by(mortal: &Mortal) -> Result<()> {
    mortal.tell("exit 4")?;
    let status = mortal.wait_for_decision(4, "standby", "look at it")?;
    wait_until(SOON, || mortal.container.expect("standby").is_ok())?;
    ensure!(status["policy"]["name"] == "test", "{status}");
    let reason = mortal.status()?["last_failure"]["reason"].to_string();
    ensure!(reason.contains("exit code 4"), "its status does not say why: {reason}");
    mortal.container.fastmig("run", &[])?;
    mortal.container.wait_for_log("run 6\n")
}

fn is_restored(mortal: &Mortal) -> Result<()> {
    // Without a checkpoint there is nothing to restore.
    mortal.tell("exit 5")?;
    mortal.container.wait_for_log("run 7\n")?;
    mortal.wait_for_decision(5, "scratch", "no checkpoint yet")?;
    mortal.tell("was=here; echo marked")?;
    mortal.container.wait_for_log("marked\n")?;
    let path = mortal.container.fresh_checkpoint()?;
    mortal.container.fastmig("checkpoint", &["--leave-running", "--image-path", &path])?;
    mortal.tell("exit 5")?;
    mortal.wait_for_decision(6, "restore", "as it was")?;
    wait_until(SOON, || mortal.container.expect("running").is_ok())?;
    mortal.tell("echo it was $was")?;
    mortal.container.wait_for_log("it was here\n")
}

/// What comes up again has the same terminal.
fn terminal(ctx: &Ctx) -> Result<()> {
    let host = host(ctx, Generation::Forky)?;
    let mortal = Mortal::start(&host, &DOCKER, WRAPPER, "f-terminal", &["-t"])?;
    let on_terminal = |times: usize| {
        mortal.tell("test -t 0 && test -t 1 && echo on $(tty)")?;
        let told = || mortal.container.logs().is_ok_and(|log| log.matches("on /dev/").count() == times);
        wait_until(SOON, told).with_context(|| format!("no terminal: {:?}", mortal.container.logs()))
    };
    on_terminal(1)?;
    mortal.tell("exit 3")?;
    mortal.container.wait_for_log("run 2")?;
    mortal.wait_for_decision(1, "scratch", "exit code 3")?;
    on_terminal(2)?;
    mortal.tell("was=here; echo marked")?;
    mortal.container.wait_for_log("marked")?;
    let path = mortal.container.fresh_checkpoint()?;
    mortal.container.fastmig("checkpoint", &["--leave-running", "--image-path", &path])?;
    mortal.tell("exit 5")?;
    mortal.wait_for_decision(2, "restore", "as it was")?;
    mortal.tell("echo it was $was")?;
    mortal.container.wait_for_log("it was here")?;
    on_terminal(3)?;
    mortal.remove()
}

fn none(ctx: &Ctx) -> Result<()> {
    let host = host(ctx, Generation::Forky)?;
    let script =
        "ctr run --rm --runtime io.containerd.fastmig.v1 docker.io/library/busybox:1 f-none sh -c 'exit 3'; \
                  echo code $?; pgrep -fc '[k]eep-container default f-none' || true";
    let said = host.sh(script).ok()?;
    ensure!(said.contains("code 3") && said.trim().ends_with('0'), "{said}");
    Ok(())
}
