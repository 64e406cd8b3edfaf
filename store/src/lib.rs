//! Checkpoints at rest: in a directory, as an OCI artefact in a registry, in an S3-compatible object store.
//!
//! A checkpoint is a directory that the engine has made. Here it becomes a tar archive, compressed with zstd and, when
//! asked for, encrypted with age; what comes out is cut into parts that are stored one by one while the next are made.
//! Last comes the label, which lists the parts with their digests: what has no label is no checkpoint. Nothing of it lies
//! on a disk on its way, and memory holds a few parts. Whoever has the parts can do without us:
//! `cat PARTS | age -d -i IDENTITY | zstd -d | tar x`.
//!
//! | file | what it does |
//! |---|---|
//! | [`location`] | `s3://BUCKET/PREFIX/NAME` and its like: a place, and the name of a checkpoint there |
//! | [`name`] | names that are good everywhere |
//! | [`Store`] | the operations: push, pull, list, delete, keep, prune |
//! | `archive` | a directory to a stream and back |
//! | `codec` | compression and encryption of the stream |
//! | `parts` | the stream cut into parts, and put together again |
//! | [`label`] | what makes parts a checkpoint |
//! | `shelf` | where parts and labels lie: `objects` (directory, S3) and `registry` |
//! | `credentials` | the secrets that the settings name |
//! | [`error`] | what can go wrong, and what to do |

#![forbid(unsafe_code)]

mod archive;
mod codec;
mod credentials;
pub mod error;
pub mod label;
pub mod location;
pub mod name;
mod parts;
mod shelf;
mod store;

pub use error::StoreError;
pub use label::Label;
pub use location::{Location, Place};
pub use name::Name;
pub use store::{Pulled, Push, Pushed, Store};
