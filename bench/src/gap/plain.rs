//! By what is there without FastMig: `runc checkpoint`, tar over TCP, `runc restore`.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use fastmig_tests::apps::memory::{image, Program};
use fastmig_tests::framework::image::programs::PROGRAM;
use fastmig_tests::framework::image::reference;
use fastmig_tests::framework::Host;

use super::{Gap, Stage, LIFE};

/// A bundle on tmpfs, in the network of its host. Argument: the image.
const PREPARE: &str = r#"
mkdir -p /bench /tmp/image && mount -t tmpfs bench /bench && mkdir -p /bench/bundle/rootfs /bench/images
ctr images mount "$1" /tmp/image && cp -a /tmp/image/. /bench/bundle/rootfs/ && ctr images unmount --rm /tmp/image
cd /bench/bundle && runc spec && mv config.json template.json
"#;

/// Both sides have the same configuration. Arguments: the command.
pub(crate) const CONFIGURE: &str = r#"
jq --args '.process.terminal = false | .process.args = $ARGS.positional
    | .linux.namespaces |= map(select(.type != "network"))' \
  -- "$@" </bench/bundle/template.json >/bench/bundle/config.json
"#;

/// Starts the container `gap`.
pub(crate) const START: &str = "runc run -d --bundle /bench/bundle gap </dev/null >/dev/null 2>&1";

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
pub(crate) const REMOVE: &str = "runc delete -f gap 2>/dev/null; rm -rf /bench/images/*";

const PORT: &str = "7002";
const LIMIT: Duration = Duration::from_secs(180);
const SOON: Duration = Duration::from_secs(10);

/// Makes the bundle.
pub(crate) fn prepare(host: &Host) -> Result<()> {
    host.cmd(["sh", "-ec", PREPARE, "sh", &reference(image())]).ok().map(drop).context("no bundle")
}

/// Moves the program once; how long it stood still.
pub(super) fn measure(stage: &Stage, words: &[&str]) -> Result<Gap> {
    let gap = moved(stage, words);
    for host in [&stage.a, &stage.b] {
        host.sh(REMOVE).ok()?;
    }
    gap
}

fn moved(stage: &Stage, words: &[&str]) -> Result<Gap> {
    let (a, b) = (&stage.a, &stage.b);
    for host in [a, b] {
        host.cmd([&["sh", "-ec", CONFIGURE, "sh", PROGRAM], words].concat()).ok()?;
    }
    a.sh(START).ok()?;
    let program = Program::on(a)?;
    program.wait_until_up()?;
    sleep(LIFE);
    let life = program.life()?;
    program.reset()?;
    let mut receiver = b.cmd(["bash", "-ec", RECEIVE, "bash", PORT]).spawn()?;
    receiver.wait_for_output("ready", SOON)?;
    a.cmd(["bash", "-o", "pipefail", "-ec", SEND, "bash", &b.address(), PORT]).timeout(LIMIT).ok()?;
    let restored = receiver.wait(LIMIT)?;
    ensure!(restored.status.success(), "cannot restore: {}", restored.err());
    let program = Program::on(b)?;
    program.wait_until_up()?;
    let own = program.pause()?;
    program.check()?;
    ensure!(program.life()? == life, "this is another program");
    Ok(Gap { own, client: None })
}
