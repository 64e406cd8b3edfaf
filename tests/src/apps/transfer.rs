//! What a move takes from host to host: the checkpoint.
//!
//! It goes over the hosts' network, as a stream of tar: `socat` listens on the one and sends on the other. The receiver is
//! started ahead, so that it costs the application nothing.

use std::time::Duration;

use anyhow::{ensure, Context, Result};

use crate::framework::command::last_lines;
use crate::framework::{Background, Host};

const LIMIT: Duration = Duration::from_secs(120);

/// Unpacks what comes. Arguments: the port, the directory.
const RECEIVE: &str = r#"
port=$1; cd "$2"
echo ready
exec socat -u "TCP-LISTEN:$port,reuseaddr" EXEC:'tar -x --numeric-owner -p -f -'
"#;

/// Packs and sends. Arguments: the address, the directory, the names below it.
const SEND: &str = r#"
set -o pipefail
address=$1; cd "$2"; shift 2
tar -c --numeric-owner --sparse -f - "$@" | socat -u - "TCP:$address,retry=200,interval=0.02"
"#;

/// A host that waits for files.
#[derive(Debug)]
pub struct Receiver {
    process: Background,
    address: String,
}

impl Receiver {
    /// Lets `host` wait on `port` for files to be put into `dir`.
    pub fn new(host: &Host, port: u16, dir: &str) -> Result<Self> {
        let port = port.to_string();
        let command = ["bash", "-ec", RECEIVE, "bash", &port, dir];
        let mut process = host.cmd(command).spawn()?;
        process.wait_for_output("ready", Duration::from_secs(10))?;
        Ok(Self { process, address: format!("{}:{port}", host.address()) })
    }

    /// Sends `names` below `dir` of `from`, and waits until all has arrived.
    pub fn receive(self, from: &Host, dir: &str, names: &[&str]) -> Result<()> {
        let command = [&["bash", "-ec", SEND, "bash", &self.address, dir], names].concat();
        from.cmd(command).timeout(LIMIT).ok()?;
        let received = self.process.wait(LIMIT).context("the receiver does not end")?;
        ensure!(received.status.success(), "cannot unpack: {}", last_lines(&received.err()));
        Ok(())
    }
}
