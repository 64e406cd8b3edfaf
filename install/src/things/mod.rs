//! What is installed, one file each. A new thing is a file here and an entry in [`THINGS`].

pub(crate) mod apparmor;
mod containerd;
mod docker;
mod podman;
mod programs;
mod service;
mod settings;
mod source;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::consumer::Consumer;
use crate::{Error, Site};

pub use source::Source;

/// What is installed; also the name of it in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Thing {
    /// The programs, the init and CRIU.
    Programs,
    /// FastMig's own settings.
    Settings,
    /// The daemon's systemd unit.
    Service,
    /// Profiles of AppArmor.
    AppArmor,
    /// containerd's handlers for Kubernetes.
    Containerd,
    /// docker's runtime.
    Docker,
    /// podman's runtime.
    Podman,
}

/// All, in the order in which they are installed: what a configuration names is there before it is named.
pub(crate) const THINGS: &[Thing] = &[
    Thing::Programs,
    Thing::Settings,
    Thing::Service,
    Thing::AppArmor,
    Thing::Containerd,
    Thing::Docker,
    Thing::Podman,
];

/// What one thing wants to be there.
#[derive(Debug, Default)]
pub(crate) struct Part {
    pub(crate) files: Vec<Wanted>,
    /// Why something is left alone.
    pub(crate) notes: Vec<String>,
    /// The service that reads the files when it starts.
    pub(crate) restart: Option<&'static str>,
}

/// A file as it should be.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) path: PathBuf,
    /// Nothing for a directory.
    pub(crate) content: Option<Vec<u8>>,
    /// For a file that is not there yet.
    pub(crate) mode: u32,
    /// Who must agree.
    pub(crate) consumer: Option<Consumer>,
}

impl Part {
    /// Nothing, and why.
    pub(crate) fn left_alone(note: impl Into<String>) -> Self {
        Self { notes: vec![note.into()], ..Self::default() }
    }
}

/// Answers a file's text without our own lines.
pub(crate) type Eraser = fn(&Path, &str) -> Result<String, Error>;

impl Thing {
    pub(crate) fn part(self, site: &Site, source: &Source) -> Result<Part, Error> {
        match self {
            Self::Programs => programs::part(site, source),
            Self::Settings => settings::part(site),
            Self::Service => service::part(site, source),
            Self::AppArmor => apparmor::part(site),
            Self::Containerd => containerd::part(site, source),
            Self::Docker => docker::part(site, source),
            Self::Podman => Ok(podman::part(site, source)),
        }
    }

    /// What takes our own lines out of a file that others write, too; nothing when its files are all ours.
    pub(crate) fn eraser(self) -> Option<Eraser> {
        match self {
            Self::Containerd => Some(containerd::without_ours),
            Self::Docker => Some(docker::without_ours),
            Self::Programs | Self::Settings | Self::Service | Self::AppArmor | Self::Podman => None,
        }
    }

    /// Whether its files are text that an operator reads.
    pub(crate) fn is_configuration(self) -> bool {
        self != Self::Programs
    }

    /// The service that has read its files.
    pub(crate) fn service(self) -> Option<&'static str> {
        match self {
            Self::Containerd => Some(containerd::SERVICE),
            Self::Docker => Some(docker::SERVICE),
            Self::Programs | Self::Settings | Self::Service | Self::AppArmor | Self::Podman => None,
        }
    }
}
