//! The memory of a checkpoint at rest, taken in rounds while the application runs: only what it has written last is taken in the
//! freeze, and only what the checkpoint before has not is written.
//!
//! Beside CRIU's images, which know nothing of that memory, a directory then holds
//!
//! * content files, `memory-NUMBER.pages`, whose pages nobody changes once the checkpoint is whole, each with the BLAKE3 hashes
//!   of its pages, `memory-NUMBER.hashes`;
//! * `memory.map`, which says which page of which process lies where.
//!
//! A page that the checkpoint before has at the same address with the same hash is not written again: that one's content files
//! become files of the new checkpoint as well, by hard links. So each directory is complete by itself, and none needs another.
//! A file of which less than half is still in use goes, and what is in use of it moves into the new one.
//!
//! Nothing is tracked between two checkpoints: who compares hashes needs nobody who lives on.
//!
//! | file | what it does |
//! |---|---|
//! | `take` | a checkpoint by rounds, step by step |
//! | `pace` | whether another round pays |
//! | `capture` | rounds read, hashed, compared and written |
//! | `ledger` | which page lies where, over the rounds |
//! | `base` | the checkpoint before |
//! | `finish` | what is left over goes, the map is written |
//! | `content`, `map` | the files |
//! | `fill` | a restore: what the files have goes into the memory that waits in CRIU |
//! | `later` | what of it can come when the application runs already |
//! | `verify` | whether the files have what the application had |

mod base;
mod capture;
mod content;
mod fill;
mod finish;
mod later;
mod ledger;
mod map;
mod pace;
mod take;
mod verify;

pub(crate) use content::is_pages;
pub(crate) use fill::{fill, Coming, Images};
pub(crate) use take::take;

/// Bytes of a page.
const PAGE: u64 = 4096;
/// The same, as lengths in our own memory are counted.
const PAGE_BYTES: usize = 4096;

/// Bytes that are read, hashed and written at a time.
const STEP: u64 = 1 << 20;
/// The same, as lengths in our own memory are counted.
const STEP_BYTES: usize = 1 << 20;
