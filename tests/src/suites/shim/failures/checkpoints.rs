//! Checkpoints that must fail.

use anyhow::{ensure, Context, Result};
use serde_json::Value;

use super::{as_before, clear, log_named_in, nothing_at, refusal, says, Configuration, PLACE};
use crate::framework::process::wait_until;
use crate::framework::{Ctx, Generation, Host};
use crate::suites::shim::client;
use crate::suites::shim::counter::{count_of, counted, start_python};
use crate::suites::shim::stage::{self, SOON};

/// An application that CRIU cannot dump, and what must be said of it.
struct Undumpable {
    id: &'static str,
    options: &'static [&'static str],
    setup: &'static str,
    config: &'static str,
    cause: &'static str,
    remedy: &'static str,
}

const DEVICE: &str = "import os\nf = os.open('/dev/fuse', os.O_RDWR)";
const IO_URING: &str =
    "import ctypes\nf = ctypes.CDLL(None).syscall(425, 8, ctypes.create_string_buffer(120))\nassert f >= 0";
const GHOST: &str =
    "import os\nf = open('/ghost', 'wb')\nos.unlink('/ghost')\nf.write(b'x' * 300000)\nf.flush()";

const UNDUMPABLE: &[Undumpable] = &[
    Undumpable {
        id: "device",
        options: &["--device", "/dev/fuse"],
        setup: DEVICE,
        config: "",
        cause: "device",
        remedy: "close",
    },
    Undumpable {
        id: "uring",
        options: &["--annotation", "fastmig.dev/io-uring=allow"],
        setup: IO_URING,
        config: "",
        cause: "io_uring",
        remedy: "fastmig.dev/io-uring=allow",
    },
    Undumpable {
        id: "ghost",
        options: &[],
        setup: GHOST,
        config: "[checkpoint]\nghost_limit = 100000\n",
        cause: "deleted",
        remedy: "raise checkpoint.ghost_limit",
    },
];

pub(super) fn undumpable(ctx: &Ctx, generation: Generation) -> Result<()> {
    let host = stage::host(ctx, generation)?;
    clear(&host)?;
    for case in UNDUMPABLE {
        fails(&host, case).with_context(|| case.id)?;
    }
    stage::nothing_is_left(&host)
}

fn fails(host: &Host, case: &Undumpable) -> Result<()> {
    let _config = (!case.config.is_empty()).then(|| Configuration::write(host, case.config)).transpose()?;
    let task = start_python(host, case.id, case.options, case.setup)?;
    counted(&task)?;
    let pid = task.pid()?;
    let checked = task.fastmig("check", &[]).output()?;
    ensure!(checked.status.code() == Some(2), "check: {checked:?}");
    says(&checked.out().to_lowercase(), &["blocker", case.cause, case.remedy])?;
    let path = format!("{PLACE}/{}", case.id);
    for options in [&["--standby"][..], &["--leave-running"], &[]] {
        let output = task.fastmig("checkpoint", &[&["--image-path", &path], options].concat()).output()?;
        let error = refusal(&output)?;
        says(&error, &[case.cause, case.remedy])?;
        let log = log_named_in(host, &error)?;
        host.cmd(["rm", log]).ok()?;
        nothing_at(host, &path)?;
        as_before(&task, pid, 1)?;
        let failure: Value = task.state()?["last_failure"].clone();
        ensure!(failure["operation"] == "checkpoint" && failure["reason"] == error.as_str(), "{failure}");
    }
    task.remove()
}

pub(super) fn full_disk(ctx: &Ctx, generation: Generation) -> Result<()> {
    let host = stage::host(ctx, generation)?;
    let mount = "mkdir -p /mnt/small && mount -t tmpfs -o size=2m none /mnt/small && chmod 700 /mnt/small";
    host.sh(mount).ok()?;
    let result = on_full_disk(&host);
    host.cmd(["umount", "/mnt/small"]).ok()?;
    result?;
    stage::nothing_is_left(&host)
}

fn on_full_disk(host: &Host) -> Result<()> {
    let task = start_python(host, "full", &[], "import os\nkept = os.urandom(16 << 20)")?;
    counted(&task)?;
    let pid = task.pid()?;
    // By CRIU, whose log is kept, and by rounds.
    for options in [
        &["--standby", "--strategy", "stop-copy"][..],
        &["--leave-running", "--strategy", "stop-copy"],
        &["--standby"],
    ] {
        let output = task.fastmig("checkpoint", &[&["--image-path", "/mnt/small/image"], options].concat());
        let error = refusal(&output.output()?)?;
        says(&error, &["disk is full", "free space"])?;
        if options.contains(&"stop-copy") {
            host.cmd(["rm", log_named_in(host, &error)?]).ok()?;
        }
        let left = host.cmd(["ls", "-A", "/mnt/small"]).ok()?;
        ensure!(left.is_empty(), "left on the disk: {left}");
        as_before(&task, pid, 1)?;
    }
    task.remove()
}

/// containerd pauses a task before it asks for a checkpoint, and resumes it afterwards whatever came of it.
pub(super) fn of_a_paused_task(ctx: &Ctx, generation: Generation) -> Result<()> {
    let host = stage::host(ctx, generation)?;
    clear(&host)?;
    let task = start_python(&host, "paused", &["--device", "/dev/fuse"], DEVICE)?;
    counted(&task)?;
    let pid = task.pid()?;
    task.ctr(&["pause"], &[]).ok()?;
    let path = format!("{PLACE}/paused");
    let error = client::checkpoint(&task, &path).err().context("it went well")?;
    says(&format!("{error:#}"), &["device", "close"])?;
    nothing_at(&host, &path)?;
    ensure!(task.status()?.as_deref() == Some("PAUSED"), "{:?}", task.status()?);
    let before = count_of(&host, pid)?;
    std::thread::sleep(std::time::Duration::from_millis(200));
    ensure!(count_of(&host, pid)? == before, "a failed checkpoint has let a paused task run");
    task.ctr(&["resume"], &[]).ok()?;
    as_before(&task, pid, 1)?;
    let asked = task.ctr(&["checkpoint"], &[]).output()?;
    ensure!(!asked.status.success(), "ctr: {asked:?}");
    wait_until(SOON, || task.status().is_ok_and(|status| status.as_deref() == Some("RUNNING")))?;
    as_before(&task, pid, 1)?;
    task.remove()?;
    host.sh("rm -rf /var/log/fastmig").ok()?;
    stage::nothing_is_left(&host)
}
