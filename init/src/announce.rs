//! Not the init, but what CRIU calls at each stage of a streamed dump or restore: it tells the engine, and ends as the engine
//! answers.
//!
//! CRIU hands its scripts no descriptor, only names: the stage, and a directory, in which the engine listens.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

const LAST: &str = "pre-resume";

/// What CRIU says, by the environment.
pub(crate) struct Announcement {
    stage: OsString,
    directory: OsString,
}

impl Announcement {
    /// What there is to announce, if CRIU has called us.
    pub(crate) fn from_environment() -> Option<Self> {
        let stage = std::env::var_os("CRTOOLS_SCRIPT_ACTION")?;
        let directory = std::env::var_os("CRTOOLS_IMAGE_DIR")?;
        Some(Self { stage, directory })
    }

    /// Announces it; the answer is the exit code. The engine holds CRIU for as long as it likes, and whoever kills CRIU ends
    /// us too. At its last stage CRIU lets go of what it has restored whatever we answer: should the engine be gone,
    /// nobody has decided that yet, and we never answer.
    pub(crate) fn make(&self) -> io::Result<u8> {
        nix::sys::prctl::set_pdeathsig(nix::sys::signal::SIGKILL)?;
        let answer = self.ask();
        if answer.is_err() && self.stage == LAST {
            loop {
                nix::unistd::pause();
            }
        }
        answer
    }

    fn ask(&self) -> io::Result<u8> {
        let mut socket = UnixStream::connect(Path::new(&self.directory).join("announce.sock"))?;
        socket.write_all(&[self.stage.as_bytes(), b"\n"].concat())?;
        let mut answer = [0];
        socket.read_exact(&mut answer)?;
        Ok(answer[0])
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufRead;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn the_answer_is_the_exit_code() {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("announce.sock")).unwrap();
        let engine = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let mut word = String::new();
            io::BufReader::new(&socket).read_line(&mut word).unwrap();
            socket.write_all(&[7]).unwrap();
            word
        });
        let directory = directory.path().as_os_str().to_owned();
        let announcement = Announcement { stage: "post-restore".into(), directory };
        assert_eq!(announcement.make().unwrap(), 7);
        assert_eq!(engine.join().unwrap(), "post-restore\n");
    }

    #[test]
    fn nobody_there_is_an_error() {
        let nowhere = Announcement { stage: "x".into(), directory: "/nonexistent".into() };
        assert!(nowhere.make().is_err());
    }
}
