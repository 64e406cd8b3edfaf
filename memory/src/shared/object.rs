//! One piece of shared memory: what the receiver has of it, and what it is to get.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, SeekFrom};

use super::find::{self, Mapper, Place};
use super::sending::{hash, read_pages, SharedReader};
use super::watched::{Births, Watched};
use super::SharedArea;
use crate::spans::Spans;
use crate::{parallel, Span, Tracker, PAGE, PAGE_BYTES};

/// Larger ones are left: of each page that could be there a word is kept.
const MAX_SIZE: u64 = 1 << 40;
/// The receiver has nothing of a page: zeros.
const NOTHING: u64 = 0;
/// Nobody knows what it has.
pub(super) const UNKNOWN: u64 = 1;

/// How it is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    /// By one thread: its processes run.
    Slow,
    /// By several: they stand still.
    Fast,
}

/// What a look has found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) send: Spans,
    pub(super) forgotten: Spans,
}

#[derive(Debug)]
pub(super) struct Object {
    area: SharedArea,
    place: Place,
    file: Arc<File>,
    /// Of each page: a hash of what the receiver has, [`NOTHING`] or [`UNKNOWN`].
    held: Vec<u64>,
    /// Where it has something.
    sent: Spans,
    /// What is being sent of it.
    reader: Option<Arc<SharedReader>>,
    /// Since before it was looked at the last time.
    watched: Option<Watched>,
}

impl Object {
    /// Nothing where it cannot be opened, is another by now, or cannot be told to CRIU.
    pub(super) fn open(number: u32, inode: u64, place: Place) -> Option<Self> {
        // Not opened before it is known what it is: a process may have put a pipe in its place, say.
        let found = rustix::fs::open(&place.path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
        let own = PathBuf::from(format!("/proc/self/fd/{}", found.as_raw_fd()));
        let status = std::fs::metadata(&own).ok()?;
        // CRIU counts a memfd by 32 bits of its inode.
        let ours = status.ino() == inode && Some(status.dev()) == find::device() && inode <= u32::MAX.into();
        let size = place.end.unwrap_or(status.len());
        let fits = (1..=MAX_SIZE.min(status.len())).contains(&size) && size % PAGE == 0;
        if !ours || !fits {
            return None;
        }
        let name = find::name(&own, &place)?;
        let file = File::open(&own).ok()?;
        let area = SharedArea { number, device: status.dev(), inode, size, name };
        let held = vec![NOTHING; usize::try_from(size / PAGE).ok()?];
        let sent = Spans::default();
        Some(Self { area, place, file: Arc::new(file), held, sent, reader: None, watched: None })
    }

    pub(super) fn area(&self) -> &SharedArea {
        &self.area
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Whether it is what is found at `place`, as large as it was.
    pub(super) fn is_at(&self, place: &Place) -> bool {
        let length = self.file.metadata().map(|status| status.len());
        let size = place.end.map_or(length.ok(), Some);
        self.place.end.is_some() == place.end.is_some() && size == Some(self.area.size)
    }

    pub(super) fn move_to(&mut self, place: Place) {
        self.place = place;
    }

    /// Whether it still is where it was found, as large as it was; for what nobody maps.
    pub(super) fn is_still_open(&self) -> bool {
        let same = |status: std::fs::Metadata| {
            (status.dev(), status.ino(), status.len()) == (self.area.device, self.area.inode, self.area.size)
        };
        self.place.end.is_none() && std::fs::metadata(&self.place.path).is_ok_and(same)
    }

    /// Bytes that are in memory or swap.
    pub(super) fn populated(&self) -> io::Result<u64> {
        data(&self.file, self.area.size).map(|spans| spans.length())
    }

    /// Compares what there is with what the receiver has; from here on, `send` counts as on its way. When it is known what was
    /// `written` since the last time, nothing else is read.
    pub(super) fn look(&mut self, pace: Pace, written: Option<&Spans>) -> io::Result<Found> {
        self.note_what_was_read();
        let populated = data(&self.file, self.area.size)?;
        let doubtful = match written {
            Some(written) => written.union(&self.unknown()).and(&populated),
            None => populated.clone(),
        };
        let steps: Vec<Span> = doubtful.iter().flat_map(steps).collect();
        let hashed = hash_steps(&self.file, &steps, pace);
        let zeros = hash(&[0; PAGE_BYTES]);
        let mut send = Spans::default();
        for (step, hashes) in steps.iter().zip(hashed) {
            for (page, hash) in (step.start..).step_by(PAGE_BYTES).zip(hashes?) {
                let Some(held) = self.held.get_mut(index(page)) else { continue };
                if *held != hash && (*held, hash) != (NOTHING, zeros) {
                    *held = UNKNOWN;
                    send.append(Span { start: page, end: page + PAGE });
                }
            }
        }
        let forgotten = self.sent.without(&populated);
        for page in forgotten.iter().flat_map(|span| (span.start..span.end).step_by(PAGE_BYTES)) {
            if let Some(held) = self.held.get_mut(index(page)) {
                *held = NOTHING;
            }
        }
        self.sent = self.sent.without(&forgotten).union(&send);
        Ok(Found { send, forgotten })
    }

    /// What was to be sent, and of which nobody knows whether it arrived.
    fn unknown(&self) -> Spans {
        let pages = self.sent.iter().flat_map(|span| (span.start..span.end).step_by(PAGE_BYTES));
        let unknown = pages.filter(|page| self.held.get(index(*page)).is_none_or(|held| *held == UNKNOWN));
        unknown.map(|page| Span { start: page, end: page + PAGE }).collect()
    }

    /// Watches what is written from here on, if all of it can be seen.
    pub(super) fn watch(&mut self, tracker: &mut Tracker, mappers: &[Mapper], births: Births) {
        // One mapping of ours at a time.
        self.watched = None;
        let populated = data(&self.file, self.area.size).unwrap_or_default();
        self.watched = Watched::begin(tracker, mappers, births, &self.file, populated);
    }

    /// What was written since it was watched; nothing where that is not known.
    pub(super) fn written(&self, tracker: &Tracker, mappers: &[Mapper], births: Births) -> Option<Spans> {
        self.watched.as_ref()?.written(tracker, mappers, births)
    }

    /// Reads `pages`, which count as sent with what is read.
    pub(super) fn reader(&mut self, pages: &Spans) -> Arc<SharedReader> {
        let reader = Arc::new(SharedReader::new(Arc::clone(&self.file), pages));
        self.reader = Some(Arc::clone(&reader));
        reader
    }

    fn note_what_was_read(&mut self) {
        let Some(reader) = self.reader.take() else { return };
        for (page, hash) in reader.was_read() {
            if let Some(held) = self.held.get_mut(index(page)) {
                *held = hash;
            }
        }
    }
}

fn index(page: u64) -> usize {
    usize::try_from(page / PAGE).unwrap_or(usize::MAX)
}

/// The hashes of the pages of each step.
pub(super) fn hash_steps(file: &File, steps: &[Span], pace: Pace) -> Vec<io::Result<Vec<u64>>> {
    match pace {
        Pace::Slow => steps.iter().map(|step| hashes(file, *step)).collect(),
        Pace::Fast => parallel::map(steps, |step| hashes(file, *step)),
    }
}

/// Parts of a span that one thread reads.
pub(super) fn steps(span: Span) -> impl Iterator<Item = Span> {
    const STEP: u64 = 1 << 20;
    let starts = (span.start..span.end).step_by(1 << 20);
    starts.map(move |start| Span { start, end: span.end.min(start + STEP) })
}

fn hashes(file: &File, step: Span) -> io::Result<Vec<u64>> {
    // Small enough to stay in a processor's cache.
    const AT_ONCE: usize = 64 << 10;
    let mut buffer = vec![0; AT_ONCE];
    let mut hashes = Vec::new();
    let mut at = step.start;
    while at < step.end {
        let length = usize::try_from(step.end - at).unwrap_or(AT_ONCE).min(AT_ONCE);
        read_pages(file, at, &mut buffer[..length])?;
        hashes.extend(buffer[..length].chunks(PAGE_BYTES).map(hash));
        at += length as u64;
    }
    Ok(hashes)
}

/// Where the first `size` bytes of a file have content.
pub(super) fn data(file: &File, size: u64) -> io::Result<Spans> {
    let mut found = Spans::default();
    let mut at = 0;
    while at < size {
        let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(rustix::io::Errno::NXIO) => break,
            Err(e) => return Err(e.into()),
        };
        let end = match rustix::fs::seek(file, SeekFrom::Hole(start)) {
            Ok(end) => end,
            // Meanwhile it is shorter.
            Err(rustix::io::Errno::NXIO) => break,
            Err(e) => return Err(e.into()),
        };
        let (start, end) = (start / PAGE * PAGE, end.next_multiple_of(PAGE).min(size));
        found.append(Span { start: start.min(size), end });
        at = end.max(at + PAGE);
    }
    Ok(found)
}
