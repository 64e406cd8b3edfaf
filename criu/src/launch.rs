//! Starting a CRIU worker where it must run: in the container's namespaces and, for a restore, its cgroups,
//! with few capabilities, a descriptor table that holds only what it was given, and its log on stderr.
//!
//! The program is executed through a descriptor opened on the host, never by a name looked up in the container.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use caps::CapsHashSet;
use nix::sched::CloneFlags;
use nix::sys::socket::{socketpair, AddressFamily, SockFlag, SockType};

use crate::entry::{Entry, Program};
use crate::launch_error::{c_strings, open};
use crate::namespaces::{spawn, Namespaces};
use crate::person::mask;
use crate::stream::{Directory, Purpose, StreamedDump, StreamedRestore};
use crate::view::Passed;
use crate::{sys, Bundle, CriuError, DumpOptions, LaunchError, Log, Meter, Person, RestoreOptions, Session};

/// What a CRIU worker needs before it can be spoken to.
#[derive(Debug)]
pub struct Launch<'a> {
    bundle: &'a Bundle,
    namespaces: Option<Namespaces>,
    cgroups: Vec<File>,
    capabilities: CapsHashSet,
    fds: Vec<OwnedFd>,
    oom_score_adj: Option<i32>,
    profile: Option<String>,
    person: Option<Person>,
    view: Option<Passed>,
    meter: Arc<Meter>,
    limit: Duration,
}

impl<'a> Launch<'a> {
    /// A worker of `bundle` that may take `limit` from its first request to its last answer.
    #[must_use]
    pub fn new(bundle: &'a Bundle, limit: Duration) -> Self {
        Self {
            bundle,
            namespaces: None,
            cgroups: Vec::new(),
            capabilities: caps::all(),
            fds: Vec::new(),
            oom_score_adj: None,
            profile: None,
            person: None,
            view: None,
            meter: Arc::default(),
            limit,
        }
    }

    /// Joins the mount, UTS, network, pid and cgroup namespaces and the root of process `pid`.
    ///
    /// # Errors
    /// When the process is gone or its namespaces cannot be opened.
    pub fn in_namespaces_of(mut self, pid: i32) -> Result<Self, LaunchError> {
        self.namespaces = Some(Namespaces::of(pid, self.bundle)?);
        Ok(self)
    }

    /// Puts the worker, and so all that it restores, into these cgroup directories.
    ///
    /// # Errors
    /// When one of them is no cgroup or is gone.
    pub fn in_cgroups(mut self, directories: &[PathBuf]) -> Result<Self, LaunchError> {
        for directory in directories {
            // The worker has one thread: version 1 moves that at once, and a process only after a grace period of RCU.
            let tasks = directory.join("tasks");
            let path = if tasks.exists() { tasks } else { directory.join("cgroup.procs") };
            let file = File::options().write(true).open(&path);
            self.cgroups.push(file.map_err(|source| LaunchError::Open { path, source })?);
        }
        Ok(self)
    }

    /// Gives it no more time than `limit`.
    #[must_use]
    pub fn within(mut self, limit: Duration) -> Self {
        self.limit = self.limit.min(limit);
        self
    }

    /// Keeps only these capabilities (effective, permitted and bounding set).
    #[must_use]
    pub fn with_capabilities(mut self, capabilities: CapsHashSet) -> Self {
        self.capabilities = capabilities;
        self
    }

    /// What restored processes inherit unless their image says otherwise.
    #[must_use]
    pub fn with_oom_score_adj(mut self, value: i32) -> Self {
        self.oom_score_adj = Some(value);
        self
    }

    /// Executes it under this AppArmor profile, which the kernel must have.
    #[must_use]
    pub fn under_profile(mut self, profile: Option<impl Into<String>>) -> Self {
        self.profile = profile.map(Into::into);
        self
    }

    /// What it takes is added there.
    #[must_use]
    pub fn measured_by(self, meter: Arc<Meter>) -> Self {
        Self { meter, ..self }
    }

    /// The bundle that it starts.
    pub(crate) fn bundle(&self) -> &Bundle {
        self.bundle
    }

    /// Starts it as `person`, after [`Launch::in_namespaces_of`] process `pid`, whose IPC namespace it joins as well: what it
    /// restores belongs there.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn as_person(mut self, pid: i32, person: Person) -> Result<Self, LaunchError> {
        let file = open(Path::new(&format!("/proc/{pid}/ns/ipc")))?;
        if let Some(namespaces) = &mut self.namespaces {
            namespaces.join_also(file, CloneFlags::CLONE_NEWIPC);
        }
        self.person = Some(person);
        Ok(self)
    }

    /// Starts it under the library that shows CRIU memory otherwise.
    pub(crate) fn under(&mut self, view: Passed) {
        self.view = Some(view);
    }

    /// Hands `fd` to the worker; returns its number there, which is its number here.
    pub fn pass(&mut self, fd: OwnedFd) -> RawFd {
        let number = fd.as_raw_fd();
        self.fds.push(fd);
        number
    }

    /// Hands a directory to the worker, as a mount of its own: no path that an image names (`/proc/self/cwd/..`) leads from
    /// there to the rest of the host. Returns its number.
    pub fn pass_directory(&mut self, directory: OwnedFd) -> RawFd {
        use rustix::mount::{open_tree, OpenTreeFlags};
        let flags =
            OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
        match open_tree(&directory, c"", flags) {
            Ok(alone) => self.pass(alone),
            Err(error) => {
                // Old kernels, a root without CAP_SYS_ADMIN, mounts that cannot be bound.
                tracing::debug!(%error, "CRIU gets a directory with its surroundings");
                self.pass(directory)
            }
        }
    }

    /// Starts the worker. `work` is where it keeps small files, `log` where it says what it does.
    ///
    /// # Errors
    /// When a step fails; nothing is left running then.
    pub fn start(mut self, work: &Path, log: &Log) -> Result<Session, LaunchError> {
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
                .map_err(|e| LaunchError::Prepare { what: "make CRIU's socket", source: e.into() })?;
        let work = self.pass_work(work)?;
        let rpc = self.pass(theirs);
        let mut arguments = self.arguments(work);
        arguments.extend(["swrk".into(), rpc.to_string()]);
        let (limit, meter) = (self.limit, Arc::clone(&self.meter));
        let view = self.view.as_ref().map(|view| view.variable(rpc));
        let child = self.execute(&arguments, view, work, log)?;
        Ok(Session::new(ours, child, log.clone(), limit, meter))
    }

    /// Starts a dump in stream mode, which waits then to be told to begin; `options.images` is set here. `announcer` is the
    /// program, as seen from the namespaces, that CRIU calls at each stage; it connects to `announce.sock` in the
    /// directory that `CRTOOLS_IMAGE_DIR` names, says `CRTOOLS_SCRIPT_ACTION` and a line feed, and ends with the byte
    /// that it gets.
    ///
    /// # Errors
    /// When a step fails, or CRIU before it could begin; nothing is left running then.
    pub fn start_dump(
        mut self,
        work: &Path,
        log: &Log,
        announcer: &Path,
        mut options: DumpOptions,
    ) -> Result<StreamedDump, CriuError> {
        let directory = self.stream_directory(work, Purpose::Dump, &mut options.images)?;
        let (limit, meter) = (self.limit, Arc::clone(&self.meter));
        let child = self.execute_streaming(work, log, announcer, options.arguments(log.detail()))?;
        StreamedDump::begin(child, directory, log.clone(), limit, meter)
    }

    /// Starts a restore in stream mode, which waits then for its first image; the rest is as with [`Launch::start_dump`].
    ///
    /// # Errors
    /// When a step fails; nothing is left running then.
    pub fn start_restore(
        mut self,
        work: &Path,
        log: &Log,
        announcer: &Path,
        mut options: RestoreOptions,
    ) -> Result<StreamedRestore, CriuError> {
        let directory = self.stream_directory(work, Purpose::Restore, &mut options.images)?;
        let (limit, meter) = (self.limit, Arc::clone(&self.meter));
        let child = self.execute_streaming(work, log, announcer, options.arguments(log.detail()))?;
        StreamedRestore::begin(child, directory, log.clone(), limit, meter)
    }

    fn stream_directory(
        &mut self,
        work: &Path,
        purpose: Purpose,
        images: &mut RawFd,
    ) -> Result<Directory, LaunchError> {
        let failed = |source| LaunchError::Prepare { what: "make CRIU's stream sockets", source };
        let directory = Directory::make(work, purpose).map_err(failed)?;
        if let Some(person) = &self.person {
            directory.hand_to(person).map_err(failed)?;
        }
        *images = self.pass_directory(directory.open().map_err(failed)?);
        Ok(directory)
    }

    fn execute_streaming(
        mut self,
        work: &Path,
        log: &Log,
        announcer: &Path,
        command: Vec<String>,
    ) -> Result<Child, LaunchError> {
        let work = self.pass_work(work)?;
        let mut arguments = self.arguments(work);
        arguments.extend(command);
        arguments.extend(["--action-script".into(), announcer.to_string_lossy().into_owned()]);
        self.execute(&arguments, None, work, log)
    }

    /// Where it works: `work`, or the directory of who it is.
    fn pass_work(&mut self, work: &Path) -> Result<RawFd, LaunchError> {
        let directory = match &self.person {
            Some(person) => open(person.work()?)?,
            None => open(work)?,
        };
        Ok(self.pass_directory(directory.into()))
    }

    /// The command line up to what it is to do.
    fn arguments(&self, work: RawFd) -> Vec<String> {
        let mut arguments = self.bundle.global_arguments(self.seen_directory(), work, self.view.is_some());
        arguments.extend(self.person.is_some().then(|| "--unprivileged".to_owned()));
        arguments
    }

    /// The bundle, as seen from where the worker runs.
    fn seen_directory(&self) -> &Path {
        if self.namespaces.is_some() {
            &self.bundle.inner_dir
        } else {
            &self.bundle.host_dir
        }
    }

    fn execute(
        self,
        arguments: &[String],
        view: Option<String>,
        work: RawFd,
        log: &Log,
    ) -> Result<Child, LaunchError> {
        let unopened = |source| LaunchError::Open { path: log.written().into(), source };
        let log_file = File::create(log.written()).map_err(unopened)?;
        let loader = self.bundle.loader();
        // No PATH: CRIU must not run a program of the container.
        let mut environment = vec!["PATH=/dev/null".to_owned(), "HOME=/".to_owned()];
        environment.extend(view);
        // What it learns about the kernel, where it may write.
        environment.extend(self.person.is_some().then(|| format!("XDG_RUNTIME_DIR=/proc/self/fd/{work}")));
        let program = Program {
            file: open(&loader)?,
            arguments: c_strings(arguments)?,
            environment: c_strings(&environment)?,
        };
        let mut command = Command::new(&loader);
        // What it says before it has a log it says there.
        let said = log_file.try_clone().map_err(unopened)?;
        command.stdin(Stdio::null()).stdout(said).stderr(log_file);
        let mut entry = Entry {
            cgroups: self.cgroups,
            capabilities: mask(&self.capabilities),
            person: self.person.as_ref().map(Person::prepared),
            oom_score_adj: self.oom_score_adj.map(|value| value.to_string()),
            profile: self.profile.map(|name| format!("exec {name}")),
            directory: work,
            fds: self.fds,
            program,
            namespaces: self.namespaces,
        };
        let pid_namespace = entry.namespaces.as_ref().map(Namespaces::pid).transpose()?;
        sys::before_exec(&mut command, move || entry.run());
        spawn(command, pid_namespace).map_err(|source| LaunchError::Start { loader, source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_leads_out_of_a_directory_that_is_passed() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return;
        }
        let parent = tempfile::tempdir().unwrap();
        let inner = parent.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        std::fs::write(inner.join("file"), "").unwrap();
        let description = r#"{"criu_version": "", "loader": "", "libraries": "", "program": ""}"#;
        std::fs::write(parent.path().join("bundle.json"), description).unwrap();
        let bundle = Bundle::open(parent.path(), Path::new("/")).unwrap();
        let mut launch = Launch::new(&bundle, Duration::ZERO);
        let number = launch.pass_directory(File::open(&inner).unwrap().into());
        let passed = PathBuf::from(format!("/proc/self/fd/{number}"));
        assert!(passed.join("file").exists());
        assert!(!passed.join("../inner").exists());
        std::fs::write(passed.join("another"), "").unwrap();
        assert!(inner.join("another").exists());
    }
}
