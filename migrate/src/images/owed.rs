//! Memory that is owed: asked for in any order, while the application that misses it runs. The rules, without threads.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::window::Piece;
use crate::chunk::CHUNK_BYTES;

/// A piece that somebody waits for. Two may wait for the same.
pub(super) type Wish = u64;

/// What is owed, and who waits for it.
#[derive(Debug, Default)]
pub(super) struct Owed {
    images: HashMap<String, (u32, u64)>,
    last: Wish,
    urgent: VecDeque<(Wish, Piece)>,
    behind: VecDeque<(Wish, Piece)>,
    here: HashMap<Wish, Vec<u8>>,
    /// How long the other host may be out of reach, once the application has moved.
    patience: Option<Duration>,
    /// Since when it is.
    lost: Option<Instant>,
}

impl Owed {
    pub(super) fn announce(&mut self, name: String, image: u32, size: u64) {
        self.images.insert(name, (image, size));
    }

    /// Wishes for a piece; nothing when there is none such.
    pub(super) fn wish(&mut self, name: &str, offset: u64, length: usize, urgent: bool) -> Option<Wish> {
        let (image, size) = *self.images.get(name)?;
        let length = u32::try_from(length).ok().filter(|length| u64::from(*length) <= CHUNK_BYTES)?;
        offset.checked_add(length.into()).filter(|end| *end <= size)?;
        self.last += 1;
        let queue = if urgent { &mut self.urgent } else { &mut self.behind };
        queue.push_back((self.last, Piece { image, offset, length }));
        Some(self.last)
    }

    /// The next to be asked for.
    pub(super) fn next(&mut self, urgent: bool) -> Option<(Wish, Piece)> {
        if urgent {
            self.urgent.pop_front()
        } else {
            self.behind.pop_front()
        }
    }

    /// A connection broke before it came.
    pub(super) fn again(&mut self, wish: Wish, piece: Piece) {
        self.urgent.push_front((wish, piece));
    }

    pub(super) fn arrive(&mut self, wish: Wish, content: Vec<u8>) {
        self.here.insert(wish, content);
    }

    pub(super) fn take(&mut self, wish: Wish) -> Option<Vec<u8>> {
        self.here.remove(&wish)
    }

    pub(super) fn be_patient(&mut self, limit: Duration) {
        self.patience = Some(limit);
    }

    pub(super) const fn is_patient(&self) -> bool {
        self.patience.is_some()
    }

    /// There is no connection any more.
    pub(super) fn lost(&mut self) {
        self.lost.get_or_insert_with(Instant::now);
    }

    pub(super) fn found_again(&mut self) {
        self.lost = None;
    }

    /// Whether there has been no connection for too long.
    pub(super) fn is_hopeless(&self) -> bool {
        let limit = self.patience.unwrap_or_default();
        self.lost.is_some_and(|since| since.elapsed() > limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_stands_still_comes_first_and_what_breaks_comes_again() {
        let mut owed = Owed::default();
        owed.announce("owed".to_owned(), 3, 10_000);
        assert_eq!(owed.wish("owed", 9000, 1001, true), None);
        assert_eq!(owed.wish("other", 0, 1, true), None);
        let behind = owed.wish("owed", 0, 4096, false).unwrap();
        let urgent = owed.wish("owed", 4096, 4096, true).unwrap();
        let (wish, piece) = owed.next(true).unwrap();
        assert_eq!((wish, piece), (urgent, Piece { image: 3, offset: 4096, length: 4096 }));
        owed.again(wish, piece);
        assert_eq!(owed.next(true).unwrap().0, urgent);
        assert_eq!(owed.next(false).unwrap().0, behind);
        owed.arrive(behind, vec![1]);
        assert_eq!((owed.take(urgent), owed.take(behind)), (None, Some(vec![1])));
    }

    #[test]
    fn hope_ends_when_nobody_has_come_back() {
        let mut owed = Owed::default();
        owed.be_patient(Duration::ZERO);
        assert!(!owed.is_hopeless());
        owed.lost();
        std::thread::sleep(Duration::from_millis(1));
        assert!(owed.is_hopeless());
        owed.found_again();
        assert!(!owed.is_hopeless());
    }
}
