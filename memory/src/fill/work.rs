//! The threads that fill memory.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{eventfd, poll, EventfdFlags, PollFd, PollFlags, Timespec};

use super::missing::Place;
use super::space::{Put, Space};
use super::{Filled, Origin};
use crate::{Span, PAGE};

/// What is fetched for a fault: whoever touches a page touches the next ones soon.
const AROUND: u64 = 16 * PAGE;
/// What is filled in at a time.
const PIECE: u64 = 256 << 10;
/// How long a process may take to say what it does to its mappings, at a time.
const MOMENT: Duration = Duration::from_micros(200);
/// So many moments without a word, and a page has no place any more.
const MOMENTS: u32 = 5000;
/// How often somebody who waits looks up.
const LOOK_UP: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(super) struct Shared {
    origin: Arc<dyn Origin>,
    /// Interrupts the one who hears.
    bell: OwnedFd,
    stopping: AtomicBool,
    spaces: Mutex<Vec<Arc<Space>>>,
    queue: Mutex<Queue>,
    changed: Condvar,
    bytes: AtomicU64,
    faults: AtomicU64,
    zeros: AtomicU64,
}

#[derive(Debug, Default)]
struct Queue {
    faults: VecDeque<(Arc<Space>, u64)>,
    failed: Option<String>,
}

impl Shared {
    pub(super) fn new(origin: Arc<dyn Origin>) -> io::Result<Self> {
        Ok(Self {
            origin,
            bell: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            stopping: AtomicBool::new(false),
            spaces: Mutex::default(),
            queue: Mutex::default(),
            changed: Condvar::new(),
            bytes: AtomicU64::new(0),
            faults: AtomicU64::new(0),
            zeros: AtomicU64::new(0),
        })
    }

    pub(super) fn add(&self, space: Space) -> io::Result<()> {
        self.spaces.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::new(space));
        self.ring()
    }

    fn ring(&self) -> io::Result<()> {
        rustix::io::write(&self.bell, &1_u64.to_ne_bytes())?;
        Ok(())
    }

    pub(super) fn spaces(&self) -> Vec<Arc<Space>> {
        self.spaces.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn filled(&self) -> Filled {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Filled { bytes: read(&self.bytes), faults: read(&self.faults), zeros: read(&self.zeros) }
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// All threads end soon, and with them the userfaultfds are closed.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        // It looks up by itself soon.
        drop(self.ring());
        self.queue().faults.clear();
        self.changed.notify_all();
        self.spaces.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn fail(&self, what: &str, error: &io::Error) {
        self.queue().failed.get_or_insert_with(|| format!("{what}: {error}"));
        self.changed.notify_all();
    }

    pub(super) fn wait(&self, until: Instant) -> Result<bool, String> {
        loop {
            let queue = self.queue();
            if let Some(failed) = &queue.failed {
                return Err(failed.clone());
            }
            drop(queue);
            if self.spaces().iter().all(|space| space.is_done()) {
                return Ok(true);
            }
            let Some(left) = until.checked_duration_since(Instant::now()) else { return Ok(false) };
            drop(self.changed.wait_timeout(self.queue(), left.min(LOOK_UP)));
        }
    }

    /// Hears what all processes say.
    pub(super) fn hear(&self) {
        while !self.is_stopping() {
            let spaces = self.spaces();
            let living: Vec<&Arc<Space>> = spaces.iter().filter(|space| !space.is_gone()).collect();
            let mut waiting = vec![PollFd::from_borrowed_fd(self.bell.as_fd(), PollFlags::IN)];
            waiting.extend(living.iter().map(|space| PollFd::from_borrowed_fd(space.uffd(), PollFlags::IN)));
            let second = Timespec { tv_sec: 1, tv_nsec: 0 };
            if poll(&mut waiting, Some(&second)).is_err() {
                continue;
            }
            let ready: Vec<bool> = waiting.iter().map(|one| one.revents().contains(PollFlags::IN)).collect();
            drop(waiting);
            // Empty, when it was not the bell.
            let _ = rustix::io::read(&self.bell, &mut [0; 8]);
            for (space, _) in living.iter().zip(&ready[1..]).filter(|(_, ready)| **ready) {
                self.take(space);
            }
        }
    }

    fn take(&self, space: &Arc<Space>) {
        let faults = space.hear(|child| {
            self.spaces.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::new(child));
        });
        if !faults.is_empty() {
            self.queue().faults.extend(faults.into_iter().map(|address| (Arc::clone(space), address)));
            self.changed.notify_all();
        }
    }

    /// Answers faults.
    pub(super) fn answer(&self) {
        loop {
            let mut queue = self.queue();
            let next = loop {
                if self.is_stopping() {
                    return;
                }
                match queue.faults.pop_front() {
                    Some(next) => break next,
                    None => {
                        let waited = self.changed.wait_timeout(queue, LOOK_UP);
                        queue = waited.unwrap_or_else(PoisonError::into_inner).0;
                    }
                }
            };
            drop(queue);
            let (space, address) = next;
            self.answer_one(&space, address);
        }
    }

    fn answer_one(&self, space: &Space, address: u64) {
        for _ in 0..MOMENTS {
            if self.is_stopping() || space.is_gone() {
                return;
            }
            let put = match space.at(address, AROUND) {
                None => {
                    self.zeros.fetch_add(1, Ordering::Relaxed);
                    Ok(space.put_zeros(address))
                }
                Some((span, place)) => self.bring(space, span, place, true),
            };
            match put {
                Ok(Put::Done(_)) => {
                    // Had somebody else been quicker, nobody would be woken.
                    space.wake(address);
                    self.faults.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                Ok(Put::Later) => std::thread::sleep(MOMENT),
                // It waits on: better than wrong content.
                Err(()) => return,
            }
        }
        space.wake(address);
    }

    /// Fetches a piece and puts it in its place. Failures are told to whoever waits for the end.
    fn bring(&self, space: &Space, span: Span, place: Place, urgent: bool) -> Result<Put, ()> {
        let mut content = vec![0; usize::try_from(span.end - span.start).unwrap_or(0)];
        let fetched = self.origin.fetch(place.of, place.address, &mut content, urgent);
        fetched.map_err(|e| self.fail("missing memory does not come", &e))?;
        let put = space.put(span.start, place, &content);
        let put = put.map_err(|e| self.fail("missing memory cannot be put in its place", &e))?;
        if let Put::Done(bytes) = put {
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        Ok(put)
    }

    /// Fills in what nobody has touched, until nothing is missing anywhere.
    pub(super) fn fill(&self) {
        let mut moments = 0;
        while !self.is_stopping() && self.queue().failed.is_none() {
            let spaces = self.spaces();
            let next = spaces.iter().find_map(|space| Some((space, space.next(PIECE)?)));
            let Some((space, (span, place))) = next else {
                // A fork may still tell of more.
                self.changed.notify_all();
                std::thread::sleep(LOOK_UP);
                continue;
            };
            match self.bring(space, span, place, false) {
                Ok(Put::Done(_)) => moments = 0,
                Ok(Put::Later) => {
                    std::thread::sleep(MOMENT);
                    moments += 1;
                    if moments > MOMENTS {
                        space.give_up(span.start);
                    }
                }
                Err(()) => return,
            }
        }
    }
}
