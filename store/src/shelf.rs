//! Where parts and labels lie.

mod local;
mod objects;
mod registry;

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use fastmig_engine::config::Store as Settings;

pub(crate) use self::objects::Objects;
pub(crate) use self::registry::Registry;
use crate::label::{Label, Part, PushId};
use crate::{Name, Place, StoreError};

/// A place for parts and labels. Each call has a time limit; those that can be repeated are, for a while.
#[async_trait]
pub(crate) trait Shelf: Send + Sync + Debug {
    /// Stores a part of a push.
    async fn put(&self, at: &Slot<'_>, part: &Part, content: Bytes) -> Result<(), StoreError>;

    /// Stores the label, which makes the parts a checkpoint; refused when the name is taken.
    async fn finish(&self, label: &Label) -> Result<(), StoreError>;

    /// Takes back what was stored of a push that has no label.
    async fn discard(&self, name: &Name, push: &PushId) -> Result<(), StoreError>;

    /// The label of a checkpoint.
    async fn label(&self, name: &Name) -> Result<Label, StoreError>;

    /// The content of a part: not more than its size, and not yet compared with its digest.
    async fn get(&self, at: &Slot<'_>, part: &Part) -> Result<Bytes, StoreError>;

    /// The names that checkpoints may have here; some may be of something else.
    async fn names(&self) -> Result<Vec<Name>, StoreError>;

    /// Removes a checkpoint: its label first.
    async fn delete(&self, label: &Label) -> Result<(), StoreError>;

    /// Pushes without a label that nobody has added to for this long.
    async fn leftovers(&self, age: Duration) -> Result<Vec<(Name, PushId)>, StoreError>;
}

/// The place of a part.
#[derive(Debug)]
pub(crate) struct Slot<'a> {
    pub(crate) name: &'a Name,
    pub(crate) push: &'a PushId,
    pub(crate) number: usize,
}

/// The shelf at `place`.
pub(crate) fn open(place: &Place, settings: &Settings) -> Result<Box<dyn Shelf>, StoreError> {
    Ok(match place {
        Place::Directory(path) => Box::new(Objects::directory(place, path, settings)?),
        Place::Bucket { bucket, prefix } => Box::new(Objects::bucket(place, bucket, prefix, settings)?),
        Place::Repository { registry, repository } => {
            Box::new(Registry::open(place, registry, repository, settings)?)
        }
    })
}
