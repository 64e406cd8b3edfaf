//! What a worker does by itself between its fork and its program: it goes where it must run, gives away what it need not have, and
//! keeps the descriptors that it was given.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use crate::namespaces::Namespaces;
use crate::person::Prepared;
use crate::sys;

/// Which AppArmor profile the next program of this process runs under.
const PROFILE: &str = "/proc/self/attr/apparmor/exec";
/// Who has logged in, for the kernel's audit; and that nobody has.
const LOGIN: (&str, &str) = ("/proc/self/loginuid", "4294967295");

/// What gets executed, as a descriptor with its command line.
pub(crate) struct Program {
    pub(crate) file: File,
    pub(crate) arguments: Vec<CString>,
    pub(crate) environment: Vec<CString>,
}

/// What the child does between fork and exec: system calls only, all memory made beforehand.
pub(crate) struct Entry {
    pub(crate) cgroups: Vec<File>,
    pub(crate) capabilities: u64,
    pub(crate) person: Option<Prepared>,
    pub(crate) oom_score_adj: Option<String>,
    /// What AppArmor is told.
    pub(crate) profile: Option<String>,
    /// Where it looks for what it has learnt about the kernel, before it goes to any directory by itself.
    pub(crate) directory: RawFd,
    pub(crate) fds: Vec<OwnedFd>,
    pub(crate) program: Program,
    pub(crate) namespaces: Option<Namespaces>,
}

impl Entry {
    /// Becomes the worker. Returns only when that fails.
    pub(crate) fn run(&mut self) -> io::Result<()> {
        for cgroup in &mut self.cgroups {
            cgroup.write_all(b"0")?;
        }
        if let Some(value) = &self.oom_score_adj {
            // Raising it is always allowed, lowering it not everywhere: then the host's value stays.
            let _ = std::fs::write("/proc/self/oom_score_adj", value);
        }
        // Whoever calls us from a login: what is restored has a login of its own or none, and CRIU could not take this one away.
        // Without the kernel's audit there is no such file.
        let _ = std::fs::write(LOGIN.0, LOGIN.1);
        // Opened in the host's view of processes, written last: from then on the profile decides.
        let attribute =
            self.profile.as_ref().map(|_| File::options().write(true).open(PROFILE)).transpose()?;
        if let Some(namespaces) = &self.namespaces {
            namespaces.join()?;
        }
        sys::new_session_keyring()?;
        match &self.person {
            Some(person) => person.enter(self.capabilities)?,
            None => {
                sys::drop_bounding_set(self.capabilities)?;
                sys::set_capabilities(self.capabilities, 0)?;
            }
        }
        if let Some(work) = self.fds.iter().find(|fd| fd.as_raw_fd() == self.directory) {
            nix::unistd::fchdir(work)?;
        }
        for fd in &self.fds {
            nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty()))?;
        }
        if let (Some(mut attribute), Some(profile)) = (attribute, &self.profile) {
            attribute.write_all(profile.as_bytes())?;
        }
        Err(sys::execute(self.program.file.as_fd(), &self.program.arguments, &self.program.environment))
    }
}
