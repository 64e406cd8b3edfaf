//! A client's program: a clean environment, a time limit, bounded answers, no shell.

use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use nix::sys::signal::{killpg, Signal};
use nix::unistd::Pid;

use crate::error::Error;

/// Where programs are looked up.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The longest answer that is read.
const MAX_ANSWER: u64 = 16 << 20;

/// How much of a program's complaint is told.
const MAX_WORDS: usize = 2000;

/// How long an ended program's last words may take: something that it left behind may hold its streams.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// One call.
#[derive(Debug)]
pub(crate) struct Call {
    program: &'static str,
    arguments: Vec<String>,
    limit: Duration,
}

impl Call {
    pub(crate) fn new(program: &'static str, limit: Duration) -> Self {
        Self { program, arguments: Vec::new(), limit }
    }

    pub(crate) fn args<S: Into<String>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Runs it, and answers what it wrote.
    pub(crate) fn output(self) -> Result<String, Error> {
        let answer = self.run(Stdio::null(), Stdout::Collected, |_| Ok(()))?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    /// Runs it, and answers whether it was content. That it cannot be started is an error still.
    pub(crate) fn succeeds(self) -> Result<bool, Error> {
        match self.output() {
            Ok(_) => Ok(true),
            Err(Error::Failed { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Runs it, and lets `pump` read what it writes.
    pub(crate) fn drain(self, pump: impl FnOnce(&mut dyn Read) -> Result<(), Error>) -> Result<(), Error> {
        let take = |child: &mut Child| child.stdout.take().map_or(Ok(()), |mut stdout| pump(&mut stdout));
        self.run(Stdio::null(), Stdout::Pumped, take).map(drop)
    }

    /// Runs it, and lets `pump` write its input.
    pub(crate) fn feed(self, pump: impl FnOnce(&mut dyn Write) -> Result<(), Error>) -> Result<(), Error> {
        let give = |child: &mut Child| child.stdin.take().map_or(Ok(()), |mut stdin| pump(&mut stdin));
        self.run(Stdio::piped(), Stdout::Collected, give).map(drop)
    }

    fn run(
        self,
        stdin: Stdio,
        stdout: Stdout,
        pump: impl FnOnce(&mut Child) -> Result<(), Error>,
    ) -> Result<Vec<u8>, Error> {
        let deadline = Instant::now() + self.limit;
        let mut child = self.spawn(stdin)?;
        let errors = child.stderr.take().map(collect);
        let answer = if stdout == Stdout::Collected { child.stdout.take().map(collect) } else { None };
        let sent = {
            let _guard = Watchdog::over(&child, self.limit);
            pump(&mut child)
        };
        if sent.is_err() {
            kill(&child);
        }
        let ended = wait(&mut child, deadline);
        let words = errors.map(last_words).unwrap_or_default();
        let timed_out = || Error::TimedOut { command: self.line(), limit: self.limit };
        match (sent, ended) {
            // What the program has to say explains a broken pipe better than the pipe does.
            (Err(Error::Stream { source }), Some(status))
                if source.kind() == io::ErrorKind::BrokenPipe && !words.is_empty() =>
            {
                Err(self.failed(status, &words))
            }
            (Err(_), _) if Instant::now() >= deadline => Err(timed_out()),
            (Err(error), _) => Err(error),
            (Ok(()), Some(status)) if status.success() => Ok(answer.map(last_words).unwrap_or_default()),
            (Ok(()), Some(status)) if Instant::now() < deadline => Err(self.failed(status, &words)),
            (Ok(()), _) => Err(timed_out()),
        }
    }

    fn spawn(&self, stdin: Stdio) -> Result<Child, Error> {
        let program = find(self.program);
        tracing::debug!(command = self.line(), "calling");
        Command::new(program.unwrap_or_else(|| self.program.to_owned()))
            .args(&self.arguments)
            .env_clear()
            .env("PATH", PATH)
            .env("HOME", "/root")
            .env("LANG", "C.UTF-8")
            // No context of root's may lead docker to another host.
            .env("DOCKER_CONFIG", "/nonexistent")
            .current_dir("/")
            .process_group(0)
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|source| Error::Start { program: self.program, path: PATH, source })
    }

    fn failed(&self, status: ExitStatus, words: &[u8]) -> Error {
        let words = String::from_utf8_lossy(words);
        let words = words.trim();
        let from = words.char_indices().rev().nth(MAX_WORDS).map_or(0, |(at, _)| at);
        let message = if words.is_empty() { status.to_string() } else { words[from..].to_owned() };
        Error::Failed { command: self.line(), message }
    }

    /// Program and subcommand: the rest may be long, and may hold secrets.
    fn line(&self) -> String {
        let words = self.arguments.iter().filter(|word| !word.starts_with("--"));
        let words: Vec<&str> = words.map(String::as_str).take(2).collect();
        format!("{} {}", self.program, words.join(" "))
    }
}

/// Where a program is. The search is ours: that of the standard library looks in the caller's environment.
pub(crate) fn find(program: &str) -> Option<String> {
    let mut candidates = PATH.split(':').map(|directory| format!("{directory}/{program}"));
    candidates.find(|path| std::path::Path::new(path).is_file())
}

/// Who reads what a program writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stdout {
    Collected,
    Pumped,
}

/// Kills a program that takes too long, while somebody waits for its streams.
struct Watchdog {
    _done: mpsc::Sender<()>,
}

impl Watchdog {
    fn over(child: &Child, limit: Duration) -> Self {
        let (done, dropped) = mpsc::channel::<()>();
        let group = group(child);
        std::thread::spawn(move || {
            if dropped.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
                let _ = killpg(group, Signal::SIGKILL);
            }
        });
        Self { _done: done }
    }
}

/// Until the deadline, and a little longer for what was killed.
fn wait(child: &mut Child, deadline: Instant) -> Option<ExitStatus> {
    let mut killed = None;
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            return killed.is_none().then_some(status);
        }
        match killed {
            None if Instant::now() >= deadline => {
                kill(child);
                killed = Some(Instant::now());
            }
            Some(at) if at.elapsed() > LAST_WORDS => return None,
            _ => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}

/// The program, and those that it started.
fn kill(child: &Child) {
    // Not waited for yet, so the number is still its own.
    let _ = killpg(group(child), Signal::SIGKILL);
}

fn group(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX))
}

/// Reads in the background, up to the limit; the rest is drained and lost.
fn collect(mut stream: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut answer = Vec::new();
        let _ = stream.by_ref().take(MAX_ANSWER).read_to_end(&mut answer);
        let _ = sender.send(answer);
        let _ = io::copy(&mut stream, &mut io::sink());
    });
    receiver
}

fn last_words(receiver: Receiver<Vec<u8>>) -> Vec<u8> {
    receiver.recv_timeout(LAST_WORDS).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Call {
        Call::new("sh", Duration::from_secs(5)).args(["-c", script])
    }

    #[test]
    fn the_environment_is_clean_and_the_answer_is_told() {
        std::env::set_var("FASTMIG_TEST_SECRET", "x");
        let answer = sh("env").output().unwrap();
        assert!(answer.contains("PATH=/usr/local/sbin") && !answer.contains("SECRET"), "{answer}");
    }

    #[test]
    fn a_failure_is_told_in_the_programs_words() {
        let error = sh("echo no daemon >&2; exit 3").output().unwrap_err().to_string();
        assert!(error.contains("no daemon"), "{error}");
        assert!(!sh("exit 1").succeeds().unwrap());
        let missing = Call::new("no-such-program", Duration::from_secs(1)).output().unwrap_err();
        assert!(matches!(missing, Error::Start { .. }), "{missing}");
    }

    #[test]
    fn what_hangs_is_killed_with_what_it_started() {
        let start = Instant::now();
        let call = Call { limit: Duration::from_millis(200), ..sh("sleep 50 & sleep 50") };
        assert!(matches!(call.output(), Err(Error::TimedOut { .. })));
        let call = Call { limit: Duration::from_millis(200), ..sh("sleep 50") };
        let reading = |stream: &mut dyn Read| {
            io::copy(stream, &mut io::sink()).map(drop).map_err(|source| Error::Stream { source })
        };
        assert!(matches!(call.drain(reading), Err(Error::TimedOut { .. })));
        assert!(start.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_program_that_stops_reading_says_why() {
        let writing = |stream: &mut dyn Write| {
            (0..1000)
                .try_for_each(|_| stream.write_all(&[0; 4096]))
                .map_err(|source| Error::Stream { source })
        };
        let error = sh("echo disk full >&2; exit 1").feed(writing).unwrap_err().to_string();
        assert!(error.contains("disk full"), "{error}");
        sh("cat >/dev/null").feed(writing).unwrap();
    }
}
