//! A program that does to its memory what a program can, at random: the target of the tests.

use std::os::unix::process::CommandExt;

use crate::sys::{self, PAGE, READ, READ_WRITE};

/// Numbers that come again with the same seed.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Below `limit`.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % limit
    }
}

/// One piece of memory; all of it may be written, but for the pages that are read-only.
#[derive(Debug, Clone)]
struct Piece {
    start: usize,
    pages: usize,
    read_only: Option<(usize, usize)>,
}

/// One thread's pieces.
#[derive(Debug)]
pub(crate) struct Churn {
    random: Random,
    pieces: Vec<Piece>,
    children: Vec<i32>,
    /// In how many generations processes may be made.
    generations: usize,
    stamp: u64,
    /// Whether it may end.
    is_child: bool,
}

const MOST_PIECES: usize = 6;

impl Churn {
    pub(crate) fn new(seed: u64, generations: usize) -> Self {
        Self {
            random: Random::new(seed),
            pieces: Vec::new(),
            children: Vec::new(),
            generations,
            stamp: seed << 32,
            is_child: false,
        }
    }

    /// For ever; children for a while.
    pub(crate) fn run(&mut self, steps: Option<usize>) {
        let mut step = 0;
        while steps.is_none_or(|steps| step < steps) {
            self.step();
            sys::nap(100);
            step += 1;
        }
    }

    fn step(&mut self) {
        if self.pieces.len() < 2 {
            return self.add();
        }
        match self.random.below(100) {
            0..=1 if self.pieces.len() < MOST_PIECES => self.add(),
            0..=4 => self.drop_some(),
            5..=6 => self.unmap_some(),
            7..=9 => self.protect_some(),
            10..=12 => self.remap_one(),
            13..=14 => self.replace_one(),
            15..=16 => self.fork(),
            17 => self.advise_one(),
            18 => self.start_anew(),
            19..=29 => self.check_some(),
            _ => self.write_some(),
        }
        self.children.retain(|child| match sys::reap(*child) {
            None => true,
            Some(status) => {
                assert_eq!(status, 0, "a child has not ended well");
                false
            }
        });
    }

    fn pick(&mut self) -> usize {
        self.random.below(self.pieces.len())
    }

    /// Some pages of piece `at`: the first, and how many.
    fn part(&mut self, at: usize) -> (usize, usize) {
        let pages = self.pieces[at].pages;
        let first = self.random.below(pages);
        (first, 1 + self.random.below(pages - first))
    }

    fn add(&mut self) {
        let pages = 128 + self.random.below(640);
        let start = sys::map(None, pages * PAGE);
        self.pieces.push(Piece { start, pages, read_only: None });
        let filled = 1 + self.random.below(pages);
        self.write(self.pieces.len() - 1, 0, filled);
    }

    /// A page says the same at its start and its end, or is zeros.
    fn write(&mut self, at: usize, first: usize, count: usize) {
        let piece = self.pieces[at].clone();
        for page in first..first + count {
            if piece.read_only.is_some_and(|(from, count)| (from..from + count).contains(&page)) {
                continue;
            }
            self.stamp += 1;
            sys::put(piece.start + page * PAGE, self.stamp);
            sys::put(piece.start + page * PAGE + PAGE - 8, self.stamp);
        }
    }

    fn write_some(&mut self) {
        let at = self.pick();
        for _ in 0..self.random.below(24) {
            let page = self.random.below(self.pieces[at].pages);
            self.write(at, page, 1);
        }
    }

    fn check_some(&mut self) {
        let at = self.pick();
        let (first, count) = self.part(at);
        for page in (first..first + count).take(50) {
            let address = self.pieces[at].start + page * PAGE;
            let (head, tail) = (sys::get(address), sys::get(address + PAGE - 8));
            assert_eq!(head, tail, "page {address:x} was torn");
        }
    }

    fn drop_some(&mut self) {
        let at = self.pick();
        let (first, count) = self.part(at);
        let advice = if self.random.below(5) == 0 { libc::MADV_FREE } else { libc::MADV_DONTNEED };
        sys::advise(self.pieces[at].start + first * PAGE, count * PAGE, advice);
    }

    /// The whole, or a part in the middle.
    fn unmap_some(&mut self) {
        let at = self.pick();
        let Piece { start, pages, .. } = self.pieces.swap_remove(at);
        let first = self.random.below(pages.div_ceil(2));
        let after = pages - self.random.below(pages.div_ceil(2));
        if self.pieces.len() > 4 || self.random.below(2) == 0 {
            return sys::unmap(start, pages * PAGE);
        }
        sys::unmap(start + first * PAGE, (after - first) * PAGE);
        sys::protect(start, first * PAGE, READ_WRITE);
        sys::protect(start + after * PAGE, (pages - after) * PAGE, READ_WRITE);
        for (first, pages) in [(0, first), (after, pages - after)] {
            if pages > 0 {
                self.pieces.push(Piece { start: start + first * PAGE, pages, read_only: None });
            }
        }
    }

    fn protect_some(&mut self) {
        let at = self.pick();
        let part = self.part(at);
        let piece = &mut self.pieces[at];
        if let Some((first, count)) = piece.read_only.take() {
            sys::protect(piece.start + first * PAGE, count * PAGE, READ_WRITE);
        } else {
            sys::protect(piece.start + part.0 * PAGE, part.1 * PAGE, READ);
            piece.read_only = Some(part);
        }
    }

    /// Grown, shrunk, moved, or moved over another.
    fn remap_one(&mut self) {
        let at = self.pick();
        let onto = self.pick();
        let Piece { start, pages, .. } = self.pieces[at];
        sys::protect(start, pages * PAGE, READ_WRITE);
        self.pieces[at].read_only = None;
        if onto != at && self.pieces[onto].pages >= pages && self.random.below(2) == 0 {
            let target = self.pieces[onto].clone();
            if sys::remap(start, pages * PAGE, pages * PAGE, Some(target.start)).is_none() {
                // The kernel may have moved a part, and unmapped the target: whose the places are now is not known.
                self.pieces.swap_remove(onto.max(at));
                self.pieces.swap_remove(onto.min(at));
                return;
            }
            if target.pages > pages {
                sys::unmap(target.start + pages * PAGE, (target.pages - pages) * PAGE);
            }
            self.pieces[onto] = Piece { pages, read_only: None, ..target };
            self.pieces.swap_remove(at);
            return;
        }
        let new = 64 + self.random.below(1000);
        if let Some(moved) = sys::remap(start, pages * PAGE, new * PAGE, None) {
            self.pieces[at] = Piece { start: moved, pages: new, read_only: None };
        }
    }

    /// Another mapping in the same place.
    fn replace_one(&mut self) {
        let at = self.pick();
        let Piece { start, pages, .. } = self.pieces[at];
        sys::map(Some(start), pages * PAGE);
        self.pieces[at].read_only = None;
        let (first, count) = self.part(at);
        self.write(at, first, count);
    }

    fn advise_one(&mut self) {
        const ADVICE: [i32; 4] =
            [libc::MADV_HUGEPAGE, libc::MADV_NOHUGEPAGE, libc::MADV_DONTDUMP, libc::MADV_SEQUENTIAL];
        let at = self.pick();
        let advice = ADVICE[self.random.below(ADVICE.len())];
        sys::advise(self.pieces[at].start, self.pieces[at].pages * PAGE, advice);
    }

    fn fork(&mut self) {
        if self.generations == 0 || self.children.len() >= 2 {
            return;
        }
        let child = sys::fork();
        if child > 0 {
            self.children.push(child);
        } else if child == 0 {
            self.children.clear();
            self.generations -= 1;
            self.is_child = true;
            self.random = Random::new(u64::from(std::process::id()));
            let steps = 200 + self.random.below(3000);
            self.run(Some(steps));
            std::process::exit(self.wait_for_children());
        }
    }

    fn wait_for_children(&mut self) -> i32 {
        while let Some(child) = self.children.last() {
            match sys::reap(*child) {
                None => {
                    sys::nap(500);
                }
                Some(0) => {
                    self.children.pop();
                }
                Some(_) => return 98,
            }
        }
        0
    }

    /// Only in a child: the same program again.
    fn start_anew(&mut self) {
        if !self.is_child || self.random.below(3) > 0 || !self.children.is_empty() {
            return;
        }
        let seed = self.random.below(1 << 20);
        let failed = crate::tree::target(&format!("brief {seed}")).exec();
        panic!("exec: {failed}");
    }
}

/// As the test's target.
pub(crate) fn main(seed: u64) -> ! {
    let threads: Vec<_> = (0..3)
        .map(|thread| {
            // Only one of them forks: the others' memory is torn in a child that they are not in.
            let generations = if thread == 0 { 2 } else { 0 };
            std::thread::spawn(move || Churn::new(seed * 10 + thread, generations).run(None))
        })
        .collect();
    for thread in threads {
        if thread.join().is_err() {
            std::process::exit(97);
        }
    }
    std::process::exit(96)
}

/// After an exec.
pub(crate) fn brief(seed: u64) -> ! {
    Churn::new(seed, 0).run(Some(1500));
    std::process::exit(0)
}
