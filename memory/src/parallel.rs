//! Work done by several threads at once: while processes are frozen, each millisecond counts.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};

/// More do not help: they wait for the same locks.
const MOST: usize = 4;

/// Items for each, at least: on a busy machine a thread takes milliseconds to begin, which must not be for nothing.
const WORTH: usize = 16;
/// The same of those that take long.
const WORTH_OF_FEW: usize = 4;

/// What `work` makes of each item, in their order.
pub fn map<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    map_by(items, WORTH, work)
}

/// The same of few items, each of which takes its time.
pub fn map_few<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    map_by(items, WORTH_OF_FEW, work)
}

fn map_by<T: Sync, R: Send>(items: &[T], worth: usize, work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let wanted = MOST.min(items.len() / worth);
    // To ask reads several files.
    let processors = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let workers = if wanted < 2 { wanted } else { wanted.min(processors()) };
    if workers < 2 {
        return items.iter().map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let take = || {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            match items.get(at) {
                Some(item) => done.push((at, work(item))),
                None => return done,
            }
        }
    };
    let mut all = std::thread::scope(|scope| {
        // One that cannot be had is done without.
        let builder = || std::thread::Builder::new().name("memory".into());
        let others: Vec<_> = (1..workers).filter_map(|_| builder().spawn_scoped(scope, take).ok()).collect();
        let mut all = take();
        for other in others {
            match other.join() {
                Ok(mut done) => all.append(&mut done),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        all
    });
    all.sort_unstable_by_key(|(at, _)| *at);
    all.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn results_are_in_the_order_of_the_items() {
        let items: Vec<u32> = (0..1000).collect();
        let expected: Vec<u32> = items.iter().map(|item| item * 2).collect();
        assert_eq!(super::map(&items, |item| item * 2), expected);
        assert_eq!(super::map(&[7], |item| item * 2), [14]);
        assert!(super::map(&[], |item: &u32| *item).is_empty());
    }
}
