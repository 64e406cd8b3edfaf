//! Volumes travel with the application: from one client's to another client's on another host.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use serde_json::Value;

use super::client::{Client, Setup, DOCKER, NERDCTL, PODMAN};
use super::container::{Container, CHECKPOINTS};
use super::row::{row, Row};
use super::stage;
use crate::apps::transfer::Receiver;
use crate::framework::process::wait_until;
use crate::framework::{Case, Ctx, Generation, Host, Outcome};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "a volume goes with its application from docker to podman on another host, and back",
        run: |ctx| travel(ctx, [&DOCKER, &PODMAN]).into(),
    },
    Case {
        name: "a volume goes with its application from podman to nerdctl on another host, and back",
        run: |ctx| match NERDCTL.missing() {
            Some(reason) => Outcome::Skipped(reason),
            None => travel(ctx, [&PODMAN, &NERDCTL]).into(),
        },
    },
    Case {
        name: "an application with a volume is told all at once why it cannot move",
        run: |ctx| all_reasons(ctx).into(),
    },
];

const SOON: Duration = Duration::from_secs(20);
const PORT: u16 = 7107;
const PLACE: &str = "/var/volume";

/// What is in the volume on the way out: each kind of file, and what the destination must lose.
const FILL: &str = r#"
cd "$0"; umask 022; rm -rf ./*
mkdir -p kept/deep gone; echo one > kept/deep/file; echo two > gone/file; echo old > rewritten
ln kept/deep/file linked; ln -s deep/file kept/link; mkfifo pipe; chmod 4750 kept/deep/file; chown 12:34 rewritten
dd if=/dev/zero of=sparse bs=1 count=1 seek=1073741824 2>/dev/null
chown 56:78 .; chmod 1771 .
echo upper > /root-file; rm -f /etc/passwd-
"#;

/// What is changed before the way back.
const CHANGE: &str = r#"
cd "$0"; rm -r gone; mv kept/deep/file kept/moved; echo new > rewritten; echo more > added; rm /root-file
"#;

/// All that must be the same at both ends.
const DESCRIBE: &str = r#"
cd "$0"; find . -exec stat -c '%n %F %a %u %g %s %h' {} + | sort
find . -type f ! -name sparse -exec md5sum {} + | sort; ls /root-file 2>&1 || true; [ $(stat -c %b sparse) -lt 1000 ] && echo sparse
"#;

fn setup(row: &dyn Row, client: &dyn Client, name: &str) -> Setup {
    let mut setup = Setup::of("busybox", name, "fastmig");
    if client.program() == NERDCTL.program() {
        setup.runtime = "io.containerd.fastmig.v1".into();
    }
    row.shape(&mut setup);
    let capabilities =
        if client.program() == PODMAN.program() { "AUDIT_WRITE,MKNOD,NET_RAW" } else { "KILL" };
    let options = ["--cap-add", capabilities, "-v", &format!("{name}:{PLACE}")];
    setup.options = options.map(str::to_owned).to_vec();
    setup
}

/// From the first client to the second one on another host, and back into the first container.
fn travel(ctx: &Ctx, [first, second]: [&'static dyn Client; 2]) -> Result<()> {
    let hosts = [stage::host(ctx, Generation::Trixie)?, stage::host(ctx, Generation::Forky)?];
    let mut row = row("busybox")?;
    let here = Volumed::run(&hosts[0], first, &setup(row.as_ref(), first, "volume-a"))?;
    let there = Volumed::run(&hosts[1], second, &setup(row.as_ref(), second, "volume-b").in_standby())?;
    row.fill(&here.container)?;
    here.shell(FILL)?;
    // What is at the destination gives way.
    there.shell("cd \"$0\"; rm -rf ./*; echo stays > not; mkdir kept; echo other > kept/other")?;
    for (number, (from, to)) in [(&here, &there), (&there, &here)].into_iter().enumerate() {
        let expected = from.describe()?;
        let path = from.container.fresh_checkpoint()?;
        to.container.fresh_checkpoint()?;
        to.container.host.cmd(["rm", "-rf", "--", &path]).ok()?;
        let before = from.counted()?;
        require_agreement(from, to)?;
        let receiver = Receiver::new(&to.container.host, PORT, CHECKPOINTS)?;
        let options = ["--standby", "--files", "--volumes", "all", "--image-path", &path];
        from.container.fastmig("checkpoint", &options)?;
        receiver.receive(&from.container.host, CHECKPOINTS, &[&from.container.name])?;
        to.container.restore(&path)?;
        wait_until(SOON, || to.counted().is_ok_and(|now| now > before))
            .with_context(|| format!("it counted to {before}, and does not go on"))?;
        let found = to.describe()?;
        ensure!(found == expected, "way {number}: sent was\n{expected}\nthere is\n{found}");
        if number == 0 {
            to.shell(CHANGE)?;
        }
    }
    there.remove()?;
    here.remove()
}

/// The destination has nothing against what the source says.
fn require_agreement(from: &Volumed, to: &Volumed) -> Result<()> {
    let passport = from.passport(&["--volumes", "all"])?;
    let reasons = to.against(&passport)?;
    ensure!(reasons.is_empty(), "{reasons:?}");
    Ok(())
}

/// A container that lacks what the application has in several ways.
fn all_reasons(ctx: &Ctx) -> Result<()> {
    let host = stage::host(ctx, Generation::Trixie)?;
    let row = row("busybox")?;
    let from = Volumed::run(&host, &DOCKER, &setup(row.as_ref(), &DOCKER, "reasons-a"))?;
    from.shell(FILL)?;
    let told = format!("{:#}", from.passport(&[]).err().context("it may leave its volume behind")?);
    ensure!(told.contains(PLACE) && told.contains("--volumes"), "{told}");
    let passport = from.passport(&["--volumes", "all"])?;

    let mut lacking = Setup::of("redis", "reasons-b", "fastmig").in_standby();
    let options = ["--cap-drop", "KILL", "--pids-limit", "1", "-v", "reasons-b:/elsewhere"];
    lacking.options = options.map(str::to_owned).to_vec();
    let to = Volumed::run(&host, &DOCKER, &lacking)?;
    let reasons = to.against(&passport)?.join("\n");
    for word in ["CAP_KILL", "--pids-limit", PLACE, "image", "/bin/busybox"] {
        ensure!(reasons.contains(word), "no word of {word}:\n{reasons}");
    }
    to.container.expect("standby")?;
    to.remove()?;
    from.remove()
}

/// A container with a volume of its own name.
struct Volumed {
    container: Container,
}

impl Volumed {
    fn run(host: &Arc<Host>, client: &'static dyn Client, setup: &Setup) -> Result<Self> {
        Ok(Self { container: Container::run(host, client, setup)? })
    }

    /// A script beside the application; its `$0` is the volume.
    fn shell(&self, script: &str) -> Result<String> {
        self.container.exec(&["sh", "-ec", script, PLACE]).ok()
    }

    fn describe(&self) -> Result<String> {
        self.shell(DESCRIBE)
    }

    /// How far its application has counted, of what this container has seen of it.
    fn counted(&self) -> Result<u64> {
        let logs = self.container.logs()?;
        // What follows the last line break may be half a number.
        let complete = logs.rsplit_once('\n').map_or("", |(complete, _)| complete);
        let last = complete.lines().rev().find_map(|line| line.strip_prefix("tick ")?.trim().parse().ok());
        last.context("it has not counted")
    }

    fn passport(&self, options: &[&str]) -> Result<String> {
        let line = [&["fastmig", "--json", "check", &self.container.name, "--passport"], options].concat();
        self.container.host.cmd(line).ok()
    }

    /// What `fastmig check --against` has against this passport.
    fn against(&self, passport: &str) -> Result<Vec<String>> {
        let script = "printf %s \"$2\" > /run/passport; fastmig --json check \"$1\" --against /run/passport";
        let output =
            self.container.host.cmd(["sh", "-c", script, "sh", &self.container.name, passport]).output()?;
        let answer: Value = serde_json::from_str(&output.out()).with_context(|| output.err())?;
        ensure!((output.status.code() == Some(0)) == (answer["ok"] == true), "{answer}");
        let reasons = answer["reasons"].as_array().context("no reasons")?;
        Ok(reasons.iter().map(Value::to_string).collect())
    }

    fn remove(self) -> Result<()> {
        let Container { host, client, name, .. } = &self.container;
        let (host, client, name) = (Arc::clone(host), *client, name.clone());
        self.container.remove()?;
        host.cmd([client.program(), "volume", "rm", &name]).ok().map(drop)
    }
}
