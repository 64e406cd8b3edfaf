//! A keeper that is killed, and one that nobody replaces.

use anyhow::{ensure, Context, Result};

use super::stage::{Mortal, WRAPPER};
use crate::framework::process::wait_until;
use crate::framework::{Case, Ctx, Generation, Host};
use crate::suites::clients::client::DOCKER;
use crate::suites::clients::container::SOON;
use crate::suites::clients::stage::host;

pub(super) const CASES: &[Case] = &[
    Case { name: "the next operation replaces a keeper that was killed", run: |ctx| replaced(ctx).into() },
    Case { name: "without a keeper the container ends as on runc", run: |ctx| missing(ctx).into() },
];

fn kill(host: &Host, mortal: &Mortal) -> Result<i64> {
    let keeper = mortal.keeper()?;
    host.cmd(["kill", "-KILL", &keeper.to_string()]).ok()?;
    wait_until(SOON, || mortal.keeper().is_err()).context("it does not die")?;
    Ok(keeper)
}

fn replaced(ctx: &Ctx) -> Result<()> {
    let host = host(ctx, Generation::Forky)?;
    let mortal = Mortal::start(&host, &DOCKER, WRAPPER, "f-replaced", &[])?;
    mortal.end_and_rise("exit 3", 1, 2, "exit code 3")?;
    let first = kill(&host, &mortal)?;
    let path = mortal.container.fresh_checkpoint()?;
    mortal.container.fastmig("checkpoint", &["--leave-running", "--image-path", &path])?;
    wait_until(SOON, || mortal.keeper().is_ok_and(|keeper| keeper != first)).context("no other came")?;
    mortal.end_and_rise("exit 3", 2, 3, "exit code 3")?;
    // One that comes too late for the end itself decides about it all the same.
    kill(&host, &mortal)?;
    mortal.tell("exit 3")?;
    wait_until(SOON, || mortal.container.expect("standby").is_ok()).context("it does not wait")?;
    // Refused, as nothing runs; but it has looked.
    let again = ["fastmig", "checkpoint", "--image-path", &path, "f-replaced"];
    ensure!(!host.cmd(again).output()?.status.success(), "what does not run was checkpointed");
    mortal.container.wait_for_log("run 4\n")?;
    mortal.remove()
}

fn missing(ctx: &Ctx) -> Result<()> {
    const SETTINGS: &str = "/etc/fastmig/config.toml";
    let host = host(ctx, Generation::Forky)?;
    let before = host.read_file(SETTINGS).ok();
    host.write_file(SETTINGS, "[limits]\ndecision = 2\n")?;
    let mortal = Mortal::start(&host, &DOCKER, WRAPPER, "f-missing", &[]);
    match before {
        Some(text) => host.write_file(SETTINGS, text)?,
        None => host.cmd(["rm", SETTINGS]).ok().map(drop)?,
    }
    let mortal = mortal?;
    kill(&host, &mortal)?;
    mortal.tell("exit 3")?;
    mortal.container.wait_until_ended()?;
    let code = mortal.container.stop();
    ensure!(matches!(code, Ok(3)), "it did not end with its application's code: {code:?}");
    mortal.remove()
}
