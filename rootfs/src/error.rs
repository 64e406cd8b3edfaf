//! What can go wrong with a root file system.

use std::io;
use std::path::{Path, PathBuf};

/// Why files could not be packed or put back.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What was written cannot be told from the image.
    #[error("the root file system is {kind}, not an overlay: what changed in it cannot be told from the image; carry its files along by a volume")]
    NoOverlay {
        /// The file system.
        kind: String,
    },
    /// The overlay is mounted with an option that hides where things are.
    #[error("{path:?} in the root file system was moved or changed by reference ({attribute}): mount overlays with redirect_dir=off,metacopy=off")]
    ByReference {
        /// The path.
        path: PathBuf,
        /// The overlay's extended attribute.
        attribute: String,
    },
    /// An archive is not what a packer writes.
    #[error("the archive of files is damaged: {path:?} {problem}")]
    Damaged {
        /// The entry.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The image below the overlay is not to be found.
    #[error(
        "the image below the root file system cannot be found: its layers ({lower:?} ...) are not there"
    )]
    NoImage {
        /// Some of its layers.
        lower: Vec<PathBuf>,
    },
    /// A list of volumes is none.
    #[error("{text:?} names no volumes: {problem}")]
    BadVolumes {
        /// How it begins.
        text: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Nothing is mounted where a volume should be.
    #[error("no volume is mounted at {:?} in this container: create it with one, name a directory of the host in fastmig.dev/volumes, or let it not travel", Path::new("/").join(.path))]
    NoVolume {
        /// Where, relative to the root.
        path: PathBuf,
    },
    /// A path that no call takes.
    #[error("below {path:?} directories lie too deep: a path may have 4095 bytes; delete or move them, or carry them along by a volume")]
    TooDeep {
        /// Where they begin.
        path: PathBuf,
    },
    /// What a file is marked with does not fit beside it.
    #[error(
        "{path:?} has more than 512 KiB of extended attributes: remove some, or carry it along by a volume"
    )]
    TooManyAttributes {
        /// The file.
        path: PathBuf,
    },
    /// A directory on the way is something else here.
    #[error("cannot put {path:?} back: a part of its path is a symbolic link or a mount in this container; create it from the same image, with the same mounts")]
    OtherPath {
        /// The path.
        path: PathBuf,
    },
    /// A file operation failed.
    #[error("could not {action} {path:?}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Error {
    /// For `map_err`.
    pub(crate) fn io<E: Into<io::Error>>(action: &'static str, path: &Path) -> impl FnOnce(E) -> Self {
        let path = path.to_path_buf();
        move |e| Self::Io { action, path, source: e.into() }
    }
}
