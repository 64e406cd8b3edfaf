//! Commands with a time limit, here or in a test host.
//!
//! Every one runs in a process group of its own, which is killed when the limit has passed, and starts with descriptors 0, 1
//! and 2 only. In a host it gets a clean environment and the host's namespaces and cgroups.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{bail, Context, Result};

use super::background::Background;
use super::sys;

/// The limit of a command that asks for no other.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

/// The search path of every process of a host.
pub const HOST_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How much of a command, and of what it wrote, an error tells.
const LINE_LENGTH: usize = 200;
const TOLD_LINES: usize = 40;

/// What it takes to put a process into a host.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) pid: i32,
    pub(crate) cgroup_procs: Vec<PathBuf>,
}

/// A command to run; `ok`, `output` or `spawn` runs it.
#[derive(Debug, Clone)]
pub struct Cmd {
    argv: Vec<String>,
    env: Vec<(String, String)>,
    stdin: Option<Vec<u8>>,
    dir: Option<String>,
    timeout: Duration,
    entry: Option<Entry>,
}

/// What a finished command left.
#[derive(Debug, Clone)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to its standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to its standard error.
    pub stderr: Vec<u8>,
}

impl Output {
    /// Standard output as text.
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text.
    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

impl Cmd {
    /// A command on this machine, with the environment of the caller.
    pub fn new<S: Into<String>>(argv: impl IntoIterator<Item = S>) -> Self {
        let argv = argv.into_iter().map(Into::into).collect();
        Self { argv, env: Vec::new(), stdin: None, dir: None, timeout: DEFAULT_TIMEOUT, entry: None }
    }

    pub(crate) fn inside<S: Into<String>>(entry: Entry, argv: impl IntoIterator<Item = S>) -> Self {
        let mut command = Self::new(argv);
        command.entry = Some(entry);
        command
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.argv.push(arg.into());
        self
    }

    /// Sets one variable of its environment.
    #[must_use]
    pub fn env(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.push((key.into(), value.into()));
        self
    }

    /// What it reads from its standard input, which is empty otherwise.
    #[must_use]
    pub fn stdin(mut self, data: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(data.into());
        self
    }

    /// The directory it starts in.
    #[must_use]
    pub fn dir(mut self, dir: impl Into<String>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// How long it may take; then its process group is killed.
    #[must_use]
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = limit;
        self
    }

    /// Runs it to its end, whatever its exit status.
    pub fn output(&self) -> Result<Output> {
        self.spawn()?.wait(self.timeout)
    }

    /// Runs it and answers its standard output; anything but exit status 0 is an error that tells both outputs.
    pub fn ok(&self) -> Result<String> {
        let output = self.output()?;
        if !output.status.success() {
            bail!("{}", self.complaint(&output));
        }
        Ok(output.out())
    }

    /// Starts it; the guard kills its process group when dropped.
    pub fn spawn(&self) -> Result<Background> {
        let mut command = self.command()?;
        command.process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.stdin(if self.stdin.is_some() { Stdio::piped() } else { Stdio::null() });
        let child = command.spawn().with_context(|| format!("cannot start `{}`", self.line()))?;
        Ok(Background::watch(child, self.line(), self.stdin.clone()))
    }

    /// Starts it with a pipe as its standard input, which [`Background::take_stdin`] hands out.
    pub fn spawn_with_stdin(&self) -> Result<Background> {
        let mut command = self.command()?;
        command.process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped()).stdin(Stdio::piped());
        let child = command.spawn().with_context(|| format!("cannot start `{}`", self.line()))?;
        Ok(Background::watch(child, self.line(), None))
    }

    /// Runs it on the caller's own terminal and without a limit.
    pub fn pass_through(&self) -> Result<ExitStatus> {
        self.command()?.status().with_context(|| format!("cannot start `{}`", self.line()))
    }

    /// Becomes the command; returns only when that fails.
    pub fn replace_this_process(&self) -> anyhow::Error {
        match self.command() {
            Ok(mut command) => {
                anyhow::Error::new(command.exec()).context(format!("cannot start `{}`", self.line()))
            }
            Err(error) => error,
        }
    }

    /// The command in one line, for messages.
    pub fn line(&self) -> String {
        let line = self.argv.join(" ").split_whitespace().collect::<Vec<_>>().join(" ");
        match line.char_indices().nth(LINE_LENGTH) {
            Some((end, _)) => format!("{} ...", &line[..end]),
            None => line,
        }
    }

    fn command(&self) -> Result<Command> {
        let argv = self.full_argv();
        let (program, args) = argv.split_first().context("an empty command")?;
        let mut command = Command::new(program);
        command.args(args);
        if self.entry.is_some() {
            command.env_clear().envs(host_environment());
        } else if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        command.envs(self.env.iter().map(|(key, value)| (key, value)));
        sys::before_exec(&mut command, self.cgroup_files()?);
        Ok(command)
    }

    fn full_argv(&self) -> Vec<String> {
        let Some(entry) = &self.entry else { return self.argv.clone() };
        let pid = entry.pid.to_string();
        let mut argv: Vec<String> =
            ["nsenter", "-t", &pid, "-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w", "--"]
                .map(String::from)
                .to_vec();
        if let Some(dir) = &self.dir {
            argv.extend(["env".to_owned(), "-C".to_owned(), dir.clone()]);
        }
        argv.extend(self.argv.iter().cloned());
        argv
    }

    fn cgroup_files(&self) -> Result<Vec<std::fs::File>> {
        let paths = self.entry.iter().flat_map(|entry| &entry.cgroup_procs);
        paths
            .map(|path| OpenOptions::new().write(true).open(path).with_context(|| path.display().to_string()))
            .collect()
    }

    fn complaint(&self, output: &Output) -> String {
        let mut text = format!("`{}` ended with {}", self.line(), output.status);
        for (name, content) in [("stdout", output.out()), ("stderr", output.err())] {
            if !content.trim().is_empty() {
                let _ = write!(text, "\n{name}:\n{}", last_lines(&content));
            }
        }
        text
    }
}

/// The end of an output, where the reason of a failure is.
pub(crate) fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    let left_out = lines.len().saturating_sub(TOLD_LINES);
    match left_out {
        0 => lines.join("\n"),
        n => format!("[{n} lines]\n{}", lines[n..].join("\n")),
    }
}

/// The environment of a process of a host: what a login would have, and nothing of the caller's.
pub(crate) fn host_environment() -> Vec<(String, String)> {
    let term = std::env::var("TERM").unwrap_or_else(|_| "xterm".to_owned());
    [("PATH", HOST_PATH), ("HOME", "/root"), ("LANG", "C.UTF-8"), ("TERM", &term)]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .to_vec()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn ok_answers_stdout_and_complains_with_both_outputs() {
        assert_eq!(Cmd::new(["sh", "-c", "cat"]).stdin("hello").ok().unwrap(), "hello");
        let error = Cmd::new(["sh", "-c", "echo out; echo err >&2; exit 3"]).ok().unwrap_err().to_string();
        assert!(
            error.contains("exit status: 3") && error.contains("out") && error.contains("err"),
            "{error}"
        );
    }

    #[test]
    fn a_command_past_its_limit_is_killed_with_its_children() {
        let start = Instant::now();
        let limit = Duration::from_millis(200);
        let error =
            Cmd::new(["sh", "-c", "echo begun; sleep 50 & sleep 60"]).timeout(limit).output().unwrap_err();
        assert!(start.elapsed() < Duration::from_secs(5));
        assert!(format!("{error:#}").contains("begun"), "{error:#}");
    }

    #[test]
    fn a_child_has_no_descriptor_but_the_first_three() {
        let _inherited =
            nix::fcntl::open("/dev/null", nix::fcntl::OFlag::O_RDONLY, nix::sys::stat::Mode::empty());
        let listed = Cmd::new(["sh", "-c", "echo /proc/self/fd/*"]).ok().unwrap();
        let numbers: Vec<&str> =
            listed.split_whitespace().filter_map(|path| path.rsplit('/').next()).collect();
        assert!(numbers.iter().all(|n| ["0", "1", "2", "3"].contains(n)), "{numbers:?}");
    }
}
