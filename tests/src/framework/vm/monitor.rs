//! What QEMU is told while it runs, over its QMP socket.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{bail, Context, Result};
use serde_json::{json, Value};

use crate::framework::process::wait_until;

/// For an answer.
const LIMIT: Duration = Duration::from_secs(60);

/// For a state to be written.
const SAVE_LIMIT: Duration = Duration::from_secs(300);

/// A connection to one machine.
#[derive(Debug)]
pub(super) struct Monitor {
    stream: BufReader<UnixStream>,
}

impl Monitor {
    pub(super) fn connect(socket: &Path) -> Result<Self> {
        let stream =
            UnixStream::connect(socket).with_context(|| format!("no QEMU at {}", socket.display()))?;
        stream.set_read_timeout(Some(LIMIT))?;
        let mut monitor = Self { stream: BufReader::new(stream) };
        monitor.line()?;
        monitor.execute("qmp_capabilities", &json!({}))?;
        Ok(monitor)
    }

    /// Writes the state of the machine, but for its disks, to the file `to`. It stands still afterwards.
    pub(super) fn save(&mut self, to: &Path) -> Result<()> {
        let to = to.to_str().filter(|path| !path.contains('\'')).context("a path that no shell takes")?;
        self.execute("migrate-set-parameters", &json!({ "max-bandwidth": 4_000_000_000_u64 }))?;
        self.execute("migrate", &json!({ "uri": format!("exec:cat >'{to}'") }))?;
        let mut found = Value::Null;
        wait_until(SAVE_LIMIT, || {
            found = self.execute("query-migrate", &json!({})).unwrap_or_default()["status"].clone();
            found == "completed" || found == "failed"
        })?;
        if found != "completed" {
            bail!("QEMU cannot save the machine's state: {found}");
        }
        Ok(())
    }

    /// Ends it; its disks are complete then.
    pub(super) fn quit(mut self) -> Result<()> {
        self.execute("quit", &json!({})).map(drop)
    }

    fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        let line = json!({ "execute": command, "arguments": arguments }).to_string() + "\n";
        self.stream.get_mut().write_all(line.as_bytes())?;
        loop {
            let answer = self.line().with_context(|| format!("{command} is not answered"))?;
            if answer.get("error").is_some() {
                bail!("QEMU refuses {command}: {}", answer["error"]["desc"]);
            }
            // Events come in between.
            if let Some(value) = answer.get("return") {
                return Ok(value.clone());
            }
        }
    }

    fn line(&mut self) -> Result<Value> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        Ok(serde_json::from_str(&line)?)
    }
}
