//! The directory that one CRIU takes for its image directory: nothing but sockets.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use crate::Person;
use std::sync::atomic::{AtomicU64, Ordering};

/// What one of these directories is called, before its maker's pid.
const PREFIX: &str = "stream-";

/// Where the announcing program connects.
const ANNOUNCEMENTS: &str = "announce.sock";

/// What CRIU is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Dump,
    Restore,
}

impl Purpose {
    /// The names that CRIU knows.
    fn socket(self) -> &'static str {
        match self {
            Self::Dump => "streamer-capture.sock",
            Self::Restore => "streamer-serve.sock",
        }
    }
}

/// Removed on drop.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    pub(crate) announcements: UnixListener,
    pub(crate) images: UnixListener,
}

impl Directory {
    /// A new one below `parent`, with both sockets listening.
    pub(crate) fn make(parent: &Path, purpose: Purpose) -> io::Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        remove_orphans(parent);
        let name = format!("{PREFIX}{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = parent.join(name);
        DirBuilder::new().mode(0o700).create(&path)?;
        let listen = |name: &str| UnixListener::bind(path.join(name));
        match (listen(ANNOUNCEMENTS), listen(purpose.socket())) {
            (Ok(announcements), Ok(images)) => Ok(Self { path, announcements, images }),
            (Err(e), _) | (_, Err(e)) => {
                // The first error is the one to tell.
                let _ = std::fs::remove_dir_all(&path);
                Err(e)
            }
        }
    }

    /// Lets `person` find the sockets; nobody else gets to the directory.
    pub(crate) fn hand_to(&self, person: &Person) -> io::Result<()> {
        for entry in std::fs::read_dir(&self.path)? {
            person.own(&entry?.path())?;
        }
        person.own(&self.path)
    }

    pub(crate) fn open(&self) -> io::Result<OwnedFd> {
        File::open(&self.path).map(OwnedFd::from)
    }
}

impl Drop for Directory {
    /// Who waits for a CRIU that never came waits no longer.
    fn drop(&mut self) {
        for listener in [&self.announcements, &self.images] {
            // Only that can fail which nobody waits for.
            let _ = rustix::net::shutdown(listener, rustix::net::Shutdown::Both);
        }
        if let Err(e) = std::fs::remove_dir_all(&self.path) {
            tracing::warn!(path = ?self.path, error = %e, "sockets of a CRIU stay");
        }
    }
}

/// What makers that were killed have left.
fn remove_orphans(parent: &Path) {
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let maker = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split_once('-'));
        if maker.is_some_and(|(pid, _)| !Path::new("/proc").join(pid).exists()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_and_takes_what_the_dead_have_left() {
        let parent = tempfile::tempdir().unwrap();
        let dead = parent.path().join("stream-4194399-0");
        let other = parent.path().join("log");
        for path in [&dead, &other] {
            std::fs::create_dir(path).unwrap();
        }
        let directory = Directory::make(parent.path(), Purpose::Dump).unwrap();
        assert!(directory.path.join("streamer-capture.sock").exists());
        assert!(!dead.exists() && other.exists());
        let second = Directory::make(parent.path(), Purpose::Restore).unwrap();
        drop(directory);
        drop(second);
        assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 1);
    }

    #[test]
    fn nobody_waits_for_a_criu_that_never_came() {
        let parent = tempfile::tempdir().unwrap();
        let directory = Directory::make(parent.path(), Purpose::Restore).unwrap();
        let listener = directory.images.try_clone().unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || tell.send(listener.accept().is_err()));
        assert!(told.recv_timeout(std::time::Duration::from_millis(100)).is_err(), "it should wait");
        drop(directory);
        assert_eq!(told.recv_timeout(std::time::Duration::from_secs(5)), Ok(true));
    }
}
