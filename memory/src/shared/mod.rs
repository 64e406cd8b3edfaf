//! Shared memory, over rounds: mapped without a file, and memfds.
//!
//! Any of many may write to it, and in ways that no page table tells of: by write(2), by a mapping that is gone by now, in a
//! process that lived between two rounds. So nothing is believed but its content: of each page that was sent a hash is kept,
//! taken of the very bytes that went, and what hashes otherwise now is sent again. In the freeze that takes some 100 ms per GiB
//! and processor, and several work at it. Where page tables tell of every write, only what was written is looked at then.
//!
//! | file | what it does |
//! |---|---|
//! | `find` | which there are in a tree |
//! | `object` | one of them: what was sent, what is to be |
//! | `watched` | what was written of it, by the page tables of all who map it |
//! | `sending` | its pages, read and their hashes kept |
//! | `hashes` | the content of all, for comparing two trees |

mod find;
mod hashes;
mod object;
mod sending;
mod watched;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::spans::Spans;
use crate::{Process, Span, Tracker};
use find::Place;
use object::Object;

pub use hashes::{shared_hashes, SharedContent};
pub use sending::SharedReader;
pub use watched::Births;

/// Those with less in them are not worth it: CRIU dumps them as fast.
const MIN_POPULATED: u64 = 256 << 10;
/// More are left: CRIU's view has room for some thousands.
const MOST: usize = 1000;

/// Keeps track of what was sent of the shared memory of a tree. Changes nothing about the processes.
#[derive(Debug, Default)]
pub struct SharedTracker {
    /// By their inodes: all are of one device.
    objects: BTreeMap<u64, Object>,
    /// Those that are left to CRIU for good: they were gone, or had another size.
    left: BTreeSet<u64>,
    next: u32,
}

/// One piece of shared memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedArea {
    /// Which, for this tracker.
    pub number: u32,
    /// The device, as `stat` tells it.
    pub device: u64,
    /// The inode.
    pub inode: u64,
    /// Its size in bytes, which is made of whole pages. Without a file: up to where it is mapped.
    pub size: u64,
    /// The name of a memfd, as its maker gave it; empty where there is no file.
    pub name: Vec<u8>,
}

/// Pages of one piece of shared memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedPages {
    /// Its number.
    pub number: u32,
    /// Offsets, sorted and disjoint.
    pub spans: Vec<Span>,
}

/// What there is to send of shared memory.
#[derive(Debug, Default)]
pub struct SharedRound {
    /// All that is tracked now. What was sent for another is void. In the freeze: that of which the receiver has all then.
    pub areas: Vec<SharedArea>,
    /// To be read and sent, by `readers` alone.
    pub pages: Vec<SharedPages>,
    /// Sent earlier, and not there any more: zeros. Never also in `pages`.
    pub forgotten: Vec<SharedPages>,
    /// The content of `pages`, by number.
    pub readers: BTreeMap<u32, Arc<SharedReader>>,
    /// How long looking took.
    pub scan: Duration,
    /// In the freeze: bytes of which page tables said what was written.
    pub watched: u64,
}

/// Bytes of what these processes share that a [`SharedTracker`] would tell to send.
#[must_use]
pub fn shared_length(processes: &[Process]) -> u64 {
    let objects =
        find::everywhere(processes).into_iter().filter_map(|(inode, place)| Object::open(0, inode, place));
    objects.filter_map(|object| object.populated().ok()).filter(|there| *there >= MIN_POPULATED).sum()
}

impl SharedTracker {
    /// Looks at what the running processes share: what is to be read and sent.
    ///
    /// What was read by the readers of the round before counts as sent, and nothing else: the receiver must have got it.
    ///
    /// With the `tracker` of the same processes, which has looked at them right before, writes are watched from here on;
    /// `births` is of a time before the processes were listed.
    pub fn round(&mut self, processes: &[Process], tracker: Option<(&mut Tracker, Births)>) -> SharedRound {
        let begun = Instant::now();
        let (places, mappers) = find::everywhere_by(processes);
        let gone: Vec<u64> =
            self.objects.keys().filter(|inode| !places.contains_key(*inode)).copied().collect();
        gone.into_iter().for_each(|inode| self.leave(inode));
        for (inode, place) in places {
            self.consider(inode, place);
        }
        if let Some((tracker, births)) = tracker {
            for (inode, object) in &mut self.objects {
                // Before it is looked at: what is written meanwhile is seen by both, or by one.
                object.watch(tracker, mappers.get(inode).map_or(&[], Vec::as_slice), births);
            }
        }
        let mut round = SharedRound::default();
        self.look(&mut round, object::Pace::Slow, &BTreeMap::new());
        round.scan = begun.elapsed();
        round
    }

    /// Looks at what the same processes share, which the caller has frozen. What has changed its size, or is of no process any
    /// more, is not among what is told.
    pub fn last(&mut self, processes: &[Process], tracker: Option<(&Tracker, Births)>) -> SharedRound {
        let begun = Instant::now();
        let (mut places, mappers) = find::mapped(processes);
        let is_open = |(inode, object): (&u64, &Object)| places.contains_key(inode) || object.is_still_open();
        if !self.objects.iter().all(is_open) {
            // Whoever had it open has ended: another may have it.
            places = find::everywhere(processes);
        }
        let kept = |inode: &u64, object: &Object| match places.get(inode) {
            Some(place) => object.is_at(place),
            None => object.is_still_open(),
        };
        let changed: Vec<u64> =
            self.objects.iter().filter(|(inode, object)| !kept(inode, object)).map(|(i, _)| *i).collect();
        changed.into_iter().for_each(|inode| self.leave(inode));
        let mut written = BTreeMap::new();
        let mut round = SharedRound::default();
        if let Some((tracker, births)) = tracker {
            for (inode, object) in &self.objects {
                let now = mappers.get(inode).map_or(&[][..], Vec::as_slice);
                if let Some(spans) = object.written(tracker, now, births) {
                    round.watched += object.area().size;
                    written.insert(*inode, spans);
                }
            }
        }
        self.look(&mut round, object::Pace::Fast, &written);
        round.scan = begun.elapsed();
        round
    }

    fn leave(&mut self, inode: u64) {
        if let Some(object) = self.objects.remove(&inode) {
            tracing::debug!(area = ?object.area(), "shared memory is left to CRIU");
        }
        self.left.insert(inode);
    }

    fn consider(&mut self, inode: u64, place: Place) {
        if let Some(object) = self.objects.get_mut(&inode) {
            if object.is_at(&place) {
                object.move_to(place);
            } else {
                self.leave(inode);
            }
            return;
        }
        if self.left.contains(&inode) || self.objects.len() >= MOST {
            return;
        }
        let worth = |object: &Object| object.populated().is_ok_and(|there| there >= MIN_POPULATED);
        if let Some(object) = Object::open(self.next, inode, place).filter(worth) {
            self.next += 1;
            self.objects.insert(inode, object);
        }
    }

    fn look(&mut self, round: &mut SharedRound, pace: object::Pace, written: &BTreeMap<u64, Spans>) {
        let mut failed = Vec::new();
        for (inode, object) in &mut self.objects {
            let found = match object.look(pace, written.get(inode)) {
                Ok(found) => found,
                Err(e) => {
                    tracing::warn!(inode, error = %e, "shared memory cannot be read");
                    failed.push(*inode);
                    continue;
                }
            };
            let number = object.area().number;
            let pages = |spans: &Spans| SharedPages { number, spans: spans.clone().into_vec() };
            if !found.forgotten.is_empty() {
                round.forgotten.push(pages(&found.forgotten));
            }
            if !found.send.is_empty() {
                round.pages.push(pages(&found.send));
                round.readers.insert(number, object.reader(&found.send));
            }
            round.areas.push(object.area().clone());
        }
        failed.into_iter().for_each(|inode| self.leave(inode));
    }
}
