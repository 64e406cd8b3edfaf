//! A CRIU that is no more than a process of its container: of its user, in all of its namespaces, with the few capabilities that
//! it is given and none that it could come by.
//!
//! Capabilities outlive the start of a program that is not root's as ambient ones alone, and those need not be in the bounding set.
//! So what is restored has its container's bounding set from the beginning: nobody could widen it, and to narrow it would
//! take a capability.

use std::io;
use std::os::unix::fs::{chown, DirBuilderExt};
use std::path::{Path, PathBuf};

use caps::{CapSet, CapsHashSet};
use nix::unistd::{Gid, Uid};

use crate::{sys, LaunchError};

/// Who CRIU is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The other groups.
    pub groups: Vec<u32>,
    /// What it, and what it restores, may ever come by (bit n = capability n).
    pub bounding: u64,
    /// Whether it may gain nothing at all.
    pub no_new_privs: bool,
    /// Where it works; made for it, in a directory that is root's alone.
    pub work: PathBuf,
}

impl Person {
    /// Where it works, there and its own.
    pub(crate) fn work(&self) -> Result<&Path, LaunchError> {
        let failed = |source| LaunchError::Prepare { what: "make a directory for CRIU's user", source };
        match std::fs::DirBuilder::new().mode(0o700).create(&self.work) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(failed(e)),
            _ => {}
        }
        self.own(&self.work).map_err(failed)?;
        Ok(&self.work)
    }

    /// Makes what lies at `path` this user's.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn own(&self, path: &Path) -> io::Result<()> {
        chown(path, Some(self.uid), Some(self.gid))
    }

    /// What takes memory, ahead of the fork.
    pub(crate) fn prepared(&self) -> Prepared {
        let ours = caps::read(None, CapSet::Permitted).unwrap_or_default();
        Prepared {
            uid: Uid::from_raw(self.uid),
            gid: Gid::from_raw(self.gid),
            groups: self.groups.iter().map(|group| Gid::from_raw(*group)).collect(),
            bounding: self.bounding,
            no_new_privs: self.no_new_privs,
            ours: mask(&ours),
        }
    }
}

/// A [`Person`], ready to be become.
#[derive(Debug)]
pub(crate) struct Prepared {
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
    bounding: u64,
    no_new_privs: bool,
    /// What we have, to get there.
    ours: u64,
}

impl Prepared {
    /// Becomes this user, for good, with `capabilities`: system calls only.
    pub(crate) fn enter(&self, capabilities: u64) -> io::Result<()> {
        nix::unistd::setgroups(&self.groups)?;
        // Before the bounding set goes: nothing else can be made inheritable.
        sys::set_capabilities(self.ours, capabilities)?;
        sys::drop_bounding_set(self.bounding)?;
        sys::keep_capabilities(true)?;
        nix::unistd::setresgid(self.gid, self.gid, self.gid)?;
        nix::unistd::setresuid(self.uid, self.uid, self.uid)?;
        // Root would come by its bounding set, but not where nobody gains privileges.
        let held = capabilities | if self.uid.is_root() { self.bounding } else { 0 };
        sys::set_capabilities(held, capabilities)?;
        sys::keep_capabilities(false)?;
        sys::raise_ambient(capabilities)?;
        if self.no_new_privs {
            sys::gain_nothing()?;
        }
        Ok(())
    }
}

/// As the kernel writes a set.
pub(crate) fn mask(set: &CapsHashSet) -> u64 {
    set.iter().fold(0, |mask, capability| mask | capability.bitmask())
}
