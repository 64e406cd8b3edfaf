//! One command: in a process group of its own, with a clean environment, JSON on its standard input, and a time limit after
//! which the whole group is killed.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::process::{kill_process_group, pidfd_open, Pid, PidfdFlags, Signal};

/// How much of the end of an output is kept. What is more is read all the same, so that nobody waits.
const KEPT: usize = 16 * 1024;

/// How long an output is read after the command's end: who still has it open is a process that it left behind.
const GRACE: Duration = Duration::from_millis(100);

/// How long a killed command may take to go.
const GONE_LIMIT: Duration = Duration::from_secs(2);

const ENVIRONMENT: [(&str, &str); 3] = [
    ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
    ("HOME", "/root"),
    ("LANG", "C.UTF-8"),
];

/// Why a command came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// It could not be started.
    #[error("could not start it: is it there, and executable?")]
    Start(#[source] io::Error),
    /// It could not be watched.
    #[error("could not watch it")]
    Watch(#[source] io::Error),
    /// It ended badly.
    #[error("{status}; {}", words(said))]
    Failed {
        /// How it ended.
        status: ExitStatus,
        /// The end of what it wrote.
        said: String,
    },
    /// It took too long, and was killed with what it had started.
    #[error("it did not end within {} s and was killed; {}", limit.as_secs_f32(), words(said))]
    TimedOut {
        /// The time that it had.
        limit: Duration,
        /// The end of what it wrote.
        said: String,
    },
}

fn words(said: &str) -> String {
    if said.is_empty() {
        "it said nothing".into()
    } else {
        format!("it said: {said}")
    }
}

/// Runs `command` with `input` and answers the end of what it wrote.
pub(crate) fn run(command: &[String], input: &[u8], limit: Duration) -> Result<String, ProcessError> {
    let mut running = Running::start(command, input)?;
    let ended = running.watch(Instant::now() + limit).map_err(ProcessError::Watch);
    if !matches!(ended, Ok(true)) {
        running.kill();
    }
    let status = running.child.try_wait().map_err(ProcessError::Watch)?;
    let said = running.said();
    match status {
        _ if !ended? => Err(ProcessError::TimedOut { limit, said }),
        Some(status) if status.success() => Ok(said),
        Some(status) => Err(ProcessError::Failed { status, said }),
        None => Err(ProcessError::Watch(ErrorKind::WouldBlock.into())),
    }
}

struct Running<'a> {
    child: Child,
    pid: Pid,
    end: OwnedFd,
    stdin: Option<ChildStdin>,
    input: &'a [u8],
    outputs: [Output; 2],
}

impl<'a> Running<'a> {
    fn start(command: &[String], input: &'a [u8]) -> Result<Self, ProcessError> {
        let (program, arguments) = command.split_first().ok_or_else(|| {
            ProcessError::Start(io::Error::new(ErrorKind::InvalidInput, "an empty command"))
        })?;
        // Who started us may have left us descriptors that would go on to the hook; ours are all marked anyway.
        close_fds::set_fds_cloexec_threadsafe(3, &[]);
        let mut child = Command::new(program)
            .args(arguments)
            .env_clear()
            .envs(ENVIRONMENT)
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(ProcessError::Start)?;
        let pid = Pid::from_child(&child);
        let pipes = [child.stdout.take().map(OwnedFd::from), child.stderr.take().map(OwnedFd::from)];
        let stdin = child.stdin.take();
        let opened = pidfd_open(pid, PidfdFlags::empty()).map_err(io::Error::from).and_then(|end| {
            pipes.iter().flatten().try_for_each(set_nonblocking)?;
            stdin.iter().try_for_each(set_nonblocking)?;
            Ok(end)
        });
        match opened {
            Ok(end) => Ok(Self { child, pid, end, stdin, input, outputs: pipes.map(Output::of) }),
            Err(e) => {
                let _ = kill_process_group(pid, Signal::KILL);
                let _ = child.wait();
                Err(ProcessError::Watch(e))
            }
        }
    }

    /// Feeds it and listens to it; whether it ended before `deadline`.
    fn watch(&mut self, deadline: Instant) -> io::Result<bool> {
        let mut until = deadline;
        let mut ended = false;
        loop {
            self.write()?;
            for output in &mut self.outputs {
                output.read();
            }
            if ended && self.outputs.iter().all(Output::is_at_end) {
                return Ok(true);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(ended);
            }
            if self.wait(left, ended)? && !ended {
                ended = true;
                self.stdin = None;
                until = Instant::now() + GRACE;
            }
        }
    }

    /// Waits until something can be done; whether the command has ended.
    fn wait(&self, limit: Duration, ended: bool) -> io::Result<bool> {
        let limit = Timespec::try_from(limit).map_err(io::Error::other)?;
        let mut wanted: Vec<PollFd<'_>> = Vec::new();
        if !ended {
            wanted.push(PollFd::new(&self.end, PollFlags::IN));
        }
        for pipe in self.outputs.iter().filter_map(|output| output.pipe.as_ref()) {
            wanted.push(PollFd::new(pipe, PollFlags::IN));
        }
        if let Some(stdin) = &self.stdin {
            wanted.push(PollFd::new(stdin, PollFlags::OUT));
        }
        match poll(&mut wanted, Some(&limit)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        Ok(!ended && !wanted[0].revents().is_empty())
    }

    /// Writes what fits. That it does not care for its input is its own business.
    fn write(&mut self) -> io::Result<()> {
        while let Some(stdin) = &mut self.stdin {
            if self.input.is_empty() {
                self.stdin = None;
                break;
            }
            match stdin.write(self.input) {
                Ok(count) => self.input = &self.input[count..],
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::BrokenPipe => self.stdin = None,
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Kills it and what it has started in its group, before its number can be another's.
    fn kill(&mut self) {
        // Gone already: no error.
        let _ = kill_process_group(self.pid, Signal::KILL);
        let limit = Timespec::try_from(GONE_LIMIT).ok();
        let _ = poll(&mut [PollFd::new(&self.end, PollFlags::IN)], limit.as_ref());
        let _ = self.child.try_wait();
        self.outputs.iter_mut().for_each(Output::read);
    }

    fn said(&self) -> String {
        let texts = self.outputs.iter().map(Output::text).filter(|text| !text.is_empty());
        texts.collect::<Vec<_>>().join("; ")
    }
}

fn set_nonblocking(pipe: &impl AsFd) -> io::Result<()> {
    Ok(rustix::io::ioctl_fionbio(pipe, true)?)
}

/// The end of one output, and the pipe while it is open.
struct Output {
    pipe: Option<std::fs::File>,
    kept: VecDeque<u8>,
}

impl Output {
    fn of(pipe: Option<OwnedFd>) -> Self {
        Self { pipe: pipe.map(std::fs::File::from), kept: VecDeque::new() }
    }

    fn is_at_end(&self) -> bool {
        self.pipe.is_none()
    }

    /// Reads some of what there is; the caller comes back for more, so that a flood does not outlast the time limit.
    fn read(&mut self) {
        let mut buffer = [0; 16 * 1024];
        let Some(pipe) = &mut self.pipe else { return };
        match pipe.read(&mut buffer) {
            Ok(count @ 1..) => {
                self.kept.extend(&buffer[..count]);
                let surplus = self.kept.len().saturating_sub(KEPT);
                self.kept.drain(..surplus);
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Ok(0) | Err(_) => self.pipe = None,
        }
    }

    /// In one line, for a log.
    fn text(&self) -> String {
        let bytes: Vec<u8> = self.kept.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let line = lines.collect::<Vec<_>>().join(" | ");
        line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, input: &[u8], limit: Duration) -> Result<String, ProcessError> {
        run(&["sh".into(), "-c".into(), script.into()], input, limit)
    }

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn it_reads_its_input_and_its_words_are_heard() {
        let said = sh("cat; echo; echo two >&2", b"{\"one\": 1}", LONG).unwrap();
        assert_eq!(said, "{\"one\": 1}; two");
    }

    #[test]
    fn a_failure_tells_status_and_words() {
        let error = sh("echo no room >&2; exit 3", b"", LONG).unwrap_err().to_string();
        assert_eq!(error, "exit status: 3; it said: no room");
    }

    #[test]
    fn input_that_nobody_reads_and_output_without_end_hold_nobody_up() {
        let input = vec![b'x'; 4 << 20];
        assert!(sh("exit 0", &input, LONG).is_ok());
        let said =
            sh("exec <&-; head -c 30000000 /dev/zero | tr '\\0' y; echo; echo end", &input, LONG).unwrap();
        assert!(said.ends_with(" | end") && said.len() <= KEPT + 8, "{}", said.len());
    }

    #[test]
    fn past_its_limit_the_whole_group_is_killed() {
        let begun = Instant::now();
        let mark = tempfile::tempdir().unwrap();
        let file = mark.path().join("late");
        let script = format!("(sleep 1.5; touch {0}) & trap '' TERM; echo begun; sleep 60", file.display());
        let error = sh(&script, b"", Duration::from_millis(300)).unwrap_err();
        assert!(matches!(&error, ProcessError::TimedOut { said, .. } if said == "begun"), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(10));
        std::thread::sleep(Duration::from_secs(2));
        assert!(!file.exists(), "a process of the group lives on");
    }

    #[test]
    fn an_endless_talker_is_killed_in_time() {
        let begun = Instant::now();
        let error = sh("exec yes", b"", Duration::from_millis(300)).unwrap_err();
        assert!(matches!(error, ProcessError::TimedOut { .. }), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn what_it_leaves_behind_is_not_waited_for() {
        let begun = Instant::now();
        assert_eq!(sh("sleep 30 & echo gone", b"", LONG).unwrap(), "gone");
        assert!(begun.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn environment_directory_and_descriptors_are_clean() {
        let said =
            sh("env | cut -d= -f1 | sort | tr '\\n' ' '; pwd; ls /proc/self/fd | tr '\\n' ' '", b"", LONG)
                .unwrap();
        // The shell adds PWD; the fourth descriptor is the directory that ls reads.
        assert_eq!(said, "HOME LANG PATH PWD / | 0 1 2 3");
    }

    #[test]
    fn a_program_that_is_not_there_is_told() {
        let error = run(&["/nowhere/hook".into()], b"", LONG).unwrap_err();
        assert!(matches!(error, ProcessError::Start(_)), "{error}");
    }
}
