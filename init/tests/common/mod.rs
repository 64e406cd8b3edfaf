//! Starts the real init as PID 1 of a new pid namespace and speaks the protocol from outside.
//!
//! `FASTMIG_INIT` names another binary to test than the one cargo has just built.
#![allow(dead_code, reason = "every test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

pub(crate) mod client;

use std::ffi::OsString;
use std::fs;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fastmig_control::{Pid, Reply, Request, Status, CONTROL_FD};
use nix::fcntl::{fcntl, FcntlArg};
use nix::sys::socket::{bind, listen, socket, AddressFamily, Backlog, SockFlag, SockType, UnixAddr};
use tempfile::TempDir;

use self::client::Client;

/// How long anything may take before the test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The binary under test.
pub(crate) fn init_binary() -> PathBuf {
    std::env::var_os("FASTMIG_INIT").map_or_else(|| env!("CARGO_BIN_EXE_fastmig-init").into(), PathBuf::from)
}

/// Whether tests that need root can run; says so when not.
pub(crate) fn root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("skipped: a new pid namespace needs root");
    }
    root
}

/// Waits until `ready` has something.
pub(crate) fn eventually<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(start.elapsed() < PATIENCE, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// How to start a container.
#[derive(Default)]
pub(crate) struct Setup {
    /// Put before the init on the command line: `setsid`, `setpriv` and their like.
    pub(crate) wrapper: Vec<OsString>,
    /// The container's stdin, stdout and stderr; a file in the directory otherwise.
    pub(crate) terminal: Option<OwnedFd>,
    /// `PATH` of the container.
    pub(crate) path: Option<OsString>,
    /// Another binary than [`init_binary`].
    pub(crate) init: Option<PathBuf>,
    /// The AppArmor profile that the application is to go under.
    pub(crate) profile: Option<&'static str>,
    /// Environment variables of the container.
    pub(crate) env: Vec<(&'static str, OsString)>,
}

/// A running init. Dropping it kills everything in it.
pub(crate) struct Container {
    pub(crate) directory: TempDir,
    unshare: Child,
    /// The init's pid outside.
    pub(crate) init: i32,
}

impl Container {
    pub(crate) fn start<const N: usize>(command: [&str; N]) -> Self {
        Self::start_with(Setup::default(), &command)
    }

    /// Starts an init and waits until it answers.
    pub(crate) fn start_with(setup: Setup, command: &[&str]) -> Self {
        let mut container = Self::spawn(setup, command);
        container.init = eventually("the init's start", || container.find_init());
        assert_eq!(container.client().ask(Request::Status), Reply::Status(STANDBY));
        container
    }

    /// A container whose command is a shell script.
    pub(crate) fn shell(script: &str) -> Self {
        Self::start(["sh", "-c", script])
    }

    fn spawn(setup: Setup, command: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        // Copied, so that it is never the very number it is to have, which `dup2` would leave close-on-exec.
        let listener = listener(&directory.path().join("control"));
        let number = fcntl(&listener, FcntlArg::F_DUPFD_CLOEXEC(64)).unwrap();
        // SAFETY: `fcntl` has just made it.
        let listener = unsafe { OwnedFd::from_raw_fd(number) };
        let mut unshare = Command::new("unshare");
        unshare.args(["--pid", "--fork", "--mount", "--mount-proc", "--kill-child=KILL", "--"]);
        unshare.args(setup.wrapper);
        unshare.arg(setup.init.unwrap_or_else(init_binary));
        unshare.args(["--control-fd", &CONTROL_FD.to_string()]);
        unshare.args(setup.profile.iter().flat_map(|name| ["--profile", name])).arg("--").args(command);
        unshare.current_dir(directory.path()).envs(setup.env);
        if let Some(path) = setup.path {
            unshare.env("PATH", path);
        }
        match setup.terminal {
            Some(terminal) => {
                let copy = || terminal.try_clone().unwrap();
                unshare.stdin(copy()).stdout(copy()).stderr(copy());
            }
            None => {
                let stream = |name| fs::File::create(directory.path().join(name)).unwrap();
                unshare.stdin(Stdio::null()).stdout(stream("stdout")).stderr(stream("stderr"));
            }
        }
        // SAFETY: two system calls between fork and exec.
        unsafe {
            unshare.pre_exec(move || {
                // Whatever the caller of the tests left open would land in the application.
                libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
                match libc::dup2(number, CONTROL_FD) {
                    CONTROL_FD => Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                }
            })
        };
        let unshare = unshare.spawn().unwrap();
        drop(listener);
        Self { directory, unshare, init: 0 }
    }

    fn find_init(&self) -> Option<i32> {
        let pid = self.unshare.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
        let init = children.split_whitespace().next()?;
        // Wrappers execute the init in their place.
        let name = fs::read_to_string(format!("/proc/{init}/comm")).ok()?;
        (name.trim() == "fastmig-init").then(|| init.parse().unwrap())
    }

    /// A new connection.
    pub(crate) fn client(&self) -> Client {
        Client::connect(&self.directory.path().join("control"))
    }

    /// Runs the command up to exec.
    pub(crate) fn run(&self) -> Pid {
        self.client().run()
    }

    pub(crate) fn status(&self) -> Status {
        self.client().status()
    }

    /// Waits for the container's end and returns its exit code.
    pub(crate) fn exit_code(&mut self) -> i32 {
        let status = eventually("the container's end", || self.unshare.try_wait().unwrap());
        status.code().unwrap_or_else(|| panic!("killed by signal {:?}", status.signal()))
    }

    /// Whether the init still runs.
    pub(crate) fn is_up(&mut self) -> bool {
        self.unshare.try_wait().unwrap().is_none()
    }

    /// Sends a signal to the init from outside, as runc does.
    pub(crate) fn kill(&self, signal: i32) {
        // SAFETY: takes no pointer.
        assert_eq!(unsafe { libc::kill(self.init, signal) }, 0);
    }

    /// Waits until the init does not run for a second: once it has done what it had to, it never wakes up.
    pub(crate) fn wait_until_idle(&self) {
        let switches = || {
            let status = fs::read_to_string(format!("/proc/{}/status", self.init)).unwrap();
            status
                .lines()
                .filter(|line| line.contains("ctxt_switches"))
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        eventually("an idle second", || {
            let before = switches();
            std::thread::sleep(Duration::from_secs(1));
            (before == switches()).then_some(())
        });
    }

    /// What a file of the container's working directory holds.
    pub(crate) fn file(&self, name: &str) -> String {
        fs::read_to_string(self.directory.path().join(name)).unwrap_or_default()
    }

    /// Waits until a file holds `text`.
    pub(crate) fn wait_for(&self, name: &str, text: &str) -> String {
        eventually(text, || Some(self.file(name)).filter(|content| content.contains(text)))
    }

    /// Runs a script inside, as an exec session does: a child of nobody in there. Returns what it prints.
    pub(crate) fn exec(&self, script: &str) -> String {
        let output = self.session(script).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// The command that runs a script inside.
    pub(crate) fn session(&self, script: &str) -> Command {
        let mut nsenter = Command::new("nsenter");
        nsenter.args(["--target", &self.init.to_string(), "--pid", "--mount", "--wd", "--"]);
        nsenter.args(["sh", "-c", script]);
        nsenter
    }

    /// Makes `sleep` appear under `pid` as a child of the init, as a restore does: forked in the namespace by a
    /// process that came from outside and exits.
    pub(crate) fn plant(&self, pid: Pid) {
        let last = pid.get() - 1;
        let script = format!(
            "echo {last} >/proc/sys/kernel/ns_last_pid; sleep 1000 >/dev/null 2>&1 </dev/null & test $! = {pid}"
        );
        self.exec(&script);
    }

    /// A field of a process's status, seen from inside.
    pub(crate) fn field(&self, pid: impl std::fmt::Display, field: &str) -> String {
        self.exec(&format!("sed -n 's/^{field}:[[:space:]]*//p' /proc/{pid}/status"))
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // The init dies with it (--kill-child), and the namespace with the init.
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
    }
}

/// What a fresh init answers.
pub(crate) const STANDBY: Status = Status {
    state: fastmig_control::State::Standby,
    last_exit: None,
    runs: 0,
    policy: fastmig_control::Policy::End,
    marked: false,
};

/// A listening socket as the runtime hands it over.
pub(crate) fn listener(path: &Path) -> OwnedFd {
    let listener = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(listener.as_raw_fd(), &UnixAddr::new(path).unwrap()).unwrap();
    listen(&listener, Backlog::new(16).unwrap()).unwrap();
    listener
}
