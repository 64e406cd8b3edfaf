//! The AppArmor profile that the application goes under, where the init is held to a narrower one.
//!
//! Entered by the new process itself, before it executes anything: a change at `execve` would make the C library distrust the
//! environment.

use std::ffi::CStr;

use nix::errno::Errno;
use nix::fcntl::{open, OFlag};
use nix::sys::stat::Mode;
use nix::unistd::write;

/// Where a process asks for another profile: AppArmor's own place, and the one from before Linux 5.8.
const PLACES: [&CStr; 2] = [c"/proc/self/attr/apparmor/current", c"/proc/self/attr/current"];

/// A profile, as the kernel is asked for it.
#[derive(Debug)]
pub(crate) struct Profile {
    request: Vec<u8>,
}

impl Profile {
    pub(crate) fn new(name: &str) -> Self {
        Self { request: format!("changeprofile {name}").into_bytes() }
    }

    /// Puts the caller under it. Nothing here allocates.
    pub(crate) fn enter(&self) -> nix::Result<()> {
        let mut place = Err(Errno::ENOENT);
        for path in PLACES {
            place = place.or_else(|_| open(path, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty()));
        }
        write(place?, &self.request).map(drop)
    }
}
