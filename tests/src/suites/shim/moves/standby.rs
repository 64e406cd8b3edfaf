//! What may go on in a container that waits, and other ways for an application to get into it.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{ensure, Context, Result};

use super::hosts;
use crate::apps;
use crate::apps::container::{Container, Setup};
use crate::apps::moving::{move_application, IMAGES};
use crate::apps::peer::Peer;
use crate::framework::{Ctx, Generation, Host};
use crate::suites::shim::stage::{nothing_is_left, SOON};

/// One shell waits, another forks without end.
pub(super) fn sessions(ctx: &Ctx, generation: Generation) -> Result<()> {
    let [host, _] = hosts(ctx, [generation; 2], "redis")?;
    let source = Container::run(&host, "sessions-1", &Setup::of("redis"))?;
    let destination = Container::run(&host, "sessions-2", &Setup::of("redis").in_standby())?;
    let peer = Peer::new(&host, 6379, &host)?;
    peer.wait_until_up(SOON)?;
    host.cmd(["redis-cli", "set", "x", "5"]).ok()?;

    let mut shell = destination.exec_command("shell", &["sh"]).spawn_with_stdin()?;
    let mut keyboard = shell.take_stdin().context("no keyboard")?;
    keyboard.write_all(b"echo here\n")?;
    shell.wait_for_output("here", SOON)?;
    let forks = "while ! test -e /tmp/end; do /bin/true; n=$((n+1)); test $((n % 100)) != 0 || echo $n; done";
    let mut forking = destination.exec_command("forks", &["sh", "-c", forks]).spawn()?;
    forking.wait_for_output("1500", Duration::from_secs(60)).context("it does not fork")?;

    move_application(&source, &destination)?;
    ensure!(host.cmd(["redis-cli", "get", "x"]).ok()? == "5\n", "its key is gone");
    keyboard.write_all(b"echo still here\n")?;
    shell.wait_for_output("still here", SOON)?;
    ensure!(forking.is_running(), "the other shell has ended");
    keyboard.write_all(b"touch /tmp/end\nexit\n")?;
    drop(keyboard);
    for session in [shell, forking] {
        ensure!(session.wait(SOON)?.status.success(), "a shell did not end well");
    }
    destination.remove()?;
    source.remove()?;
    nothing_is_left(&host)
}

pub(super) fn annotated(ctx: &Ctx, generations: [Generation; 2]) -> Result<()> {
    let [from, to] = hosts(ctx, generations, "redis")?;
    let mut app = apps::named("redis").context("there is no redis")?;
    let source = Container::run(&from, "annotated-1", &Setup::of("redis"))?;
    app.fill(&Peer::new(&from, app.port(), &from)?)?;
    // Both hosts see this directory.
    let image = "/shared/annotated";
    from.cmd(["rm", "-rf", image]).ok()?;
    source.checkpoint(image)?;
    let start = format!("fastmig.dev/start=restore={image}");
    let destination = Container::run(&to, "annotated-2", &Setup::of("redis").with(["--annotation", &start]))?;
    destination.require("running")?;
    let traffic = crate::apps::load::Load::start(Vec::new(), &[]).stop()?;
    app.verify(&Peer::new(&to, app.port(), &from)?, &traffic)?;

    let missing = Setup::of("redis").with(["--annotation", "fastmig.dev/start=restore=/nowhere"]);
    let waiting = Container::run(&to, "annotated-3", &missing)?;
    waiting.require("standby")?;
    let reason = waiting.operate("status", &[])?["last_failure"]["reason"].to_string();
    ensure!(reason.contains("/nowhere"), "the reason of the failed restore is {reason}");
    for container in [waiting, destination, source] {
        container.remove()?;
    }
    from.cmd(["rm", "-rf", image]).ok()?;
    nothing_is_left(&from)?;
    nothing_is_left(&to)
}

/// A checkpoint as an image of containerd's: the task is paused meanwhile and goes on, and a container of the same image
/// starts from it.
pub(super) fn by_ctr(ctx: &Ctx, generation: Generation) -> Result<()> {
    let [host, _] = hosts(ctx, [generation; 2], "redis")?;
    let source = filled(&host, "by-ctr-1")?;
    let name = "docker.io/library/by-ctr:1";
    host.cmd(["ctr", "containers", "checkpoint", "--task", "--rw", "--image", source.id(), name]).ok()?;
    runs_on(source)?;

    let restored = Container::adopt(&host, "by-ctr-2");
    host.cmd(["ctr", "containers", "restore", "--live", restored.id(), name]).ok()?;
    restored.require("running")?;
    ensure!(host.cmd(["redis-cli", "get", "x"]).ok()? == "7\n", "not its state at the checkpoint");
    restored.remove()?;
    host.cmd(["ctr", "images", "rm", "--sync", name]).ok()?;
    nothing_is_left(&host)
}

/// `ctr` writes a checkpoint to a directory, as far as it does so for runtimes that are not its own.
pub(super) fn by_ctr_to_directory(ctx: &Ctx) -> Result<()> {
    let [host, _] = hosts(ctx, [Generation::Forky; 2], "redis")?;
    let image = format!("{IMAGES}/by-ctr");
    host.cmd(["sh", "-ec", "mkdir -p -m 700 \"$1\"; rm -rf \"$2\"", "sh", IMAGES, &image]).ok()?;
    let source = filled(&host, "directory-1")?;
    host.cmd(["ctr", "tasks", "checkpoint", "--image-path", &image, source.id()]).ok()?;
    runs_on(source)?;

    let destination = Container::run(&host, "directory-2", &Setup::of("redis").in_standby())?;
    destination.restore(&image)?;
    ensure!(host.cmd(["redis-cli", "get", "x"]).ok()? == "7\n", "not its state at the checkpoint");
    destination.remove()?;
    host.cmd(["rm", "-rf", &image]).ok()?;
    nothing_is_left(&host)
}

/// A redis with a key.
fn filled(host: &Arc<Host>, id: &str) -> Result<Container> {
    let container = Container::run(host, id, &Setup::of("redis"))?;
    Peer::new(host, 6379, host)?.wait_until_up(SOON)?;
    host.cmd(["redis-cli", "set", "x", "7"]).ok()?;
    Ok(container)
}

/// It answers after a checkpoint, and is removed.
fn runs_on(container: Container) -> Result<()> {
    container.wait_for("running")?;
    let answer = container.host.cmd(["redis-cli", "incr", "x"]).ok()?;
    ensure!(answer.trim() == "8", "it does not answer any more: {answer}");
    container.remove()
}
