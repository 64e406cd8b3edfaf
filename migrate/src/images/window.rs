//! Which chunks of memory are asked for, here, and read: the rules, without threads or sockets.
//!
//! What is asked for and not yet read stays below a bound, so that a fast link does not fill the host. Every image that is
//! being read may have one chunk nevertheless: whoever reads it waits for that one, whatever others have piled up, so that
//! no reader waits for another. The first half of the window is asked for before anything is read.

use std::collections::{HashMap, VecDeque};

use crate::chunk::CHUNK_BYTES;

/// A chunk of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Piece {
    pub(super) image: u32,
    pub(super) offset: u64,
    pub(super) length: u32,
}

/// One image.
#[derive(Debug)]
struct Image {
    size: u64,
    /// Where the next chunk to be asked for begins, and the next to be read.
    asked: u64,
    read: u64,
    opened: bool,
}

/// All memory of a migration.
#[derive(Debug, Default)]
pub(super) struct Window {
    bound: u64,
    images: Vec<Image>,
    /// To be asked for, in order.
    wanted: VecDeque<Piece>,
    here: HashMap<(u32, u64), Vec<u8>>,
    /// Asked for or here, in bytes, and the most that ever was.
    open: u64,
    most_open: u64,
}

impl Window {
    pub(super) fn new(bound: u64) -> Self {
        Self { bound, ..Self::default() }
    }

    /// More images can be asked for.
    pub(super) fn announce(&mut self, sizes: impl Iterator<Item = u64>) {
        let first = self.images.len();
        self.images.extend(sizes.map(|size| Image { size, asked: 0, read: 0, opened: false }));
        // In turns, for several are opened at the same time.
        let early = self.bound / 2;
        let mut any = true;
        while any {
            any = false;
            for index in first..self.images.len() {
                if self.open + CHUNK_BYTES <= early {
                    any |= self.ask_next(index);
                }
            }
        }
    }

    /// More images, which are not read in order but asked for elsewhere.
    pub(super) fn pass_over(&mut self, count: usize) {
        self.images.extend((0..count).map(|_| Image { size: 0, asked: 0, read: 0, opened: false }));
    }

    /// An image is going to be read.
    pub(super) fn open(&mut self, image: u32) {
        if let Some(opened) = self.images.get_mut(image as usize) {
            opened.opened = true;
            self.top_up(image);
        }
    }

    /// The next chunk to be asked for.
    pub(super) fn next(&mut self) -> Option<Piece> {
        self.wanted.pop_front()
    }

    /// A chunk that was asked for is to be asked for again, before all others.
    pub(super) fn again(&mut self, piece: Piece) {
        self.wanted.push_front(piece);
    }

    /// A chunk has come.
    pub(super) fn arrive(&mut self, piece: Piece, content: Vec<u8>) {
        let image = self.images.get(piece.image as usize);
        if image.is_some_and(|image| piece.offset >= image.read) {
            self.here.insert((piece.image, piece.offset), content);
        }
    }

    /// The next chunk of an image, if it is here. Empty at the image's end.
    pub(super) fn read(&mut self, image: u32) -> Option<Vec<u8>> {
        let reading = self.images.get_mut(image as usize)?;
        if reading.read == reading.size {
            return Some(Vec::new());
        }
        let content = self.here.remove(&(image, reading.read))?;
        reading.read += content.len() as u64;
        self.open -= content.len() as u64;
        self.top_up(image);
        Some(content)
    }

    /// Nobody reads an image any more.
    pub(super) fn close(&mut self, image: u32) {
        let Some(closing) = self.images.get_mut(image as usize) else {
            return;
        };
        self.open -= closing.asked - closing.read;
        closing.read = closing.size;
        closing.asked = closing.size;
        closing.opened = false;
        self.here.retain(|(of, _), _| *of != image);
        self.wanted.retain(|piece| piece.image != image);
    }

    pub(super) const fn most_open(&self) -> u64 {
        self.most_open
    }

    /// Asks for as much of an image as its share of the window.
    fn top_up(&mut self, image: u32) {
        let index = image as usize;
        let readers = self.images.iter().filter(|image| image.opened).count().max(1) as u64;
        let share = self.bound / readers;
        while let Some(reading) = self.images.get(index) {
            let ahead = reading.asked - reading.read;
            let fits = ahead + CHUNK_BYTES <= share && self.open + CHUNK_BYTES <= self.bound;
            if !(ahead == 0 || fits) || !self.ask_next(index) {
                return;
            }
        }
    }

    /// Asks for an image's next chunk; not when all of it was asked for.
    fn ask_next(&mut self, index: usize) -> bool {
        let (Some(image), Ok(number)) = (self.images.get_mut(index), u32::try_from(index)) else {
            return false;
        };
        let length = (image.size - image.asked).min(CHUNK_BYTES);
        if length == 0 {
            return false;
        }
        let piece =
            Piece { image: number, offset: image.asked, length: u32::try_from(length).unwrap_or_default() };
        image.asked += length;
        self.wanted.push_back(piece);
        self.open += length;
        self.most_open = self.most_open.max(self.open);
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;

    /// Lets everything that is asked for arrive.
    fn deliver(window: &mut Window) {
        while let Some(piece) = window.next() {
            window.arrive(piece, vec![0; piece.length as usize]);
        }
    }

    #[test]
    fn asks_for_the_first_half_before_anybody_reads() {
        let mut window = Window::new(8 * MIB);
        window.announce([100 * MIB, 100 * MIB].into_iter());
        let asked: Vec<_> = std::iter::from_fn(|| window.next()).collect();
        assert_eq!(asked.len(), 4);
        assert_eq!(asked.iter().filter(|piece| piece.image == 0).count(), 2);
    }

    #[test]
    fn a_reader_gets_its_chunk_however_full_the_window_is() {
        let mut window = Window::new(2 * MIB);
        window.announce([10 * MIB; 3].into_iter());
        for image in 0..3 {
            window.open(image);
        }
        deliver(&mut window);
        assert!((0..3).all(|image| window.read(image).is_some_and(|chunk| !chunk.is_empty())));
    }

    #[test]
    fn what_is_closed_makes_room_and_comes_too_late() {
        let mut window = Window::new(2 * MIB);
        window.announce([10 * MIB].into_iter());
        window.open(0);
        let late = window.next().unwrap();
        window.close(0);
        window.arrive(late, vec![0; late.length as usize]);
        assert_eq!((window.open, window.here.len(), window.next()), (0, 0, None));
    }

    proptest! {
        #[test]
        fn every_reader_reads_all_and_little_is_open(
            sizes in prop::collection::vec(0..20 * MIB, 1..8),
            bound in 0..16 * MIB,
            order in prop::collection::vec(0..8_usize, 0..400),
        ) {
            let mut window = Window::new(bound);
            window.announce(sizes.iter().copied());
            let mut read = vec![0; sizes.len()];
            let number = |image: usize| u32::try_from(image).unwrap();
            (0..sizes.len()).for_each(|image| window.open(number(image)));
            // In any order first, and then to the end.
            let rest = (0..200).flat_map(|_| 0..sizes.len());
            for image in order.into_iter().map(|image| image % sizes.len()).chain(rest) {
                deliver(&mut window);
                read[image] += window.read(number(image)).unwrap().len() as u64;
            }
            prop_assert_eq!(&read, &sizes);
            prop_assert_eq!(window.open, 0);
            prop_assert!(window.most_open <= bound + sizes.len() as u64 * MIB);
        }
    }
}
