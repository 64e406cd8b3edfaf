//! CRIU inside the container (`[confinement] mode = "in-container"`): a process of it, of its user, with CAP_CHECKPOINT_RESTORE
//! and CAP_SYS_PTRACE and nothing else that the container's own processes have not.
//!
//! Whoever lets an image or an application take CRIU over then has a process of that container, and no more. It cannot do all
//! that a privileged one can; what it cannot is refused here, by name, before anything is stopped.

use std::collections::BTreeSet;
use std::fs::Permissions;
use std::io::{Cursor, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{chown, DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use caps::{Capability, CapsHashSet};
use fastmig_criu::{clock, ImageSource, Launch, Person};
use procfs::process::{Process, Status};

use crate::config::CriuMode;
use crate::container::Container;
use crate::files::open_directory;
use crate::image::open_nofollow;
use crate::start_options::TcpPolicy;
use crate::tree::cgroup::ApplicationCgroup;
use crate::tree::{apparmor, application, privilege};
use crate::{capabilities, Error};

/// What a dump needs.
pub(crate) const TO_DUMP: &[Capability] = &[
    Capability::CAP_CHECKPOINT_RESTORE, // map_files
    Capability::CAP_SYS_PTRACE,         // tracing what holds more than CRIU
];

/// What a restore needs, and CAP_SYS_PTRACE where the host lets nobody trace without.
pub(crate) const TO_RESTORE: &[Capability] = &[
    Capability::CAP_CHECKPOINT_RESTORE, // clone3 with set_tid, prctl(PR_SET_MM)
];

/// Below the container's directory of state.
const WORK: &str = "criu";

/// Bytes of an image with two clocks, and more.
const LARGEST_CLOCK: u64 = 4096;

/// Below the directory of a checkpoint in the making.
const IMAGES: &str = "criu";

/// Who CRIU is in one container.
#[derive(Debug, Clone)]
pub(crate) struct Inside {
    init: i32,
    first: Status,
    work: PathBuf,
    label: Option<String>,
}

impl Inside {
    /// Of this container, where the settings want that.
    pub(crate) fn of(container: &Container) -> Result<Option<Self>, Error> {
        if !is_wanted(container) {
            return Ok(None);
        }
        let init = container.pid();
        let status = Process::new(init).and_then(|process| process.status());
        let first = status
            .map_err(|e| Error::io("read the privileges of", Path::new("/proc"), std::io::Error::other(e)))?;
        let inside =
            Self { init, first, work: container.directory.file(WORK), label: apparmor::of_application(init) };
        inside.require_no_filter(container)?;
        Ok(Some(inside))
    }

    /// A dump's CRIU, which can come by nothing besides what it is given.
    pub(crate) fn dumps<'a>(&self, container: &Container, launch: Launch<'a>) -> Result<Launch<'a>, Error> {
        let given = capabilities::held(TO_DUMP.iter().copied().collect(), &container.config);
        let bounding = given.iter().fold(0, |set, capability| set | capability.bitmask());
        self.start(launch, given, bounding)
    }

    /// A restore's: nobody can hand on what it lacks, so its bounding set is the container's, and where that is root's it holds
    /// these as any root of the container.
    pub(crate) fn restores<'a>(
        &self,
        container: &Container,
        launch: Launch<'a>,
    ) -> Result<Launch<'a>, Error> {
        let wanted = TO_RESTORE.iter().copied().chain(capabilities::to_trace()).collect();
        let given = capabilities::held(wanted, &container.config);
        self.start(launch, given, self.first.capbnd.unwrap_or(0))
    }

    fn start<'a>(&self, launch: Launch<'a>, given: CapsHashSet, bounding: u64) -> Result<Launch<'a>, Error> {
        let person = Person {
            uid: self.first.euid,
            gid: self.first.egid,
            groups: self.first.groups.clone(),
            bounding,
            no_new_privs: self.first.nonewprivs == Some(1),
            work: self.work.clone(),
        };
        let launch = launch.with_capabilities(given).as_person(self.init, person)?;
        Ok(launch.under_profile(self.label.clone()))
    }

    /// Whether an application can be dumped so, by what it is and has now.
    pub(crate) fn require_simple(
        &self,
        container: &Container,
        tcp: TcpPolicy,
        processes: &BTreeSet<i32>,
    ) -> Result<(), Error> {
        self.require_tcp(container, tcp)?;
        for &pid in processes.iter().filter(|pid| !application::is_zombie(**pid)) {
            if let Some((what, remedy)) = self.beyond(pid) {
                let what = format!("{what} ({:?})", application::command_of(pid));
                return Err(refused(container, what, remedy));
            }
        }
        Ok(())
    }

    /// Whether one that holds these capabilities can be restored so.
    pub(crate) fn require_restorable(
        &self,
        container: &Container,
        tcp: TcpPolicy,
        capabilities: &BTreeSet<String>,
    ) -> Result<(), Error> {
        self.require_tcp(container, tcp)?;
        if self.first.euid != 0 && !capabilities.is_empty() {
            return Err(refused(container, CAPABLE.0.into(), CAPABLE.1));
        }
        Ok(())
    }

    fn require_no_filter(&self, container: &Container) -> Result<(), Error> {
        if self.first.seccomp.unwrap_or(0) == 0 {
            return Ok(());
        }
        let remedy =
            "create the container without one (--security-opt seccomp=unconfined, and the annotation \
                      fastmig.dev/io-uring=allow)";
        Err(refused(container, "read or restore a seccomp filter, which takes CAP_SYS_ADMIN".into(), remedy))
    }

    fn require_tcp(&self, container: &Container, tcp: TcpPolicy) -> Result<(), Error> {
        if tcp != TcpPolicy::Keep {
            return Ok(());
        }
        let what = "keep TCP connections, which takes CAP_NET_ADMIN";
        Err(refused(container, what.into(), "let them be closed (annotation fastmig.dev/tcp=close)"))
    }

    /// What there is about a process that only a privileged CRIU could save, and what to do.
    fn beyond(&self, pid: i32) -> Option<(&'static str, &'static str)> {
        for thread in privilege::living_threads(pid) {
            if thread.seccomp.unwrap_or(0) != 0 {
                return Some(("save a seccomp filter, which takes CAP_SYS_ADMIN", ELSEWHERE));
            }
            let of = |status: &Status| {
                let users = [status.ruid, status.euid, status.suid, status.fuid];
                let groups = [status.rgid, status.egid, status.sgid, status.fgid];
                (users, groups, status.groups.clone())
            };
            if of(&thread) != of(&self.first) {
                let what = "save processes of other users or groups than its container's, which takes CAP_DAC_OVERRIDE and CAP_SETUID";
                return Some((what, "run the container as the application's user (--user)"));
            }
            if self.first.euid != 0 && thread.capprm | thread.capamb.unwrap_or(0) != 0 {
                return Some(CAPABLE);
            }
        }
        let clock = |pid: i32| std::fs::read_link(format!("/proc/{pid}/ns/time")).ok();
        if clock(pid) != clock(self.init) {
            let what = "save a clock that a privileged CRIU has let go on, which takes CAP_SYS_TIME";
            return Some((what, "start the application anew, or leave [confinement] mode at \"helper\""));
        }
        if privilege::has_left(pid, self.init) {
            return Some(("save namespaces of a process's own, which takes CAP_SYS_ADMIN", ELSEWHERE));
        }
        if !std::fs::metadata(format!("/proc/{pid}/maps")).is_ok_and(|file| file.uid() == self.first.euid) {
            let what =
                "read a process that hides itself (prctl PR_SET_DUMPABLE), which takes CAP_DAC_READ_SEARCH";
            return Some((what, ELSEWHERE));
        }
        let watches = || {
            let links = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
            let mut links = links.filter_map(|link| std::fs::read_link(link.path()).ok());
            links.any(|link| {
                link == Path::new("anon_inode:inotify") || link == Path::new("anon_inode:[fanotify]")
            })
        };
        if watches() {
            return Some(("save what watches files (inotify), which takes CAP_DAC_READ_SEARCH", ELSEWHERE));
        }
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
        if maps.lines().any(|line| line.contains(" /SYSV")) {
            let what = "save System V shared memory, whose namespace it would have to be outside of";
            return Some((what, ELSEWHERE));
        }
        None
    }
}

/// Why memory does not travel while the application runs.
pub(crate) const NO_ROUNDS: &str = "CRIU works inside the container here, and has to see all of its memory";

const ELSEWHERE: &str = "leave [confinement] mode at \"helper\" on this host";

const CAPABLE: (&str, &str) = (
    "hand on the capabilities of a user that is not root, which it would have to hold itself",
    "create the container without them",
);

/// Whether the settings want that.
pub(crate) fn is_wanted(container: &Container) -> bool {
    container.config.confinement.mode == CriuMode::InContainer
}

/// Whoever fills the memory of a CRIU from outside must find one that lets memory be filled.
pub(crate) fn refuse_rounds(container: &Container) -> Result<(), Error> {
    if !is_wanted(container) {
        return Ok(());
    }
    let what = "take memory in that was saved or sent in rounds";
    Err(refused(container, what.into(), "save or send it with --strategy stop-copy"))
}

fn refused(container: &Container, what: String, remedy: &'static str) -> Error {
    Error::NotFromInside { id: container.key().id().into(), what, remedy }
}

/// The switch of the application's cgroup, in CRIU's hands while it dumps.
#[derive(Debug)]
pub(crate) struct Lent(PathBuf);

impl Lent {
    pub(crate) fn to(inside: &Inside, cgroup: &ApplicationCgroup) -> Result<Self, Error> {
        let path = cgroup.switch();
        chown(&path, Some(inside.first.euid), None).map_err(|e| Error::io("lend", &path, e))?;
        Ok(Self(path))
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        match chown(&self.0, Some(0), None) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(path = ?self.0, error = %e, "it stays with the container's user");
            }
            _ => {}
        }
    }
}

/// Where CRIU writes images that become a checkpoint: a directory of its user's in one that is root's alone.
#[derive(Debug)]
pub(crate) struct Images(PathBuf);

impl Images {
    /// Below `directory`.
    pub(crate) fn make(inside: &Inside, directory: &Path) -> Result<Self, Error> {
        let path = directory.join(IMAGES);
        let made = std::fs::DirBuilder::new().mode(0o700).create(&path);
        made.and_then(|()| chown(&path, Some(inside.first.euid), Some(inside.first.egid)))
            .map_err(|e| Error::io("make", &path, e))?;
        Ok(Self(path))
    }

    pub(crate) fn open(&self) -> Result<OwnedFd, Error> {
        open_directory(&self.0)
    }

    /// CRIU is gone: what it wrote becomes root's, in the directory above.
    pub(crate) fn take_over(self) -> Result<(), Error> {
        let failed = |e| Error::io("take over", &self.0, e);
        let above = self.0.parent().unwrap_or(Path::new("/"));
        chown(&self.0, Some(0), Some(0)).map_err(failed)?;
        for entry in std::fs::read_dir(&self.0).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let file = open_nofollow(&entry.path(), 0).map_err(failed)?;
            let status = file.metadata().map_err(failed)?;
            if !status.is_file() || status.nlink() != 1 {
                return Err(failed(std::io::ErrorKind::InvalidData.into()));
            }
            std::os::unix::fs::fchown(&file, Some(0), Some(0)).map_err(failed)?;
            file.set_permissions(Permissions::from_mode(0o600)).map_err(failed)?;
            std::fs::rename(entry.path(), above.join(entry.file_name())).map_err(failed)?;
        }
        std::fs::remove_dir(&self.0).map_err(failed)
    }
}

/// CRIU could not let the clock go on from where it was: it is this host's, and may not go back.
pub(crate) fn require_clock(container: &Container, images: &dyn ImageSource) -> Result<(), Error> {
    let Some(image) = images.open(clock::CLOCKS) else { return Ok(()) };
    let mut content = Vec::new();
    // Damaged, it tells of no clock.
    let _ = image.take(LARGEST_CLOCK).read_to_end(&mut content);
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let now = Duration::from_secs(u64::try_from(now.tv_sec).unwrap_or(0) + 1);
    if clock::monotonic(&content).is_none_or(|then| then <= now) {
        return Ok(());
    }
    let what = "let the clock of the application go on, which takes CAP_SYS_TIME: this host runs for less time than the one it comes from";
    Err(refused(container, what.into(), ELSEWHERE))
}

/// Images whose processes keep the bounding set that they begin with, which is their container's: CRIU could not narrow it.
#[derive(Debug)]
pub(crate) struct Bounded(pub(crate) Arc<dyn ImageSource>);

impl ImageSource for Bounded {
    fn open(&self, name: &str) -> Option<Box<dyn Read + Send>> {
        let mut image = self.0.open(name)?;
        if !fastmig_criu::is_core(name) {
            return Some(image);
        }
        let mut content = Vec::new();
        // What breaks off or is damaged is CRIU's to refuse.
        let _ = image.read_to_end(&mut content);
        let content = fastmig_criu::with_bounding_set(&content, u64::MAX).unwrap_or(content);
        Some(Box::new(Cursor::new(content)))
    }

    fn names(&self) -> Vec<String> {
        self.0.names()
    }
}
