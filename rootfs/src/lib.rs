//! What an application changed in its root file system: found, packed, and put back elsewhere.
//!
//! A container's root is an overlay: what was written since its creation lies in the overlay's upper directory. [`Packer`]
//! packs that directory, first while the application runs and then, frozen, what has changed since. [`unpack()`] puts it
//! into another container of the same image, through that container's own view, for a mounted overlay's directories must
//! not be changed behind its back.
//!
//! | file | what it does |
//! |---|---|
//! | `volumes` | which of the volumes travel along |
//! | `view` | a process's root: its upper directory, and what is mounted over it |
//! | `walk` | the upper directory, entry by entry, by descriptors |
//! | `mapped` | the files that processes change without a trace |
//! | `pack` | entries that are new since the last time become an archive |
//! | `extents` | where a file has data, and where holes |
//! | `names` | the paths in an archive, and what else is said of one |
//! | `members` | an archive's members, within limits |
//! | `unpack` | an archive becomes files again (`make`); after a container's first one, `mirror` takes away what the source has not |
//! | `layers` | the image below the root |
//! | `survey` | what travels and what does not, told beforehand |
//! | `error` | what can go wrong |
//!
//! The archive is a tar file under lz4, but not a layer of an OCI image: what was deleted, a directory that hides the
//! image's, and the archive's end are entries with a record of ours (`FASTMIG.mark`), so that no file name, not even
//! `.wh.NAME`, has a meaning.
//!
//! Both sides are hostile: the application may move directories while they are read, and an archive may name any path. So
//! no path is followed but by descriptors, below the root, on one file system and without symbolic links.

#![forbid(unsafe_code)]

mod error;
mod extents;
mod layers;
mod mapped;
mod members;
mod names;
mod pack;
mod survey;
mod unpack;
mod view;
mod volumes;
mod walk;

#[cfg(test)]
mod tests;

pub use error::Error;
pub use pack::Packer;
pub use survey::{Content, Mounted, Room, Survey};
pub use unpack::unpack;
pub use volumes::Volumes;

/// What was packed or put back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Files, directories, links and deletions.
    pub entries: u64,
    /// Bytes of file content.
    pub bytes: u64,
    /// What cannot travel: device nodes. Sockets are made anew by whoever listens on them and do not count.
    pub skipped: u64,
}
