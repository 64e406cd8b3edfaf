//! How much of the images has travelled.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::chunk::Packed;
use crate::progress::{Event, Progress};

/// How often somebody is told.
const PAUSE: Duration = Duration::from_millis(200);

/// Counts for all connections of a migration.
pub(crate) struct Meter<'a> {
    progress: &'a dyn Progress,
    raw: AtomicU64,
    zero: AtomicU64,
    memory: AtomicU64,
    wire: AtomicU64,
    /// Raw bytes in all; 0 while that is not known.
    expected: AtomicU64,
    told: Mutex<(Instant, u64)>,
}

impl<'a> Meter<'a> {
    pub(crate) fn new(progress: &'a dyn Progress) -> Self {
        Self {
            progress,
            raw: AtomicU64::new(0),
            zero: AtomicU64::new(0),
            memory: AtomicU64::new(0),
            wire: AtomicU64::new(0),
            expected: AtomicU64::new(0),
            told: Mutex::new((Instant::now(), 0)),
        }
    }

    /// A chunk was sent.
    pub(crate) fn count(&self, raw: usize, packed: Packed, wire: usize, is_memory: bool) {
        self.raw.fetch_add(raw as u64, Ordering::Relaxed);
        self.zero.fetch_add(packed.zero as u64, Ordering::Relaxed);
        self.wire.fetch_add(wire as u64, Ordering::Relaxed);
        if is_memory {
            self.memory.fetch_add(raw as u64, Ordering::Relaxed);
        }
        self.tell();
    }

    /// So much memory is still to come.
    pub(crate) fn expect(&self, memory: u64) {
        self.expected.store(self.raw() + memory, Ordering::Relaxed);
    }

    pub(crate) fn raw(&self) -> u64 {
        self.raw.load(Ordering::Relaxed)
    }

    pub(crate) fn zero(&self) -> u64 {
        self.zero.load(Ordering::Relaxed)
    }

    pub(crate) fn memory(&self) -> u64 {
        self.memory.load(Ordering::Relaxed)
    }

    fn tell(&self) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let (when, before) = *told;
        let pause = when.elapsed();
        if pause < PAUSE {
            return;
        }
        let raw = self.raw();
        *told = (Instant::now(), raw);
        drop(told);
        let rate = u128::from(raw.saturating_sub(before)) * 1000 / pause.as_millis().max(1);
        let expected = self.expected.load(Ordering::Relaxed);
        self.progress.event(Event::Bytes {
            raw,
            wire: self.wire.load(Ordering::Relaxed),
            expected: (expected > 0).then_some(expected),
            rate: u64::try_from(rate).unwrap_or(u64::MAX),
        });
    }
}
