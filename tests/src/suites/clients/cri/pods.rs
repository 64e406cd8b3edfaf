//! A pod under crictl: its container moves out and in again, found by id and by name, and the pod does not notice.

use std::time::Duration;

use anyhow::{ensure, Context, Result};
use serde_json::{json, Value};

use super::node::{node, SHIM, WRAPPER};
use super::registry::ADDRESS;
use super::tools::CRICTL;
use crate::framework::process::wait_until;
use crate::framework::{Ctx, Generation, Host};

const SOON: Duration = Duration::from_secs(20);

const IMAGE: &str = "e2e-test-images/busybox:1.29-2";
const NAMESPACE: &str = "shop";
const POD: &str = "web";

/// A line ten times a second, numbered in memory.
const COUNTER: &str = "n=0; while :; do n=$((n+1)); echo line $n; sleep 0.1; done";

/// Where the pods' files and the checkpoints are.
const PLACE: &str = "/var/lib/pods";

/// How CRI numbers the namespaces that a container gets: the pod's, or its own.
const OF_POD: u8 = 0;
const OWN: u8 = 1;

pub(super) fn move_out_and_in(ctx: &Ctx, generation: Generation) -> Result<()> {
    let host = node(ctx.session()?, &format!("pods-{generation}"), generation)?;
    host.cmd([CRICTL, "pull", &format!("{ADDRESS}/{IMAGE}")]).ok()?;
    host.sh(&format!("rm -rf {PLACE}; mkdir -m 700 -p {PLACE}")).ok()?;
    [WRAPPER, SHIM].into_iter().try_for_each(|handler| one_pod(&host, handler).context(handler))
}

fn one_pod(host: &Host, handler: &'static str) -> Result<()> {
    let pod = Pod::run(host, handler)?;
    let app = pod.container("app", OWN)?;
    let helper = pod.container("helper", OF_POD)?;
    let before = pod.processes(&app)?;
    let line = pod.next_line("app", 0)?;

    let of = |id: &str| fastmig(host, "status", &[id]);
    expect_left_alone(&of(&pod.id)?, "sandbox")?;
    expect_left_alone(&of(&helper)?, "pid namespace")?;

    let path = format!("{PLACE}/{handler}");
    let name = format!("{NAMESPACE}/{POD}/app");
    fastmig(host, "checkpoint", &[&name, "--image-path", &path, "--standby"])?;
    let state = of("app")?;
    ensure!(state["application"] == "standby", "{state}");
    ensure!(pod.processes(&app)? == before, "the pod or its container are not what they were");
    let silent_at = pod.last_line("app")?;
    fastmig(host, "restore", &[&app, "--image-path", &path])?;
    ensure!(of(&name)?["application"] == "running", "{}", of(&name)?);
    ensure!(pod.processes(&app)? == before, "the pod or its container are not what they were");
    ensure!(line <= silent_at, "the log went back from {line} to {silent_at}");
    let after = pod.next_line("app", silent_at)?;
    ensure!(after <= silent_at + 50, "the count jumped from {silent_at} to {after}");
    pod.remove()?;
    nothing_is_known(host)
}

fn fastmig(host: &Host, verb: &str, arguments: &[&str]) -> Result<Value> {
    Ok(serde_json::from_str(&host.cmd([&["fastmig", "--json", verb], arguments].concat()).ok()?)?)
}

fn expect_left_alone(state: &Value, reason: &str) -> Result<()> {
    let said = state["left_alone"].as_str().unwrap_or_default();
    ensure!(said.to_lowercase().contains(reason), "{reason:?} is not why it is left alone: {state}");
    Ok(())
}

/// FastMig remembers no container of the pod.
fn nothing_is_known(host: &Host) -> Result<()> {
    let known = || host.sh("ls /run/fastmig/*/ 2>/dev/null").output().map(|output| output.out());
    let gone = wait_until(SOON, || known().is_ok_and(|list| list.trim().is_empty()));
    gone.with_context(|| format!("still known: {:?}", known()))
}

/// A pod, removed with its guard.
struct Pod<'a> {
    host: &'a Host,
    handler: &'static str,
    id: String,
}

impl<'a> Pod<'a> {
    fn run(host: &'a Host, handler: &'static str) -> Result<Self> {
        let config = json!({
            "metadata": { "name": POD, "namespace": NAMESPACE, "uid": handler, "attempt": 0 },
            "log_directory": format!("{PLACE}/log-{handler}"),
            "linux": {},
        });
        let file = format!("{PLACE}/pod-{handler}.json");
        host.write_file(&file, config.to_string())?;
        let id = host.cmd([CRICTL, "runp", "--runtime", handler, &file]).ok()?.trim().to_owned();
        Ok(Self { host, handler, id })
    }

    /// A container that counts, with this pid namespace.
    fn container(&self, name: &str, pid: u8) -> Result<String> {
        let config = json!({
            "metadata": { "name": name, "attempt": 0 },
            "image": { "image": format!("{ADDRESS}/{IMAGE}") },
            "command": ["sh", "-c", COUNTER],
            "log_path": format!("{name}.log"),
            "linux": { "security_context": { "namespace_options": { "pid": pid } } },
        });
        let file = |name: &str| format!("{PLACE}/{name}-{}.json", self.handler);
        self.host.write_file(&file(name), config.to_string())?;
        let create = [CRICTL, "create", &self.id, &file(name), &file("pod")];
        let id = self.host.cmd(create).ok()?.trim().to_owned();
        self.host.cmd([CRICTL, "start", &id]).ok()?;
        Ok(id)
    }

    /// The host's numbers of the first processes of the sandbox and of a container; both must run.
    fn processes(&self, container: &str) -> Result<[u64; 2]> {
        let inspect = |verb: &str, id: &str, ready: &str| -> Result<u64> {
            let answer: Value = serde_json::from_str(&self.host.cmd([CRICTL, verb, id]).ok()?)?;
            ensure!(answer["status"]["state"] == ready, "{id} is {}", answer["status"]["state"]);
            answer["info"]["pid"].as_u64().with_context(|| format!("no pid in {answer}"))
        };
        Ok([
            inspect("inspectp", &self.id, "SANDBOX_READY")?,
            inspect("inspect", container, "CONTAINER_RUNNING")?,
        ])
    }

    /// The number in the last line of a container's log.
    fn last_line(&self, name: &str) -> Result<u64> {
        let log = self.host.read_file(&format!("{PLACE}/log-{}/{name}.log", self.handler))?;
        let log = String::from_utf8_lossy(&log).into_owned();
        let mut numbers = log.lines().rev().filter_map(|line| line.rsplit_once(' ')?.1.parse().ok());
        Ok(numbers.next().unwrap_or_default())
    }

    /// As [`Pod::last_line`], once it is beyond `line`.
    fn next_line(&self, name: &str, line: u64) -> Result<u64> {
        let beyond = || self.last_line(name).is_ok_and(|now| now > line);
        wait_until(SOON, beyond)
            .with_context(|| format!("nothing after line {line} in the log of {name}"))?;
        self.last_line(name)
    }

    fn remove(self) -> Result<()> {
        self.host.cmd([CRICTL, "stopp", &self.id]).ok()?;
        self.host.cmd([CRICTL, "rmp", &self.id]).ok().map(drop)
    }
}

impl Drop for Pod<'_> {
    fn drop(&mut self) {
        // Mostly gone already.
        let _ = self.host.cmd([CRICTL, "rmp", "-f", &self.id]).output();
    }
}
