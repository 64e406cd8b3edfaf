//! What the destination must know before the application stops.

use serde::{Deserialize, Serialize};

use crate::image::{Manifest, Stream};
use crate::start_options::TcpPolicy;

/// With it the destination's CRIU is started ahead of the freeze. The manifest that follows must say the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ticket {
    /// CRIU's names of the files that are the container's standard streams.
    pub stdio: Vec<Stream>,
    /// Whether they are a terminal.
    pub terminal: bool,
    /// What becomes of established TCP connections.
    pub tcp: TcpPolicy,
    /// Whether unix sockets to the outside are allowed.
    pub external_unix_sockets: bool,
    /// Whether file locks are dumped.
    pub file_locks: bool,
}

impl Ticket {
    /// Whether `manifest` is of the same application, under the same terms.
    pub(crate) fn covers(&self, manifest: &Manifest) -> bool {
        *self == Self::of(manifest)
    }

    pub(crate) fn of(manifest: &Manifest) -> Self {
        Self {
            stdio: manifest.stdio.clone(),
            terminal: manifest.terminal,
            tcp: manifest.tcp,
            external_unix_sockets: manifest.external_unix_sockets,
            file_locks: manifest.file_locks,
        }
    }
}
