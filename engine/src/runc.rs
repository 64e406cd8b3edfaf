//! runc as a command with a time limit: what FastMig adds nothing to goes to it untouched.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use command_fds::{CommandFdExt, FdMapping};
use serde::{Deserialize, Serialize};

use crate::Kind;

/// Which runc, and its global options.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// The program: a path, or a name looked up in PATH.
    pub binary: PathBuf,
    /// `--root`: where runc keeps its state.
    pub root: PathBuf,
    /// `--systemd-cgroup`.
    pub systemd_cgroup: bool,
}

impl Options {
    /// The namespace of the containers below this root. Two clients may give the same id to containers of theirs; what
    /// keeps them apart is `--root`. Where that is one which everybody knows its last part is the namespace (for
    /// containerd and docker, containerd's namespace), otherwise a checksum is added.
    #[must_use]
    pub fn namespace(&self) -> String {
        let path = self.root.to_string_lossy();
        let path = path.strip_prefix("/var").filter(|rest| rest.starts_with("/run/")).unwrap_or(&path);
        let path = path.trim_end_matches('/');
        let parts: Vec<&str> = path.split('/').collect();
        match parts[..] {
            ["", "run", name] | ["", "run", "containerd", "runc", name] => return name.into(),
            ["", "run", "docker", runtime, name] if runtime.starts_with("runtime-") => return name.into(),
            _ => {}
        }
        let letters = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        let name: String =
            path.rsplit('/').next().unwrap_or_default().chars().map(letters).take(64).collect();
        format!("{name}-{}", &blake3::hash(path.as_bytes()).to_hex()[..8])
    }
}

/// Where runc's words go.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Voice {
    /// Into a log of ours, which is read for its errors.
    #[default]
    Ours,
    /// To whoever called us in runc's place: into their log and onto our standard error.
    Clients(Log),
}

/// runc's global options about its log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Log {
    /// `--log`; standard error when not given.
    pub path: Option<PathBuf>,
    /// `--log-format`: `text` or `json`.
    pub format: Option<String>,
    /// `--debug`.
    pub debug: bool,
}

impl Log {
    /// As runc takes them.
    #[must_use]
    pub fn arguments(&self) -> Vec<OsString> {
        let mut arguments = Vec::new();
        if let Some(path) = &self.path {
            arguments.extend(["--log".into(), path.into()]);
        }
        if let Some(format) = &self.format {
            arguments.extend(["--log-format".into(), format.into()]);
        }
        if self.debug {
            arguments.push("--debug".into());
        }
        arguments
    }
}

/// Why a call of runc came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum RuncError {
    /// The program could not be started.
    #[error("could not start {binary:?}: is runc installed?")]
    Start {
        /// The program.
        binary: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It failed.
    #[error("runc {command} failed: {message}")]
    Failed {
        /// The subcommand.
        command: String,
        /// runc's own words.
        message: String,
        /// How it ended.
        status: ExitStatus,
    },
    /// It did not end in time and was killed.
    #[error("runc {command} did not end within {limit:?} and was killed")]
    TimedOut {
        /// The subcommand.
        command: String,
        /// The time that it had.
        limit: Duration,
    },
    /// It ended well but left something undone.
    #[error("runc {command} left no usable {path:?}")]
    Missing {
        /// The subcommand.
        command: String,
        /// What is missing.
        path: PathBuf,
    },
}

impl RuncError {
    /// What this failure means to a caller. runc tells its failures apart by their texts alone.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::TimedOut { .. } => Kind::DeadlineExceeded,
            Self::Failed { message, .. } if is_gone(message) => Kind::NotFound,
            Self::Failed { message, .. } if message.contains("already exist") => Kind::AlreadyExists,
            _ => Kind::Internal,
        }
    }

    /// runc's own words, when it had some.
    #[must_use]
    pub fn message(&self) -> Option<&str> {
        match self {
            Self::Failed { message, .. } => Some(message),
            _ => None,
        }
    }
}

/// runc 1.1 to 1.3 say one of these when the container or process is no more.
fn is_gone(message: &str) -> bool {
    ["process already finished", "does not exist", "container not running", "no such process"]
        .iter()
        .any(|text| message.contains(text))
}

/// The standard streams of a new process; what is not given is `/dev/null`.
#[derive(Debug, Default)]
pub struct StdioFds {
    /// Descriptor 0.
    pub stdin: Option<OwnedFd>,
    /// Descriptor 1.
    pub stdout: Option<OwnedFd>,
    /// Descriptor 2.
    pub stderr: Option<OwnedFd>,
}

/// The number of the first descriptor that `--preserve-fds` keeps.
pub const FIRST_PRESERVED: i32 = 3;

/// A runc for one container.
#[derive(Debug, Clone)]
pub(crate) struct Runc {
    options: Options,
    voice: Voice,
    log: PathBuf,
    limit: Duration,
}

/// What a new process of the container is given.
#[derive(Debug, Default)]
pub(crate) struct Gifts {
    pub(crate) stdio: StdioFds,
    /// Become the descriptors from 3 on, in this order.
    pub(crate) preserved: Vec<OwnedFd>,
}

impl Runc {
    /// `log` is where runc writes its log while it speaks with our voice.
    pub(crate) fn new(options: Options, log: PathBuf, limit: Duration) -> Self {
        Self { options, voice: Voice::Ours, log, limit }
    }

    pub(crate) fn with_voice(self, voice: Voice) -> Self {
        Self { voice, ..self }
    }

    /// Runs `runc ARGUMENTS` with nothing on its stdio; returns its stdout.
    pub(crate) fn run<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Result<String, RuncError> {
        let mut command = self.command(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        command.stderr(if self.voice == Voice::Ours { Stdio::piped() } else { Stdio::inherit() });
        self.wait(command, &name(arguments))
    }

    /// Runs a runc command that starts a process in the container and leaves it to us.
    pub(crate) fn run_with<S: AsRef<OsStr>>(&self, arguments: &[S], gifts: Gifts) -> Result<(), RuncError> {
        let mut command = self.command(arguments);
        let stdio = |fd: Option<OwnedFd>| fd.map_or_else(Stdio::null, Stdio::from);
        command.stdin(stdio(gifts.stdio.stdin)).stdout(stdio(gifts.stdio.stdout));
        command.stderr(stdio(gifts.stdio.stderr));
        let numbered = gifts.preserved.into_iter().zip(FIRST_PRESERVED..);
        let mappings = numbered.map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd });
        if let Err(e) = command.fd_mappings(mappings.collect()) {
            return Err(self.cannot_start(io::Error::other(e)));
        }
        self.wait(command, &name(arguments)).map(|_| ())
    }

    fn command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        let mut command = Command::new(&self.options.binary);
        command.arg("--root").arg(&self.options.root);
        match &self.voice {
            // A shim has its socket from containerd's service, and runc would wait for the application to report there.
            Voice::Ours => {
                command.arg("--log").arg(&self.log).args(["--log-format", "json"]).env_remove("NOTIFY_SOCKET")
            }
            Voice::Clients(log) => command.args(log.arguments()),
        };
        if self.options.systemd_cgroup {
            command.arg("--systemd-cgroup");
        }
        // A process group of its own: on a time-out its helpers go with it.
        command.args(arguments).process_group(0);
        command
    }

    fn wait(&self, mut command: Command, name: &str) -> Result<String, RuncError> {
        let log = match &self.voice {
            Voice::Ours => Some(&self.log),
            Voice::Clients(log) => log.path.as_ref(),
        };
        let log_start = log.and_then(|log| std::fs::metadata(log).ok()).map_or(0, |m| m.len());
        let mut child = command.spawn().map_err(|e| self.cannot_start(e))?;
        let stdout = child.stdout.take().map(drain);
        let stderr = child.stderr.take().map(drain);
        let status = self.wait_until_limit(&mut child, name)?;
        let collect = |reader: Option<std::thread::JoinHandle<String>>| {
            reader.and_then(|thread| thread.join().ok()).unwrap_or_default()
        };
        let (stdout, stderr) = (collect(stdout), collect(stderr));
        if status.success() {
            return Ok(stdout);
        }
        let message = log
            .and_then(|log| last_error(log, log_start))
            .or_else(|| Some(stderr.trim().to_owned()).filter(|text| !text.is_empty()))
            .unwrap_or_else(|| status.to_string());
        Err(RuncError::Failed { command: name.into(), message, status })
    }

    fn wait_until_limit(&self, child: &mut Child, name: &str) -> Result<ExitStatus, RuncError> {
        let deadline = Instant::now() + self.limit;
        let mut pause = Duration::from_micros(200);
        while Instant::now() < deadline {
            match child.try_wait() {
                Ok(Some(status)) => return Ok(status),
                Ok(None) => std::thread::sleep(pause),
                Err(e) => return Err(self.cannot_start(e)),
            }
            pause = (pause * 5 / 4).min(Duration::from_millis(5));
        }
        if let Ok(group) = i32::try_from(child.id()) {
            // ESRCH: it has just ended.
            let _ = nix::sys::signal::killpg(nix::unistd::Pid::from_raw(group), nix::sys::signal::SIGKILL);
        }
        let status = child.wait().unwrap_or(ExitStatus::from_raw(9));
        tracing::warn!(command = name, %status, "runc was killed at its time limit");
        Err(RuncError::TimedOut { command: name.into(), limit: self.limit })
    }

    fn cannot_start(&self, source: io::Error) -> RuncError {
        RuncError::Start { binary: self.options.binary.clone(), source }
    }
}

/// The pid that a command was told to write to `path`.
pub(crate) fn read_pid(path: &Path, command: &str) -> Result<i32, RuncError> {
    let text = std::fs::read_to_string(path).ok();
    text.and_then(|text| text.trim().parse().ok())
        .ok_or_else(|| RuncError::Missing { command: command.into(), path: path.into() })
}

/// Reads a pipe to its end beside the wait, so that a full pipe does not stop runc.
fn drain(mut pipe: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read before an error still helps.
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn name<S: AsRef<OsStr>>(arguments: &[S]) -> String {
    arguments.first().map(|a| a.as_ref().to_string_lossy().into_owned()).unwrap_or_default()
}

/// The last error in runc's JSON log after `start`.
fn last_error(log: &Path, start: u64) -> Option<String> {
    use std::io::{Seek, SeekFrom};
    #[derive(Deserialize)]
    struct Line {
        level: String,
        msg: String,
    }
    let mut file = File::open(log).ok()?;
    file.seek(SeekFrom::Start(start)).ok()?;
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    text.lines()
        .filter_map(|line| serde_json::from_str::<Line>(line).ok())
        .rfind(|line| line.level == "error")
        .map(|line| line.msg)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stand-in for runc that does what `script` says: real runc cannot be made to hang on demand.
    fn fake(script: &str, limit: Duration) -> (tempfile::TempDir, Runc) {
        let dir = tempfile::tempdir().unwrap();
        let binary = dir.path().join("runc");
        crate::files::write_script(&binary, script);
        let options = Options { binary, root: dir.path().join("root"), systemd_cgroup: false };
        let runc = Runc::new(options, dir.path().join("log.json"), limit);
        (dir, runc)
    }

    #[test]
    fn containers_of_different_roots_have_different_namespaces() {
        let of = |root: &str| {
            Options { binary: "runc".into(), root: root.into(), systemd_cgroup: false }.namespace()
        };
        assert_eq!(of("/run/containerd/runc/k8s.io"), "k8s.io");
        assert_eq!(of("/var/run/docker/runtime-runc/moby"), "moby");
        assert_eq!(of("/run/runc/"), "runc");
        assert!(of("/tmp/a/root").starts_with("root-"));
        assert_ne!(of("/tmp/a/root"), of("/tmp/b/root"));
        assert!(crate::Key::new(&of("/"), "id").is_ok());
    }

    #[test]
    fn its_own_words_are_taken_from_the_log() {
        let script = r#"echo '{"level":"error","msg":"container does not exist"}' >> "$4"; exit 1"#;
        let (_dir, runc) = fake(script, Duration::from_secs(5));
        let error = runc.run(&["kill", "x"]).unwrap_err();
        assert_eq!(error.message(), Some("container does not exist"));
        assert_eq!(error.kind(), Kind::NotFound);
    }

    #[test]
    fn stderr_serves_when_the_log_is_empty() {
        let (_dir, runc) = fake("echo broken >&2; exit 1", Duration::from_secs(5));
        assert_eq!(runc.run(&["state"]).unwrap_err().message(), Some("broken"));
    }

    #[test]
    fn a_hanging_runc_is_killed_with_its_helpers() {
        let (_dir, runc) = fake("sleep 60 & sleep 60", Duration::from_millis(200));
        let begun = Instant::now();
        let error = runc.run(&["create"]).unwrap_err();
        assert!(matches!(error, RuncError::TimedOut { .. }), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(5));
    }
}
