//! What a dump is of: an application, what CRIU is told of it, and what is written down of it.

use std::collections::BTreeSet;
use std::os::fd::RawFd;
use std::path::Path;
use std::sync::Arc;

use fastmig_criu::{Bundle, Common, DumpOptions, Launch};

use crate::container::Container;
use crate::files::open_directory;
use crate::image::{self, Manifest, Stream};
use crate::inside::{Inside, Lent};
use crate::start_options::TcpPolicy;
use crate::state::{ApplicationState, Record};
use crate::tree::cgroup::ApplicationCgroup;
use crate::tree::{apparmor, application, privilege};
use crate::{capabilities, Error};

/// What CRIU may take on that a restore must know of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    pub(crate) tcp: TcpPolicy,
    pub(crate) external_unix_sockets: bool,
    pub(crate) file_locks: bool,
}

impl From<Terms> for Common {
    fn from(terms: Terms) -> Self {
        Self {
            tcp: terms.tcp.into(),
            external_unix_sockets: terms.external_unix_sockets,
            file_locks: terms.file_locks,
            shell_job: false,
        }
    }
}

/// An application that runs, and is to be dumped.
#[derive(Debug)]
pub(crate) struct Subject {
    pub(crate) container: Container,
    pub(crate) bundle: Bundle,
    pub(crate) cgroup: ApplicationCgroup,
    /// Its root, as the container counts it.
    pub(crate) root: i32,
    pub(crate) terms: Terms,
    /// Who CRIU is, where it is no helper of the host's.
    pub(crate) inside: Option<Inside>,
    _lent: Option<Lent>,
}

impl Subject {
    /// The application of a container.
    pub(crate) fn of(container: &Container, terms: Terms) -> Result<Self, Error> {
        let Ok(root) = container.init()?.status()?.state.running() else {
            return Err(container.wrong_state("checkpoint", ApplicationState::Standby));
        };
        let (inside, cgroup) = (Inside::of(container)?, container.application_cgroup()?);
        let lent = match &inside {
            Some(inside) => {
                inside.require_simple(container, terms.tcp, &cgroup.pids())?;
                Some(Lent::to(inside, &cgroup)?)
            }
            None => None,
        };
        Ok(Self {
            container: container.clone(),
            bundle: container.criu_bundle()?,
            cgroup,
            root: root.get(),
            terms,
            inside,
            _lent: lent,
        })
    }

    /// CRIU dumps what is below the root, and nothing is to be lost in silence.
    pub(crate) fn require_whole_tree(&self, processes: &BTreeSet<i32>) -> Result<(), Error> {
        let root = application::host_pid_of(self.root, processes.iter().copied());
        let tree = root.map(application::tree_of).unwrap_or_default();
        match processes.iter().find(|pid| !tree.contains(pid) && !application::is_zombie(**pid)) {
            None => Ok(()),
            Some(&pid) => Err(Error::Astray {
                id: self.container.key().id().into(),
                command: application::command_of(pid),
            }),
        }
    }

    /// The container's standard streams that lie outside it.
    pub(crate) fn streams(&self) -> Result<Vec<Stream>, Error> {
        application::streams(self.container.pid())
            .map_err(|e| Error::io("read the streams of", Path::new("/proc"), e))
    }

    /// What a restore must know, but for CRIU's files.
    pub(crate) fn describe(&self, record: &Record, processes: &BTreeSet<i32>) -> Result<Manifest, Error> {
        Ok(Manifest {
            format: image::FORMAT,
            created: crate::clock::now(),
            image: record.image.clone(),
            command: record.command.clone(),
            criu_version: self.bundle.version().into(),
            kernel: kernel_release(),
            architecture: std::env::consts::ARCH.into(),
            cpu_features: image::cpu_features(),
            stdio: self.streams()?,
            terminal: record.terminal,
            root_pid: self.root,
            pids: application::inner_numbers(processes),
            tcp: self.terms.tcp,
            external_unix_sockets: self.terms.external_unix_sockets,
            file_locks: self.terms.file_locks,
            capabilities: capabilities::names(privilege::held_by(processes)),
            files: Vec::new(),
        })
    }

    /// A CRIU in the right place, not started yet.
    pub(crate) fn launch(&self) -> Result<Launch<'_>, Error> {
        let launch = Launch::new(&self.bundle, self.container.config.limits.criu())
            .measured_by(Arc::clone(&self.container.criu))
            .in_namespaces_of(self.container.pid())?;
        if let Some(inside) = &self.inside {
            return inside.dumps(&self.container, launch);
        }
        Ok(launch
            .with_capabilities(capabilities::for_dump(&self.container.config))
            .under_profile(apparmor::for_criu(&self.container.config, self.container.pid())))
    }

    /// What it is to do, with images in its descriptor `images`.
    pub(crate) fn options(
        &self,
        launch: &mut Launch<'_>,
        images: RawFd,
        leave_stopped: bool,
    ) -> Result<DumpOptions, Error> {
        let external = self.streams()?.into_iter().map(|s| s.key).filter(|key| key.starts_with("tty["));
        let config = &self.container.config;
        Ok(DumpOptions {
            pid: self.root,
            images,
            freezer: Some(launch.pass(open_directory(self.cgroup.directory())?)),
            external: external.collect(),
            common: self.terms.into(),
            ghost_limit: config.checkpoint.ghost_limit,
            freeze_timeout: u32::try_from(config.limits.freeze).unwrap_or(u32::MAX),
            leave_stopped,
        })
    }
}

pub(crate) fn kernel_release() -> String {
    nix::sys::utsname::uname().map(|names| names.release().to_string_lossy().into_owned()).unwrap_or_default()
}
