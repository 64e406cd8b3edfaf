//! The namespaces that a worker runs in.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::path::Path;
use std::process::{Child, Command};

use nix::sched::{setns, CloneFlags};

use crate::launch_error::{c_string, open, LaunchError};
use crate::Bundle;

/// The namespaces of one process that a worker joins. The IPC namespace is left out on purpose: it travels
/// with the application, and CRIU dumps a namespace only from outside it.
#[derive(Debug)]
pub(crate) struct Namespaces {
    pid: File,
    others: Vec<(File, CloneFlags)>,
    root: File,
    /// The bundle's directory: device and inode that must show at the inner path after the join.
    identity: (u64, u64),
    inner: CString,
}

impl Namespaces {
    /// Those of process `pid`, and its root.
    pub(crate) fn of(pid: i32, bundle: &Bundle) -> Result<Self, LaunchError> {
        let link = |name: &str| open(Path::new(&format!("/proc/{pid}/{name}")));
        let mut others = Vec::new();
        for (name, flag) in [
            ("ns/uts", CloneFlags::CLONE_NEWUTS),
            ("ns/net", CloneFlags::CLONE_NEWNET),
            ("ns/cgroup", CloneFlags::CLONE_NEWCGROUP),
            ("ns/mnt", CloneFlags::CLONE_NEWNS),
        ] {
            others.push((link(name)?, flag));
        }
        let dir = open(&bundle.host_dir)?;
        let status = nix::sys::stat::fstat(&dir)
            .map_err(|e| LaunchError::Prepare { what: "identify the CRIU bundle", source: e.into() })?;
        Ok(Self {
            pid: link("ns/pid")?,
            others,
            root: link("root")?,
            identity: (status.st_dev, status.st_ino),
            inner: c_string(&bundle.inner_dir.to_string_lossy())?,
        })
    }

    /// This one as well, and first: from the last one on, nothing of the host's can be reached.
    pub(crate) fn join_also(&mut self, namespace: File, kind: CloneFlags) {
        self.others.insert(0, (namespace, kind));
    }

    /// The one that a fork goes into, not the caller.
    pub(crate) fn pid(&self) -> Result<File, LaunchError> {
        self.pid.try_clone().map_err(|source| LaunchError::Prepare { what: "keep the pid namespace", source })
    }

    /// Goes into all but that: system calls only.
    pub(crate) fn join(&self) -> io::Result<()> {
        for (file, flag) in &self.others {
            setns(file, *flag)?;
        }
        nix::unistd::fchdir(&self.root)?;
        nix::unistd::chroot(c".")?;
        nix::unistd::chdir(c"/")?;
        // A container with mount rights of its own could show another directory where ours should be.
        let found = nix::sys::stat::stat(self.inner.as_c_str())?;
        if (found.st_dev, found.st_ino) != self.identity {
            return Err(io::Error::from_raw_os_error(libc::ESTALE));
        }
        Ok(())
    }
}

/// Starts `command` with its pid in `pid_namespace`: joining one concerns only the children of the thread
/// that joins, so a thread of its own does it and ends.
pub(crate) fn spawn(mut command: Command, pid_namespace: Option<File>) -> io::Result<Child> {
    let Some(namespace) = pid_namespace else { return command.spawn() };
    let thread = std::thread::Builder::new().name("criu-start".into()).spawn(move || {
        setns(&namespace, CloneFlags::CLONE_NEWPID)?;
        command.spawn()
    })?;
    thread.join().unwrap_or_else(|_| Err(io::Error::other("the starting thread panicked")))
}
