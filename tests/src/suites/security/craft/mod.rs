//! Checkpoints made hostile: a real one is copied, changed where somebody might, and made consistent again, so that what
//! refuses it must have understood it.

mod archive;
mod checkpoint;
mod message;
mod stored;

pub(super) use archive::Archive;
pub(super) use checkpoint::{remove, Checkpoint, ROOT};
pub(super) use message::{Message, Value};
pub(super) use stored::{Entry, Stored, PART};
