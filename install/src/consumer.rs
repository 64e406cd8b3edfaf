//! Asks the program that a configuration is for, before it is put into place.

use std::io::{self, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::{Error, Site};

/// How long a program may look at its configuration.
const LIMIT: Duration = Duration::from_secs(60);

/// Whose configuration a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Consumer {
    /// `containerd config dump`, which tells what is in force when all imports are read.
    Containerd,
    /// `dockerd --validate`.
    Docker,
    /// `apparmor_parser`, which compiles a profile and loads nothing.
    AppArmor,
}

/// What a program said.
pub(crate) struct Answer {
    pub(crate) status: ExitStatus,
    out: String,
    pub(crate) err: String,
}

impl Consumer {
    /// Whether `staged` may become `path`. A program that is not there, or runs on another host, is not asked.
    pub(crate) fn check(self, site: &Site, staged: &Path, path: &Path) -> Result<(), Error> {
        let Some(program) = site.program(self.program()).filter(|_| site.is_this_host()) else {
            return Ok(());
        };
        let mut command = Command::new(program);
        match self {
            Self::Containerd => command.arg("--config").arg(staged).args(["config", "dump"]),
            Self::Docker => command.arg("--validate").arg("--config-file").arg(staged),
            Self::AppArmor => command.args(["--skip-kernel-load", "--skip-cache", "--quiet"]).arg(staged),
        };
        let answer = run(&mut command).map_err(Error::io("ask its program about", path))?;
        match self.judge(&answer) {
            None => Ok(()),
            Some(words) => Err(Error::Refused { program: self.program(), path: path.to_owned(), words }),
        }
    }

    fn program(self) -> &'static str {
        match self {
            Self::Containerd => "containerd",
            Self::Docker => "dockerd",
            Self::AppArmor => "apparmor_parser",
        }
    }

    fn judge(self, answer: &Answer) -> Option<String> {
        // dockerd before 23.0 has no way to be asked.
        if self == Self::Docker && answer.err.contains("unknown flag: --validate") {
            return None;
        }
        if !answer.status.success() {
            return Some(last_line(&answer.err).unwrap_or(&answer.status.to_string()).to_owned());
        }
        let is_blind = self == Self::Containerd && !answer.out.contains(".runtimes.fastmig]");
        is_blind.then(|| {
            "it does not see the runtime fastmig there, because a file that it imports replaces the section; \
             copy the tables of containerd-config/ into that file, and try again"
                .to_owned()
        })
    }
}

pub(crate) fn last_line(text: &str) -> Option<&str> {
    text.lines().map(str::trim).rfind(|line| !line.is_empty())
}

/// Runs a program within the limit.
pub(crate) fn run(command: &mut Command) -> io::Result<Answer> {
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let (out, err) = (collect(child.stdout.take()), collect(child.stderr.take()));
    let status = wait(&mut child)?;
    let text = |reader: thread::JoinHandle<String>| reader.join().unwrap_or_default();
    Ok(Answer { status, out: text(out), err: text(err) })
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut content = Vec::new();
        // What was read before an error is all there is.
        let _ = pipe.map(|mut pipe| pipe.read_to_end(&mut content));
        String::from_utf8_lossy(&content).into_owned()
    })
}

fn wait(child: &mut Child) -> io::Result<ExitStatus> {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {LIMIT:?}")));
        }
        thread::sleep(Duration::from_millis(5));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(script: &str) -> Answer {
        run(Command::new("sh").args(["-c", script])).unwrap()
    }

    #[test]
    fn a_refusal_is_told_in_the_programs_words() {
        let words = Consumer::Docker.judge(&answer("echo noise >&2; echo 'bad key' >&2; echo >&2; exit 1"));
        assert_eq!(words.unwrap(), "bad key");
        assert_eq!(Consumer::Docker.judge(&answer("true")), None);
        assert_eq!(Consumer::Docker.judge(&answer("echo 'unknown flag: --validate' >&2; exit 125")), None);
    }

    #[test]
    fn containerd_must_see_what_was_added() {
        assert_eq!(
            Consumer::Containerd.judge(&answer("echo '[plugins.x.containerd.runtimes.fastmig]'")),
            None
        );
        assert!(Consumer::Containerd.judge(&answer("echo '[plugins.x]'")).unwrap().contains("imports"));
    }
}
