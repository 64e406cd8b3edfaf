//! A container in standby that takes an application in: what CRIU is told, and what is done at its stages.

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use fastmig_control::{Pid, Reply, Request as InitRequest};
use fastmig_criu::{Bundle, Common, ImageSource, InheritedFd, Launch, Notification};

use crate::capabilities::Memory;
use crate::container::Container;
use crate::image::{ImageError, Manifest, Stream};
use crate::inside::{self, Inside};
use crate::tree::application::{self, PID_BASE};
use crate::tree::cgroup::{self, ApplicationCgroup};
use crate::tree::privilege::{Allowed, Filters};
use crate::tree::{apparmor, orphans, privilege};
use crate::{capabilities, ApplicationState, Error};

/// What is taken in, and where.
#[derive(Debug)]
pub(crate) struct Recipient<'a> {
    container: &'a Container,
    cgroup: ApplicationCgroup,
    root: Pid,
    /// The next process gets a number above.
    highest: i32,
    /// That is seen to while CRIU restores.
    numbering: Mutex<Option<JoinHandle<Result<(), Error>>>>,
    /// What the application may have at most, which is read meanwhile.
    allowed: Mutex<Option<JoinHandle<Result<Allowed, Error>>>>,
    filters: Filters,
    /// Images in which a clock is, for a CRIU that leaves it as it is.
    clocks: Mutex<Option<Arc<dyn ImageSource>>>,
}

impl<'a> Recipient<'a> {
    /// Refuses, early and with names, what CRIU would fail on late. `path` is where the manifest comes from.
    pub(crate) fn admit(container: &'a Container, manifest: &Manifest, path: &Path) -> Result<Self, Error> {
        require_free_pids(container, &manifest.pids)?;
        require_capabilities(container, &manifest.capabilities)?;
        if let Some(inside) = Inside::of(container)? {
            inside.require_restorable(container, manifest.tcp, &manifest.capabilities)?;
        }
        let root = Pid::new(manifest.root_pid).map_err(|_| ImageError::Damaged {
            path: path.into(),
            file: crate::image::MANIFEST.into(),
            problem: "names an impossible pid",
        })?;
        let highest = manifest.pids.last().copied().unwrap_or(PID_BASE).max(PID_BASE);
        let filters = Filters::of(container);
        Ok(Self {
            container,
            cgroup: container.application_cgroup()?,
            root,
            highest,
            numbering: Mutex::default(),
            allowed: Mutex::default(),
            filters,
            clocks: Mutex::default(),
        })
    }

    /// The application's root, as the container counts it.
    pub(crate) fn root(&self) -> Pid {
        self.root
    }

    /// `images`, as CRIU is to get them.
    pub(crate) fn watch(&self, images: Arc<dyn ImageSource>) -> Arc<dyn ImageSource> {
        let images = self.filters.watch(images);
        if !inside::is_wanted(self.container) {
            return images;
        }
        let images: Arc<dyn ImageSource> = Arc::new(inside::Bounded(images));
        *self.clocks.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&images));
        images
    }

    /// Whether CRIU may read `images` by itself, where nobody else can change them; otherwise they need [`Recipient::watch`].
    pub(crate) fn may_read(&self, images: &dyn ImageSource) -> Result<bool, Error> {
        Ok(!inside::is_wanted(self.container) && self.filters.fit(images)?)
    }

    /// The init waits for it from here on.
    pub(crate) fn expect(&self) -> Result<(), Error> {
        self.container.init()?.ask(&InitRequest::Expect { pid: self.root }).map(|_| ())
    }

    /// What is due at a stage of CRIU's.
    pub(crate) fn follow(&self, stage: Notification) -> Result<(), String> {
        match stage {
            Notification::SetupNamespaces => {
                self.begin_numbering();
                self.begin_to_read_what_is_allowed();
                self.inherit_orphans().map_err(|e| e.report())
            }
            Notification::PostRestore => self.finish_numbering().map_err(|e| e.report()),
            Notification::PreResume => self
                .verify_privileges()
                .and_then(|()| self.filters.verify(self.container))
                .and_then(|()| self.require_clock())
                .inspect_err(|_| self.kill_before_it_runs())
                .map_err(|e| e.report()),
            _ => Ok(()),
        }
    }

    fn require_clock(&self) -> Result<(), Error> {
        let images = self.clocks.lock().unwrap_or_else(PoisonError::into_inner).take();
        images.map_or(Ok(()), |images| inside::require_clock(self.container, images.as_ref()))
    }

    /// Before anything of it runs: its next fork must get a number that it has not used yet. Restored processes get theirs by
    /// `clone3`, which counts nothing on; whatever else CRIU forks meanwhile takes numbers above.
    fn begin_numbering(&self) {
        let (container, highest) = (self.container.clone(), self.highest);
        let thread = std::thread::spawn(move || container.set_last_pid(highest));
        *self.numbering.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
    }

    fn finish_numbering(&self) -> Result<(), Error> {
        match self.numbering.lock().unwrap_or_else(PoisonError::into_inner).take().map(JoinHandle::join) {
            Some(Ok(numbered)) => numbered,
            _ => self.container.set_last_pid(self.highest),
        }
    }

    fn begin_to_read_what_is_allowed(&self) {
        let container = self.container.clone();
        let thread = std::thread::spawn(move || Allowed::of(&container));
        *self.allowed.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
    }

    fn verify_privileges(&self) -> Result<(), Error> {
        let begun = self.allowed.lock().unwrap_or_else(PoisonError::into_inner).take();
        let allowed = match begun.map(JoinHandle::join) {
            Some(Ok(allowed)) => allowed?,
            _ => Allowed::of(self.container)?,
        };
        privilege::verify(self.container, &allowed, self.host_root())
    }

    /// At CRIU's last stages a refusal comes too late for it: it lets go of what it has restored, killed or not.
    pub(crate) fn kill_before_it_runs(&self) {
        let container = self.container;
        let killed = container.application_cgroup().and_then(|cgroup| {
            cgroup
                .kill_before_it_runs(container.config.limits.freeze())
                .map_err(|e| Error::io("kill what was restored in", cgroup.directory(), e))
        });
        if let Err(e) = killed {
            tracing::error!(container = container.key().id(), error = %e.report(), "what was refused may run");
        }
    }

    /// Before the rest of the tree is forked below it.
    fn inherit_orphans(&self) -> Result<(), Error> {
        let heir = self.host_root().ok_or(io::ErrorKind::NotFound.into()).and_then(orphans::make_heir);
        heir.map_err(|e| Error::io("prepare the restored root in", Path::new("/proc"), e))
    }

    /// The root as the host counts it, once there is one.
    pub(crate) fn host_root(&self) -> Option<i32> {
        application::host_pid_of(self.root.get(), self.cgroup.pids())
    }

    /// It is the init's from here on.
    pub(crate) fn adopt(&self) -> Result<(), Error> {
        let init = self.container.init()?;
        match init.ask(&InitRequest::Adopt)? {
            Reply::Running { .. } => Ok(()),
            other => Err(init.nonsense(&other)),
        }
    }
}

impl Drop for Recipient<'_> {
    /// What sets the number has a child that reports to us: nobody leaves before.
    fn drop(&mut self) {
        if let Some(thread) = self.numbering.lock().unwrap_or_else(PoisonError::into_inner).take() {
            drop(thread.join());
        }
    }
}

/// A CRIU in the right place, not started yet.
pub(crate) fn launch<'a>(
    container: &Container,
    bundle: &'a Bundle,
    memory: Memory,
) -> Result<Launch<'a>, Error> {
    let init = container.pid();
    // Nothing of an application forks now, and CRIU and those that it calls must have numbers that none needs: after the
    // last that lived here, the next ones may be those of the one that comes.
    container.set_last_pid(1)?;
    let launch = Launch::new(bundle, container.config.limits.criu())
        .measured_by(Arc::clone(&container.criu))
        .in_namespaces_of(init)?
        .in_cgroups(&destination_cgroups(container)?)?;
    let launch = match Inside::of(container)? {
        Some(inside) => inside.restores(container, launch)?,
        None => launch
            .with_capabilities(capabilities::for_restore(init, &container.config, memory)?)
            .under_profile(apparmor::for_criu(&container.config, init)),
    };
    Ok(match application::oom_score_adj(init) {
        Some(value) => launch.with_oom_score_adj(value),
        None => launch,
    })
}

impl From<&Manifest> for Common {
    fn from(manifest: &Manifest) -> Self {
        Self {
            tcp: manifest.tcp.into(),
            external_unix_sockets: manifest.external_unix_sockets,
            file_locks: manifest.file_locks,
            shell_job: false,
        }
    }
}

/// Each stream of the image becomes the container's stream of the same number.
pub(crate) fn inherited_streams(
    launch: &mut Launch<'_>,
    init: i32,
    streams: &[Stream],
) -> Result<Vec<InheritedFd>, Error> {
    let mut seen = HashSet::new();
    let mut inherited = Vec::new();
    for stream in streams.iter().filter(|stream| stream.number < 3) {
        if !seen.insert(&stream.key) {
            continue; // stdout and stderr are one
        }
        let fd = application::open_stream(init, stream.number)
            .map_err(|e| Error::io("open a standard stream of", Path::new("/proc"), e))?;
        inherited.push(InheritedFd { key: stream.key.clone(), fd: launch.pass(fd) });
    }
    Ok(inherited)
}

impl Container {
    /// Puts the container back into standby when a restore is under way there and nobody is at it any more; answers whether
    /// it was so. A container that somebody operates on is left alone.
    ///
    /// # Errors
    /// When its state cannot be read.
    pub fn clear_interrupted(&self) -> Result<bool, Error> {
        if !self.is_warm() {
            return Ok(false);
        }
        let _lock = match self.directory.lock(&self.key, std::time::Duration::ZERO) {
            Err(Error::Busy { .. }) => return Ok(false),
            lock => lock?,
        };
        // What is held for a migration is its journal's to decide.
        let record = self.directory.load(&self.key)?;
        if !record.started || record.migration.is_some() || !record.init_mark().runs() {
            return Ok(false);
        }
        let interrupted = self.application()? == ApplicationState::Restoring;
        if interrupted {
            clear(self);
        }
        Ok(interrupted)
    }
}

/// We hold the lock, so a restore that is still under way belongs to someone who was killed.
pub(crate) fn abandon_interrupted(container: &Container) -> Result<(), Error> {
    if container.application()? == ApplicationState::Restoring {
        tracing::warn!(container = container.key().id(), "an interrupted restore is cleared away");
        clear(container);
    }
    Ok(())
}

/// Kills what a failed restore has left and lets the init go back to standby. The first error is the caller's.
pub(crate) fn clear(container: &Container) {
    let killed = container
        .application_cgroup()
        .map(|cgroup| cgroup.kill_all(container.config.limits.freeze()).map_err(|e| e.to_string()));
    if !matches!(killed, Ok(Ok(()))) {
        tracing::error!(
            container = container.key().id(),
            ?killed,
            "what a failed restore left could not be killed"
        );
    }
    if let Err(e) = container.init().and_then(|init| init.ask(&InitRequest::Abandon)) {
        tracing::error!(container = container.key().id(), error = %e.report(), "the init did not go back to standby");
    }
}

/// The cgroups of the container, with the application's own in place of the one that it lies in.
fn destination_cgroups(container: &Container) -> Result<Vec<PathBuf>, Error> {
    let application = container.application_cgroup()?;
    let directory = application.directory().to_path_buf();
    application.make().map_err(|e| Error::io("make", &directory, e))?;
    let parent = directory.parent();
    let all = cgroup::directories_of(container.pid())
        .map_err(|e| Error::io("find the cgroups of", Path::new("/proc"), e))?;
    Ok(all
        .into_iter()
        .map(|group| if Some(group.as_path()) == parent { directory.clone() } else { group })
        .collect())
}

/// CRIU cannot hand on what the container does not allow, and says so in words of its own, or never.
fn require_capabilities(container: &Container, wanted: &BTreeSet<String>) -> Result<(), Error> {
    let allowed = capabilities::names(capabilities::allowed_in(container.pid())?);
    let missing: Vec<&str> = wanted.difference(&allowed).map(String::as_str).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::LacksCapabilities { id: container.key().id().into(), missing: missing.join(", ") })
}

/// A number that someone else has.
fn require_free_pids(container: &Container, wanted: &BTreeSet<i32>) -> Result<(), Error> {
    match taken_numbers(container, wanted)?.into_iter().next() {
        Some((pid, command)) => Err(Error::PidTaken { id: container.key().id().into(), pid, command }),
        None => Ok(()),
    }
}

/// Which of these numbers someone has in the container, and who.
pub(crate) fn taken_numbers(
    container: &Container,
    wanted: &BTreeSet<i32>,
) -> Result<Vec<(i32, String)>, Error> {
    let cgroup = container.application_cgroup()?;
    let all = cgroup.pids_around().map_err(|e| Error::io("list who is around", cgroup.directory(), e))?;
    let taken = all.into_iter().filter_map(|pid| {
        let numbers = application::inner_numbers(&BTreeSet::from([pid]));
        let number = numbers.intersection(wanted).next().copied()?;
        Some((number, application::command_of(pid)))
    });
    Ok(taken.collect())
}
