//! The containers of a pod, as CRI marks them: one shim serves them all, and the sandbox is left as it is.

use anyhow::{ensure, Context, Result};

use super::stage::{host, nothing_is_left, on_both, Task, FASTMIG, SOON};
use crate::framework::process::wait_until;
use crate::framework::{Case, Ctx, Generation, Host};

pub(super) const CASES: &[Case] =
    on_both!["a pod's containers share a shim, and its sandbox is untouched" => pod];

/// A lone `sleep` would not do: CRIU interrupts a sleep that it restores, and busybox ends then.
const LOOP: &str = "while :; do sleep 1; done";

const SHIM: &str = "containerd-shim-fastmig-v1";

fn shims(host: &Host) -> Result<usize> {
    // The name is longer than what the kernel keeps of it: the whole command line is looked at.
    let lines = host.cmd(["ps", "-e", "-o", "args="]).ok()?;
    Ok(lines.lines().filter(|line| line.contains(SHIM) && line.contains("-namespace")).count())
}

fn first_process(task: &Task<'_>) -> Result<String> {
    let path = format!("/proc/{}/cmdline", task.pid()?);
    Ok(String::from_utf8_lossy(&task.host.read_file(&path)?).replace('\0', " "))
}

fn pod(ctx: &Ctx, generation: Generation) -> Result<()> {
    let host = host(ctx, generation)?;
    let marked = |kind: &'static str| {
        ["--annotation", "io.kubernetes.cri.sandbox-id=pod", "--annotation"]
            .into_iter()
            .map(str::to_owned)
            .chain([format!("io.kubernetes.cri.container-type={kind}")])
            .collect::<Vec<_>>()
    };
    let start = |id: &str, kind: &'static str| {
        let options = marked(kind);
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        Task::start(&host, FASTMIG, &options, id, &["sh", "-c", LOOP])
    };
    let sandbox = start("pod", "sandbox")?;
    let member = start("member", "container")?;
    ensure!(shims(&host)? == 1, "{} shims serve one pod", shims(&host)?);
    ensure!(first_process(&sandbox)?.starts_with("sh -c"), "the sandbox's PID 1 is not its own");
    ensure!(first_process(&member)?.starts_with("/dev/.fastmig/fastmig-init"), "the member has no init");
    let state = sandbox.state()?;
    ensure!(state["left_alone"].as_str().is_some_and(|why| why.contains("sandbox")), "{state}");

    // A member moves on its own.
    let image = "/var/lib/fastmig/pod-image";
    member.fastmig("checkpoint", &["--image-path", image, "--standby"]).ok()?;
    member.fastmig("restore", &["--image-path", image]).ok()?;
    member.expect_application("running")?;
    host.sh(&format!("rm -rf {image}")).ok()?;

    member.remove()?;
    sandbox.wait_for_status("RUNNING").context("the sandbox ended with a member")?;
    sandbox.remove()?;
    wait_until(SOON, || shims(&host).is_ok_and(|n| n == 0)).context("the shim outlives its pod")?;
    nothing_is_left(&host)
}
