//! Huge pages for what a round is about to bring, ahead of it: the kernel clears one in the time that it takes for a few small
//! ones, and what came into small ones would have to be copied.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;

use fastmig_criu::view::{RestoreView, Span};
use fastmig_memory::HUGE_PAGE;

use super::plan::Layout;

/// Blocks at a time: what the kernel does once for each time is small then, and the end is not waited for long.
const AT_ONCE: usize = 128;

/// Makes huge pages until it is done or dropped.
#[derive(Debug)]
pub(super) struct Roomy {
    thread: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
}

impl Roomy {
    /// Begins, for the blocks that a round brings as a whole.
    pub(super) fn begin(view: Arc<RwLock<RestoreView>>, layout: &Layout) -> Self {
        let blocks = layout.whole_blocks(HUGE_PAGE);
        let stop = Arc::new(AtomicBool::new(false));
        let thread = (!blocks.is_empty()).then(|| {
            let stop = Arc::clone(&stop);
            let work = move || make(&view, &blocks, &stop);
            std::thread::Builder::new().name("fastmig-huge".into()).spawn(work).ok()
        });
        Self { thread: thread.flatten(), stop }
    }
}

impl Drop for Roomy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // One that panicked has said so.
            drop(thread.join());
        }
    }
}

fn make(view: &RwLock<RestoreView>, blocks: &[(i32, u64)], stop: &AtomicBool) {
    let begun = std::time::Instant::now();
    for some in blocks.chunks(AT_ONCE) {
        if stop.load(Ordering::Acquire) {
            tracing::debug!("not all huge pages were made ahead");
            return;
        }
        let mut spans: Vec<_> = some
            .iter()
            .map(|(process, start)| (*process, Span { start: *start, end: start + HUGE_PAGE }))
            .collect();
        spans.sort_unstable_by_key(|(process, span)| (*process, span.start));
        let view = view.read().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = view.make_huge(&spans) {
            // What fills them will say more, or does with small ones.
            tracing::debug!(%error, "huge pages were not made ahead");
            return;
        }
    }
    tracing::debug!(blocks = blocks.len(), took = ?begun.elapsed(), "huge pages were made ahead");
}
