//! A process that runs beside the test, and ends with its guard.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};
use nix::sys::signal::{killpg, Signal};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags};

use super::command::{last_lines, Output};
use super::process::{pid_of, wait_until};

/// How long an output may stay open after its process has ended: a daemon that was left behind may hold it for ever.
const OUTPUT_GRACE: Duration = Duration::from_millis(300);

/// How long what a process had written when it ended may stay unread.
const OUTPUT_LIMIT: Duration = Duration::from_secs(20);

/// A running command, its process group and what it has written so far.
#[derive(Debug)]
pub struct Background {
    child: Child,
    line: String,
    stdout: Collector,
    stderr: Collector,
    started: Instant,
    ended: Option<ExitStatus>,
}

impl Background {
    pub(crate) fn watch(mut child: Child, line: String, input: Option<Vec<u8>>) -> Self {
        let stdout = Collector::of(child.stdout.take());
        let stderr = Collector::of(child.stderr.take());
        if let Some(input) = input {
            if let Some(mut pipe) = child.stdin.take() {
                // A command may end without reading it all: that is its own business.
                std::thread::spawn(move || drop(pipe.write_all(&input)));
            }
        }
        Self { child, line, stdout, stderr, started: Instant::now(), ended: None }
    }

    /// The number of its process, for a command in a host that of the process which entered it.
    pub fn pid(&self) -> i32 {
        pid_of(&self.child)
    }

    /// Its standard input, when it was started with one; the pipe closes when dropped.
    pub fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// What it has written to its standard output so far.
    pub fn stdout(&self) -> Vec<u8> {
        self.stdout.so_far()
    }

    /// What it has written to its standard error so far.
    pub fn stderr(&self) -> Vec<u8> {
        self.stderr.so_far()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.poll().is_none()
    }

    /// Waits until its standard output contains `text`.
    pub fn wait_for_output(&mut self, text: &str, limit: Duration) -> Result<()> {
        let collector = self.stdout.data.clone();
        let seen = || contains(&collector.lock().unwrap_or_else(PoisonError::into_inner), text.as_bytes());
        wait_until(limit, seen).with_context(|| {
            let (out, err) = (String::from_utf8_lossy(&self.stdout()).into_owned(), self.stderr());
            format!(
                "`{}` did not print {text:?}; it printed:\n{out}\n{}",
                self.line,
                String::from_utf8_lossy(&err)
            )
        })
    }

    /// Sends a signal to its process group.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        killpg(Pid::from_raw(self.pid()), signal).with_context(|| format!("cannot signal `{}`", self.line))
    }

    /// Waits until it ends; past the limit it is killed, and that is an error.
    pub fn wait(mut self, limit: Duration) -> Result<Output> {
        let timed_out = wait_until(limit, || self.poll().is_some()).is_err();
        if timed_out {
            self.kill();
        }
        let status = self.ended.unwrap_or_else(|| ExitStatus::from_raw(9));
        // An output still open after the grace belongs to a process left behind: take what there is.
        let _ = wait_until(OUTPUT_GRACE, || self.stdout.is_at_end() && self.stderr.is_at_end());
        // All of it, however slow the machine is.
        let _ = wait_until(OUTPUT_LIMIT, || self.stdout.is_empty() && self.stderr.is_empty());
        let output = Output { status, stdout: self.stdout.so_far(), stderr: self.stderr.so_far() };
        if timed_out {
            bail!(
                "`{}` was killed after {:.1} s\nstdout:\n{}\nstderr:\n{}",
                self.line,
                self.started.elapsed().as_secs_f64(),
                last_lines(&output.out()),
                last_lines(&output.err())
            );
        }
        Ok(output)
    }

    /// Kills its process group and waits for it.
    pub fn kill(&mut self) {
        if self.poll().is_none() {
            // The group may be gone already.
            let _ = self.signal(Signal::SIGKILL);
            self.ended = self.child.wait().ok();
        }
    }

    fn poll(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
        }
        self.ended
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.kill();
    }
}

fn contains(data: &[u8], text: &[u8]) -> bool {
    text.is_empty() || data.windows(text.len()).any(|window| window == text)
}

/// Reads a pipe to its end in a thread, so that no command waits for its reader.
#[derive(Debug)]
struct Collector {
    data: Arc<Mutex<Vec<u8>>>,
    pipe: Option<Arc<OwnedFd>>,
    reader: Option<JoinHandle<()>>,
}

impl Collector {
    fn of(stream: Option<impl Into<OwnedFd>>) -> Self {
        let data = Arc::new(Mutex::new(Vec::new()));
        let pipe = stream.map(|stream| Arc::new(stream.into()));
        let reader = pipe.clone().map(|pipe| {
            let sink = Arc::clone(&data);
            std::thread::spawn(move || copy(&pipe, &sink))
        });
        Self { data, pipe, reader }
    }

    fn so_far(&self) -> Vec<u8> {
        self.data.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn is_at_end(&self) -> bool {
        self.reader.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Whether all that was written so far has been read, or nothing more can be.
    fn is_empty(&self) -> bool {
        let _reads_nothing_meanwhile = self.data.lock();
        let unread = self.pipe.as_ref().map(|pipe| rustix::io::ioctl_fionread(pipe.as_ref()));
        self.is_at_end() || matches!(unread, Some(Ok(0)))
    }
}

/// What is read is in `sink` before somebody else can look at either.
fn copy(pipe: &OwnedFd, sink: &Mutex<Vec<u8>>) {
    let mut buffer = [0; 16 * 1024];
    loop {
        if rustix::event::poll(&mut [PollFd::new(pipe, PollFlags::IN)], None).is_err() {
            continue;
        }
        let mut sink = sink.lock().unwrap_or_else(PoisonError::into_inner);
        match rustix::io::read(pipe, &mut buffer) {
            Ok(count @ 1..) => sink.extend_from_slice(&buffer[..count]),
            Err(rustix::io::Errno::INTR) => {}
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::framework::Cmd;

    /// Whoever is slow to read loses nothing; what a daemon holds open is not waited for.
    #[test]
    fn what_a_command_has_written_is_all_there_and_a_daemon_is_not_waited_for() {
        let command = Cmd::new(["sh", "-c", "head -c 3000000 /dev/zero; (sleep 20; echo late) & exit 3"]);
        let begun = Instant::now();
        let output = command.output().unwrap();
        assert_eq!((output.stdout.len(), output.status.code()), (3_000_000, Some(3)));
        assert!(begun.elapsed() < Duration::from_secs(15));
    }
}
