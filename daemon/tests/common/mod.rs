//! A daemon of its own for each test: a real process, in a directory of its own.

#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of it")]
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

pub mod http;

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use fastmigd::pki::authority::{Authority, Subject};
use fastmigd::pki::identity::Identity;
use fastmigd::pki::role::Role;
use fastmigd::pki::Place;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use serde_json::{json, Value};

pub use http::Answer;

/// How long anything may take here.
pub const LIMIT: Duration = Duration::from_secs(20);

/// A daemon and its directory.
pub struct Daemon {
    pub root: tempfile::TempDir,
    pub address: SocketAddr,
    child: Option<Child>,
}

impl Daemon {
    /// One that listens on its socket alone. Not started yet.
    pub fn prepare() -> Self {
        let root = tempfile::tempdir().unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let daemon = Self { root, address, child: None };
        daemon.configure("");
        daemon
    }

    /// [`Daemon::prepare`], started.
    pub fn start() -> Self {
        let mut daemon = Self::prepare();
        daemon.up();
        daemon
    }

    /// One that has begun a cluster, and listens on TCP.
    pub fn start_cluster() -> Self {
        let mut daemon = Self::prepare();
        let address = daemon.address.to_string();
        daemon.command(&["init", "--name", "host-a", "--address", &address]);
        daemon.up();
        daemon
    }

    /// Writes the settings, with `more` lines in `[daemon]`.
    pub fn configure(&self, more: &str) {
        let at = |name: &str| self.path(name).display().to_string();
        let text = format!(
            "state_root = {:?}\nlog_dir = {:?}\n[daemon]\nsocket = {:?}\nstate_dir = {:?}\ncheckpoint_dir = {:?}\n{more}\n",
            at("run"), at("log"), at("run/api.sock"), at("lib"), at("checkpoints")
        );
        fs::write(self.path("config.toml"), text).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub fn socket(&self) -> PathBuf {
        self.path("run/api.sock")
    }

    pub fn pki(&self) -> Place {
        Place::below(&self.path("lib"))
    }

    /// Starts it and waits until it answers.
    pub fn up(&mut self) {
        let log = File::options().create(true).append(true).open(self.path("daemon.log")).unwrap();
        let child = self.program(&[]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        self.child = Some(child);
        let deadline = Instant::now() + LIMIT;
        while http::try_unix(&self.socket(), "GET", "/healthz", &[], b"").is_err() {
            assert!(Instant::now() < deadline, "it does not answer:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends it by a signal; answers whether it ended well.
    pub fn end(&mut self, signal: Signal) -> bool {
        let Some(mut child) = self.child.take() else { return true };
        kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status.success();
            }
            assert!(Instant::now() < deadline, "it does not end:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path("daemon.log")).unwrap_or_default()
    }

    fn program(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fastmigd"));
        command.arg("--config").arg(self.path("config.toml")).args(arguments);
        command
    }

    /// Runs a command of the program, which may fail.
    pub fn try_command(&self, arguments: &[&str]) -> Output {
        self.program(arguments).stdin(Stdio::null()).output().unwrap()
    }

    /// Runs a command of the program; answers its output.
    pub fn command(&self, arguments: &[&str]) -> String {
        let output = self.try_command(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// A call by the socket.
    pub fn call(&self, method: &str, path: &str, body: &str) -> Answer {
        self.call_with(method, path, &[], body)
    }

    pub fn call_with(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        http::try_unix(&self.socket(), method, path, headers, body.as_bytes()).unwrap()
    }

    /// A certificate of the cluster's.
    pub fn member(&self, name: &str, role: Role) -> Identity {
        let authority = Authority::open(&self.pki()).unwrap().unwrap();
        identity(&authority, &self.path(&format!("member-{name}-{role}")), name, role)
    }

    /// A container that was created and never started: its operations wait for its lock, and are refused then.
    pub fn make_container(&self, id: &str) -> Held {
        let directory = self.path("run").join("default").join(id);
        fs::create_dir_all(&directory).unwrap();
        let child = Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = child.id();
        let record = json!({
            "key": { "namespace": "default", "id": id },
            "bundle": directory,
            "runc": { "binary": "runc", "root": "/nonexistent", "systemd_cgroup": false },
            "pid": pid, "pid_start": start_time(pid),
            "cgroup": null, "left_alone": null, "started": false, "paused": false, "start": "run",
            "must_restore": false, "command": ["sleep"], "image": null, "terminal": false, "tcp": "close",
            "last_failure": null, "last_checkpoint": null,
        });
        fs::write(directory.join("state.json"), record.to_string()).unwrap();
        Held { directory, lock: None, child }
    }

    /// Waits until an operation with this key runs: it is recorded by then.
    pub fn wait_for_operation(&self, key: &str) -> Value {
        let deadline = Instant::now() + LIMIT;
        loop {
            let list = self.call("GET", &format!("/v1/operations?key={key}"), "").json();
            if let Some(operation) = list["operations"].get(0) {
                let record = format!("lib/operations/{}.json", operation["id"].as_str().unwrap());
                if self.path(&record).exists() {
                    return operation.clone();
                }
            }
            assert!(Instant::now() < deadline, "no operation begins");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A made-up container whose lock the test can hold.
pub struct Held {
    directory: PathBuf,
    lock: Option<Flock<File>>,
    child: Child,
}

impl Held {
    pub fn lock(&mut self) {
        let file = File::create(self.directory.join("lock")).unwrap();
        self.lock = Some(Flock::lock(file, FlockArg::LockExclusive).unwrap());
    }

    pub fn release(&mut self) {
        self.lock = None;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A certificate by any authority.
pub fn identity(authority: &Authority, directory: &Path, name: &str, role: Role) -> Identity {
    fs::create_dir_all(directory).unwrap();
    let (key, certificate) = authority.issue(&Subject { name: name.into(), role }).unwrap();
    let files = [("ca.pem", authority.certificate()), ("certificate.pem", &certificate), ("key.pem", &key)];
    for (file, text) in files {
        fs::write(directory.join(file), text).unwrap();
    }
    let [ca, certificate, key] = files.map(|(file, _)| directory.join(file));
    Identity::read(&ca, &certificate, &key).unwrap()
}

fn start_time(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit(')').next().unwrap().split_whitespace().nth(19).unwrap().parse().unwrap()
}

/// Lines of a stream, until `enough` says so.
pub fn lines_until(stream: impl std::io::Read, enough: impl Fn(&str) -> bool) -> Vec<String> {
    let mut lines = Vec::new();
    for line in BufReader::new(stream).lines() {
        let line = line.unwrap();
        let last = enough(&line);
        lines.push(line);
        if last {
            break;
        }
    }
    lines
}
