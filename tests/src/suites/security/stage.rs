//! What the cases stand on: a host with FastMig, a container whose application was checkpointed and which waits for it in
//! standby, and another one beside it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{ensure, Context, Result};

use super::outside::{self, Outside};
use crate::apps::container::{Container, Setup};
use crate::framework::process::wait_until;
use crate::framework::{Ctx, Generation, Host, Output};
use crate::suites::migration::stage as common;

/// How long one attempt of a restore may take; CRIU's own limit is shorter.
const LIMIT: Duration = Duration::from_secs(60);

/// An application with what an image can lie about: processes, a thread, a file, a deleted file, pipes and sockets.
const APPLICATION: &str = "
import os, socket, threading, time
log = open('/tmp/app.log', 'a+'); log.write('x' * 100); log.flush()
ghost = open('/tmp/ghost', 'w+'); os.unlink('/tmp/ghost'); ghost.write('g' * 100); ghost.flush()
pipe = os.pipe()
pair = socket.socketpair()
if os.fork() == 0:
    while True: time.sleep(0.05)
threading.Thread(target=time.sleep, args=(1e8,), daemon=True).start()
print('ready', flush=True)
while True: time.sleep(0.02)
";

/// The operator's file of a host, there as long as the guard is.
pub(super) struct Settings(Arc<Host>);

const SETTINGS: &str = "/etc/fastmig/config.toml";

impl Settings {
    pub(super) fn write(host: &Arc<Host>, text: &str) -> Result<Self> {
        host.write_file(SETTINGS, text)?;
        Ok(Self(Arc::clone(host)))
    }
}

impl Drop for Settings {
    fn drop(&mut self) {
        // A case that goes on without its removal fails by itself.
        let _ = self.0.cmd(["rm", "-f", SETTINGS]).ok();
    }
}

/// The host that all cases share.
pub(super) fn host(ctx: &Ctx) -> Result<Arc<Host>> {
    let host = common::host(ctx, "f", Generation::Forky)?;
    common::with_images(&host, &["busybox", "python"])?;
    Ok(host)
}

/// A container of the Python image with runc's own confinement: Docker's default capabilities, its seccomp filter, and no
/// new privileges.
pub(super) fn confined(command: &[&str]) -> Setup {
    let options = vec!["--seccomp".to_owned()];
    Setup { image: "python".into(), options, ..Setup::default() }.running(command.iter().copied())
}

/// A standby container, its checkpoint, and all that lies around them.
pub(super) struct Stage {
    pub(super) host: Arc<Host>,
    pub(super) container: Container,
    /// A CRIU that an image makes hang is given up soon.
    settings: Settings,
    neighbour: Container,
    neighbour_pid: i32,
    /// Where checkpoints lie, as this machine sees it; hosts see it as `/shared/hostile`.
    shared: PathBuf,
}

impl Stage {
    /// With these options of the container.
    pub(super) fn new(ctx: &Ctx, options: &[&str]) -> Result<Self> {
        let host = host(ctx)?;
        outside::prepare(&host)?;
        let settings = Settings::write(&host, "[limits]\ncriu = 10\n")?;
        let shared = host.shared_dir().join("hostile");
        fs::create_dir_all(&shared)?;
        let neighbour = Container::run(&host, "neighbour", &confined(&["sleep", "100000"]))?;
        let setup = confined(&["python3", "-c", APPLICATION]).with(options.iter().copied());
        let container = Container::run(&host, "hostile", &setup)?;
        let said = || container.output().is_ok_and(|output| output.starts_with(b"ready"));
        wait_until(LIMIT, said).context("the application does not come up")?;
        let good = shared.join("good");
        super::craft::remove(&good)?;
        container.operate("checkpoint", &["--standby", "--files", "--image-path", "/shared/hostile/good"])?;
        let neighbour_pid = neighbour.status()?.pid;
        Ok(Self { host, container, settings, neighbour, neighbour_pid, shared })
    }

    /// The checkpoint that nobody has changed.
    pub(super) fn good(&self) -> PathBuf {
        self.shared.join("good")
    }

    /// Where a changed one goes, as this machine and as the host sees it.
    pub(super) fn place(&self) -> (PathBuf, &'static str) {
        (self.shared.join("changed"), "/shared/hostile/changed")
    }

    /// Tries to restore what lies at `path`, as the host sees it.
    pub(super) fn restore(&self, path: &str) -> Result<Output> {
        self.container.operation("restore", &["--image-path", path]).timeout(LIMIT).output()
    }

    /// What lies around the container now.
    pub(super) fn outside(&self) -> Result<Outside> {
        Outside::of(&self.host, self.neighbour_pid)
    }

    /// A file of the container, as this machine sees it.
    pub(super) fn inside(&self, path: &str) -> Result<PathBuf> {
        let pid = self.container.status()?.pid;
        Ok(self.host.outside(&format!("/proc/{pid}/root{path}")))
    }

    /// The container still takes its application in, the neighbour is untouched, and all goes.
    pub(super) fn end(self) -> Result<()> {
        let output = self.restore("/shared/hostile/good")?;
        ensure!(output.status.success(), "what nobody changed is not restored any more: {output:?}");
        self.container.require("running")?;
        let status = self.neighbour.require("running")?;
        ensure!(status.pid == self.neighbour_pid && status.runs == 1, "the neighbour: {status:?}");
        self.container.remove()?;
        self.neighbour.remove()?;
        super::craft::remove(Path::new(&self.shared))?;
        self.host.sh("rm -rf /var/log/fastmig").ok()?;
        drop(self.settings);
        common::nothing_is_left(&self.host)
    }
}
