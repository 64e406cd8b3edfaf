//! Huge pages for what a round is about to bring, ahead of it: the kernel clears one in the time that it takes for a few small
//! ones, and what came into small ones would have to be copied, which takes longer than the round.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use fastmig_criu::view::{RestoreView, Span};
use fastmig_memory::HUGE_PAGE;

use super::plan::{Block, Layout};

/// Blocks at a time: what the kernel does once for each time is small then, and the first content does not wait for long.
const AT_ONCE: usize = 32;
/// How long content waits for a block: a hundred times what it takes to make some. It comes to small pages then.
const PATIENCE: Duration = Duration::from_secs(2);

/// Makes huge pages until it is done or dropped.
#[derive(Debug)]
pub(super) struct Roomy {
    thread: Option<JoinHandle<()>>,
    front: Arc<Front>,
}

impl Roomy {
    /// Begins, for the blocks that a round brings as a whole.
    pub(super) fn begin(view: Arc<RwLock<RestoreView>>, layout: &Layout) -> Self {
        let blocks = layout.whole_blocks(HUGE_PAGE);
        let front = Arc::new(Front::default());
        let worker = Worker(Arc::clone(&front));
        let work = move || worker.make(&view, &blocks);
        // Where there is no thread to be had the front is at the end.
        let thread = std::thread::Builder::new().name("fastmig-huge".into()).spawn(work).ok();
        Self { thread, front }
    }

    /// What those wait at who bring content.
    pub(super) fn front(&self) -> Arc<Front> {
        Arc::clone(&self.front)
    }
}

impl Drop for Roomy {
    fn drop(&mut self) {
        self.front.end();
        if let Some(thread) = self.thread.take() {
            // One that panicked has said so.
            drop(thread.join());
        }
    }
}

/// How far it has come: in every image up to this offset. At its end it is beyond all.
#[derive(Debug, Default)]
pub(super) struct Front {
    offset: Mutex<u64>,
    moved: Condvar,
}

impl Front {
    /// Waits until all is made up to `offset`, or nothing more is made.
    pub(super) fn wait_for(&self, offset: u64) {
        let behind = |made: &mut u64| *made < offset;
        let waited = self.moved.wait_timeout_while(self.lock(), PATIENCE, behind);
        if waited.is_ok_and(|(_, timeout)| timeout.timed_out()) {
            // Nobody else is to wait as long.
            self.end();
        }
    }

    /// Whether there is more to be made.
    fn advance(&self, to: u64) -> bool {
        let mut made = self.lock();
        let ended = *made == u64::MAX;
        *made = to.max(*made);
        drop(made);
        self.moved.notify_all();
        !ended
    }

    fn end(&self) {
        self.advance(u64::MAX);
    }

    fn lock(&self) -> MutexGuard<'_, u64> {
        self.offset.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// However it ends, nobody waits for it any more.
struct Worker(Arc<Front>);

impl Worker {
    fn make(self, view: &RwLock<RestoreView>, blocks: &[Block]) {
        let begun = std::time::Instant::now();
        for some in blocks.chunks(AT_ONCE) {
            let next = some.first().map_or(u64::MAX, |block| block.offset);
            if !self.0.advance(next) {
                tracing::debug!("not all huge pages were made ahead");
                return;
            }
            let view = view.read().unwrap_or_else(PoisonError::into_inner);
            if let Err(error) = view.make_huge(&spans(some)) {
                // What fills them will say more, or does with small ones.
                tracing::debug!(%error, "huge pages were not made ahead");
                return;
            }
        }
        tracing::debug!(blocks = blocks.len(), took = ?begun.elapsed(), "huge pages were made ahead");
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.0.end();
    }
}

fn spans(blocks: &[Block]) -> Vec<(i32, Span)> {
    let span = |block: &Block| Span { start: block.address, end: block.address + HUGE_PAGE };
    let mut spans: Vec<_> = blocks.iter().map(|block| (block.process, span(block))).collect();
    spans.sort_unstable_by_key(|(process, span)| (*process, span.start));
    spans
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn content_waits_for_the_front_and_not_for_one_that_has_ended() {
        let front = Arc::new(Front::default());
        assert!(front.advance(10));
        front.wait_for(10);
        let other = Arc::clone(&front);
        let waits = std::thread::spawn(move || other.wait_for(11));
        std::thread::sleep(Duration::from_millis(50));
        assert!(!waits.is_finished());
        drop(Worker(Arc::clone(&front)));
        waits.join().unwrap();
        front.wait_for(u64::MAX);
        assert!(!front.advance(20), "it goes on after its end");
    }

    #[test]
    fn a_front_that_does_not_move_is_waited_for_once() {
        let front = Front::default();
        front.wait_for(1);
        let begun = Instant::now();
        front.wait_for(1 << 40);
        assert!(begun.elapsed() < PATIENCE);
    }
}
