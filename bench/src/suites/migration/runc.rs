//! By what is there without FastMig: `runc checkpoint` to tmpfs, tar over TCP in the clear into a receiver that waits, `runc
//! restore`.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use fastmig_tests::apps::memory::{image, Program};
use fastmig_tests::framework::image::programs::PROGRAM;
use fastmig_tests::framework::image::reference;
use fastmig_tests::framework::Host;

use super::tool::{Hosts, Started, Tool};

/// A bundle on tmpfs, in the network of its host. Argument: the image.
const PREPARE: &str = r#"
test -e /bench/bundle/template.json && exit
mkdir -p /bench /tmp/image && mount -t tmpfs bench /bench && mkdir -p /bench/bundle/rootfs /bench/images
ctr images mount "$1" /tmp/image && cp -a /tmp/image/. /bench/bundle/rootfs/ && ctr images unmount --rm /tmp/image
cd /bench/bundle && runc spec && mv config.json template.json
"#;

/// Both sides have the same configuration. Arguments: the command.
const CONFIGURE: &str = r#"
jq --args '.process.terminal = false | .process.args = $ARGS.positional
    | .linux.namespaces |= map(select(.type != "network"))' \
  -- "$@" </bench/bundle/template.json >/bench/bundle/config.json
"#;

/// Starts the container `gap`.
const START: &str = "runc run -d --bundle /bench/bundle gap </dev/null >/dev/null 2>&1";

/// Restores what comes, at once. Argument: the port.
const RECEIVE: &str = r#"
cd /bench/images; echo ready
socat -u "TCP-LISTEN:$1,reuseaddr" EXEC:'tar -x -f -'
runc --log /bench/images/log restore -d --bundle /bench/bundle --image-path /bench/images/gap \
  --work-path /bench/images/work gap </dev/null >/dev/null 2>&1 || { tail -n 20 log work/restore.log >&2; exit 1; }
"#;

/// Saves the program and sends what it was. Arguments: the address, the port.
const SEND: &str = r#"
cd /bench/images
runc checkpoint --image-path /bench/images/gap --work-path /bench/images/work gap >/dev/null ||
  { tail -n 20 work/dump.log >&2; exit 1; }
tar -c --sparse -f - gap | socat -u - "TCP:$1:$2,retry=200,interval=0.02"
"#;

/// Ends it, and clears away what was written.
pub(in crate::suites) const REMOVE: &str = "runc delete -f gap 2>/dev/null; rm -rf /bench/images/*";

const PORT: &str = "7002";
pub(super) const LIMIT: Duration = Duration::from_secs(180);
pub(super) const SOON: Duration = Duration::from_secs(10);

/// Checkpoint, tar, restore.
#[derive(Debug)]
pub(super) struct RuncTar;

struct Moving(Hosts);

/// Makes the bundle, unless it is there.
pub(in crate::suites) fn prepare(host: &Host) -> Result<()> {
    host.cmd(["sh", "-ec", PREPARE, "sh", &reference(image())]).ok().map(drop).context("no bundle")
}

/// Starts the program in a container of runc's.
pub(in crate::suites) fn start(host: &Host, words: &[&str]) -> Result<()> {
    configure(host, words)?;
    host.sh(START).ok().map(drop)?;
    Program::on(host)?.wait_until_up()
}

fn configure(host: &Host, words: &[&str]) -> Result<()> {
    host.cmd([&["sh", "-ec", CONFIGURE, "sh", PROGRAM], words].concat()).ok().map(drop)
}

impl Tool for RuncTar {
    fn name(&self) -> &'static str {
        "runc-tar"
    }

    fn prepare(&self, hosts: &Hosts) -> Result<()> {
        hosts.iter().try_for_each(|host| prepare(host))
    }

    fn start(&self, hosts: &Hosts, words: &[&str]) -> Result<Box<dyn Started>> {
        let moving = Moving(hosts.clone());
        configure(&hosts[1], words)?;
        start(&hosts[0], words)?;
        Ok(Box::new(moving))
    }

    fn programs(&self) -> &'static [&'static str] {
        &["runc", "criu", "tar", "socat"]
    }
}

impl Started for Moving {
    fn go(&mut self) -> Result<Vec<(&'static str, f64)>> {
        let [a, b] = &self.0;
        let mut receiver = b.cmd(["bash", "-ec", RECEIVE, "bash", PORT]).spawn()?;
        receiver.wait_for_output("ready", SOON)?;
        a.cmd(["bash", "-o", "pipefail", "-ec", SEND, "bash", &b.address(), PORT]).timeout(LIMIT).ok()?;
        let restored = receiver.wait(LIMIT)?;
        ensure!(restored.status.success(), "cannot restore: {}", restored.err());
        Ok(Vec::new())
    }
}

impl Drop for Moving {
    fn drop(&mut self) {
        for host in &self.0 {
            remove(host, REMOVE);
        }
    }
}

/// Clears away what one move has left; the next one would fail on what stays, and say so.
pub(super) fn remove(host: &Arc<Host>, script: &str) {
    if let Err(error) = host.sh(script).ok() {
        eprintln!("  cannot clear away on host {}: {error:#}", host.name());
    }
}
