//! Where CRIU, told that memory comes later, hands over the userfaultfd of each process that it restores.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::socket::{recvmsg, ControlMessageOwned, MsgFlags};

/// What CRIU looks for in its working directory.
const NAME: &str = "lazy-pages.socket";
/// What it says in the end, in place of a pid.
const FINISHED: u32 = 0x5253_5446;
/// How often the one who waits looks up, in milliseconds.
const LOOK_UP: u16 = 50;

/// All CRIUs have one working directory: one at a time.
static TURN: Mutex<()> = Mutex::new(());

/// A socket that waits for one CRIU. Gone when it is dropped.
#[derive(Debug)]
pub struct LazySocket {
    listener: UnixListener,
    path: PathBuf,
    _turn: MutexGuard<'static, ()>,
}

impl LazySocket {
    /// In CRIU's working directory. Waits until no other CRIU of ours has one there.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn listen(work: &Path) -> io::Result<Self> {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let path = work.join(NAME);
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        // CRIU may be another user's root; the directory is ours alone.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666))?;
        Ok(Self { listener, path, _turn: turn })
    }

    /// A second handle, for the thread that receives.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub fn listener(&self) -> io::Result<UnixListener> {
        self.listener.try_clone()
    }

    /// Tells `each` the pid (as CRIU numbers it) and the userfaultfd of every process, until CRIU says that there are no more, or
    /// `stop` is set, or CRIU is gone: that is then its own business to tell.
    ///
    /// # Errors
    /// When CRIU says what it never says, or `each` fails.
    pub fn receive(
        listener: &UnixListener,
        stop: &AtomicBool,
        mut each: impl FnMut(i32, OwnedFd) -> io::Result<()>,
    ) -> io::Result<bool> {
        if !wait(listener, stop)? {
            return Ok(false);
        }
        let (stream, _) = listener.accept()?;
        loop {
            let mut word = [0; 4];
            if !wait(&stream, stop)? || read(&stream, &mut word)? == 0 {
                return Ok(false);
            }
            if u32::from_ne_bytes(word) == FINISHED {
                return Ok(true);
            }
            let pid = i32::from_ne_bytes(word);
            // The dead have no memory.
            if pid > 0 {
                each(pid, descriptor(&stream)?)?;
            }
        }
    }
}

impl Drop for LazySocket {
    fn drop(&mut self) {
        if let Err(e) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = ?self.path, error = %e, "a socket stays");
        }
    }
}

/// Whether there is something before it is to stop.
fn wait(from: &impl AsFd, stop: &AtomicBool) -> io::Result<bool> {
    while !stop.load(Ordering::Acquire) {
        let mut ready = [PollFd::new(from.as_fd(), PollFlags::POLLIN)];
        match poll(&mut ready, PollTimeout::from(LOOK_UP)) {
            Ok(0) | Err(nix::errno::Errno::EINTR) => {}
            Ok(_) => return Ok(true),
            Err(e) => return Err(e.into()),
        }
    }
    Ok(false)
}

/// All four bytes, or none.
fn read(mut stream: &UnixStream, word: &mut [u8; 4]) -> io::Result<usize> {
    use std::io::Read;
    match stream.read_exact(word) {
        Ok(()) => Ok(4),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
        Err(e) => Err(e),
    }
}

fn descriptor(stream: &UnixStream) -> io::Result<OwnedFd> {
    let mut byte = [0; 1];
    let mut parts = [IoSliceMut::new(&mut byte)];
    let mut control = nix::cmsg_space!([std::os::fd::RawFd; 1]);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(stream.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
    let number = message.cmsgs()?.find_map(|part| match part {
        ControlMessageOwned::ScmRights(numbers) => numbers.first().copied(),
        _ => None,
    });
    let number =
        number.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "CRIU has sent no descriptor"))?;
    Ok(crate::sys::received(number))
}
