//! What the cases stand on: an application that ends as it is told, in a container with a policy.

use std::sync::Arc;

use anyhow::{ensure, Context, Result};
use serde_json::Value;

use crate::framework::process::wait_until;
use crate::framework::Host;
use crate::suites::clients::client::{Client, Setup};
use crate::suites::clients::container::{Container, SOON};

/// The shim's type, and what makes the clients call the wrapper.
pub(super) const SHIM: &str = "io.containerd.fastmig.v1";
pub(super) const WRAPPER: &str = "fastmig";

/// Each end has an exit code of its own.
pub(super) const POLICY: &str = r#"
version = 1
window = "1h"

[backoff]
first = "0s"

[[rule]]
name = "memory ran out"
oom = true
action = "scratch"

[[rule]]
name = "again"
code = [3, "128..255"]
action = "scratch"

[[rule]]
name = "look at it"
code = 4
action = "standby"

[[rule]]
name = "as it was"
code = 5
action = "restore"

[[rule]]
name = "it said so"
code = 7
output = "^please stand by$"
action = "standby"
"#;

/// Counts its starts, says so, and does what is written into `/tmp/how`.
const APPLICATION: &str = r#"
n=$(cat /tmp/n 2>/dev/null || echo 0); n=$((n + 1)); echo $n > /tmp/n
echo "run $n"
while :; do
    if [ -s /tmp/how ]; then
        how=$(cat /tmp/how)
        rm /tmp/how
        eval "$how"
    fi
    sleep 0.02
done
"#;

/// Writes a policy of the host's own.
pub(super) fn write_policy(host: &Host, name: &str, text: &str) -> Result<()> {
    host.sh("mkdir -p /etc/fastmig/policies").ok()?;
    host.write_file(&format!("/etc/fastmig/policies/{name}.toml"), text)
}

/// An application that ends as it is told.
pub(super) struct Mortal {
    pub(super) container: Container,
}

impl Mortal {
    /// Starts one under [`POLICY`].
    pub(super) fn start(
        host: &Arc<Host>,
        client: &'static dyn Client,
        runtime: &str,
        name: &str,
        options: &[&str],
    ) -> Result<Self> {
        write_policy(host, "test", POLICY)?;
        let mut setup = Setup::of("busybox", name, runtime);
        setup.annotations.push(("fastmig.dev/policy".into(), "test".into()));
        setup.options = options.iter().map(|option| (*option).to_owned()).collect();
        setup.command = ["sh", "-c", APPLICATION].map(String::from).to_vec();
        let mortal = Self { container: Container::run(host, client, &setup)? };
        // A terminal ends its lines in its own way.
        mortal.container.wait_for_log("run 1")?;
        Ok(mortal)
    }

    /// Lets it do this next.
    pub(super) fn tell(&self, how: &str) -> Result<()> {
        let script = format!("echo '{how}' > /tmp/how.new && mv /tmp/how.new /tmp/how");
        self.container.exec(&["sh", "-c", &script]).ok().map(drop)
    }

    pub(super) fn status(&self) -> Result<Value> {
        self.container.fastmig("status", &[])
    }

    /// Waits until this was decided, for a reason with these words in it, and answers the status then.
    pub(super) fn wait_for_decision(&self, number: u64, action: &str, words: &str) -> Result<Value> {
        let decided = || {
            let last = &self.status()?["policy"]["last"];
            let reason = last["reason"].as_str().unwrap_or_default();
            let restarts = self.status()?["policy"]["restarts"].as_u64();
            ensure!(
                last["action"] == action && reason.contains(words) && restarts == Some(number),
                "not {action} because of {words:?} after {number} restarts: {}",
                self.status()?
            );
            Ok(())
        };
        let _ = wait_until(SOON, || decided().is_ok());
        decided()?;
        self.status()
    }

    /// Ends it so, and waits until it has come up again from scratch as its `n`th run.
    pub(super) fn end_and_rise(&self, how: &str, restarts: u64, run: u32, words: &str) -> Result<()> {
        let before = self.status()?["pid"].clone();
        self.tell(how)?;
        self.container.wait_for_log(&format!("run {run}\n"))?;
        let status = self.wait_for_decision(restarts, "scratch", words)?;
        ensure!(status["pid"] == before, "PID 1 is another: {before} then {status}");
        self.container.expect("running")
    }

    /// Removes it now; nobody keeps what is gone.
    pub(super) fn remove(self) -> Result<()> {
        let host = Arc::clone(&self.container.host);
        let keeper = self.status().ok().and_then(|status| status["policy"]["keeper"].as_i64());
        self.container.remove()?;
        let Some(keeper) = keeper else { return Ok(()) };
        let gone =
            || host.cmd(["kill", "-0", &keeper.to_string()]).output().is_ok_and(|o| !o.status.success());
        wait_until(SOON, gone).context("its keeper stays")
    }

    /// The process that decides.
    pub(super) fn keeper(&self) -> Result<i64> {
        self.status()?["policy"]["keeper"].as_i64().context("nobody keeps it")
    }
}
