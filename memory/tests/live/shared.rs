//! Shared memory with many writers, and a receiver of it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::Duration;

use fastmig_memory::{Method, Process, SharedArea, SharedRound, SharedTracker, Tracker};

use crate::churn::Random;
use crate::sys::{self, PAGE};
use crate::tree::Tree;

const PAGES: usize = 1024;
const NAMES: [&str; 5] = ["", "mapped", "open", "unmapped", "grown"];

/// Shared memory without a file, and memfds: mapped, only open, and such that are let go of or grow when it is told so.
struct Memory {
    anonymous: usize,
    mapped: (File, usize),
    open: File,
}

/// Several processes that write to the same pages, one way and another; some live for a moment only.
pub(crate) fn main(seed: u64) -> ! {
    let memfd = |name: &str| {
        let file = sys::memfd(name, PAGES * PAGE);
        (0..PAGES).for_each(|page| write(&file, page, 1));
        file
    };
    let mapped = memfd("mapped");
    let at = sys::map_shared(Some(&mapped), PAGES * PAGE);
    let memory =
        Memory { anonymous: sys::map_shared(None, PAGES * PAGE), mapped: (mapped, at), open: memfd("open") };
    (0..PAGES).for_each(|page| sys::put(memory.anonymous + page * PAGE, 1));
    let (unmapped, grown) = (memfd("unmapped"), memfd("grown"));
    let let_go = sys::map_shared(Some(&unmapped), PAGES * PAGE);
    drop(unmapped);
    for child in 1..4 {
        if sys::fork() == 0 {
            sys::unmap(let_go, PAGES * PAGE);
            memory.churn(seed * 10 + child);
        }
    }
    println!(">ready");
    std::io::stdout().flush().unwrap();
    std::io::stdin().read_line(&mut String::new()).unwrap();
    sys::unmap(let_go, PAGES * PAGE);
    grown.set_len((PAGES + 1) as u64 * PAGE as u64).unwrap();
    println!(">changed");
    std::io::stdout().flush().unwrap();
    memory.churn(seed * 10)
}

fn write(file: &File, page: usize, value: u64) {
    file.write_all_at(&value.to_ne_bytes(), (page * PAGE) as u64).unwrap();
}

impl Memory {
    fn churn(&self, seed: u64) -> ! {
        let mut random = Random::new(seed);
        loop {
            self.step(&mut random);
            match random.below(200) {
                0 => sys::nap(300),
                1 => self.brief(random.below(1 << 20) as u64),
                _ => false,
            };
        }
    }

    /// A page gets one of few values, which it may have had before; or is taken away.
    fn step(&self, random: &mut Random) {
        let (page, value) = (random.below(PAGES), random.below(3) as u64);
        match random.below(40) {
            0 => sys::advise(self.anonymous + page * PAGE, PAGE, libc::MADV_REMOVE),
            1 => sys::punch(&self.mapped.0, page * PAGE, PAGE),
            2 => sys::punch(&self.open, page * PAGE, PAGE),
            3 => sys::advise(self.anonymous + page * PAGE, PAGE, libc::MADV_DONTNEED),
            4..15 => sys::put(self.anonymous + page * PAGE, value),
            15..25 => sys::put(self.mapped.1 + page * PAGE, value),
            25..32 => write(&self.mapped.0, page, value),
            _ => write(&self.open, page, value),
        }
    }

    /// A process that writes and ends before anybody has heard of it.
    fn brief(&self, seed: u64) -> bool {
        let child = sys::fork();
        if child == 0 {
            let mut random = Random::new(seed);
            (0..20).for_each(|_| self.step(&mut random));
            std::process::exit(0);
        }
        while sys::reap(child).is_none() {
            sys::nap(50);
        }
        true
    }
}

/// Memory without a file that is written by mappings alone, and pages of which are given back to the kernel right after, by four
/// processes that stay. When told, one of them has a child write that ends at once; and then one takes pages away.
pub(crate) fn watched(seed: u64) -> ! {
    let start = sys::map_shared(None, PAGES * PAGE);
    (0..PAGES).for_each(|page| sys::put(start + page * PAGE, 1));
    let step = move |random: &mut Random| {
        let (page, value) = (start + random.below(PAGES) * PAGE, random.below(3) as u64);
        sys::put(page, value);
        match random.below(6) {
            0 => sys::advise(page, PAGE, libc::MADV_DONTNEED),
            1 => _ = sys::get(start + random.below(PAGES) * PAGE),
            _ => {}
        }
        sys::nap(100);
    };
    let churn = move |seed: u64| {
        let mut random = Random::new(seed);
        loop {
            step(&mut random);
        }
    };
    for child in 1..4 {
        if sys::fork() == 0 {
            churn(seed * 10 + child);
        }
    }
    let say = |text: &str| {
        println!(">{text}");
        std::io::stdout().flush().unwrap();
        std::io::stdin().read_line(&mut String::new()).unwrap();
    };
    say("ready");
    let child = sys::fork();
    if child == 0 {
        (0..PAGES).step_by(3).for_each(|page| sys::put(start + page * PAGE, 77));
        std::process::exit(0);
    }
    while sys::reap(child).is_none() {
        sys::nap(100);
    }
    say("born");
    for page in (0..PAGES).step_by(5) {
        sys::advise(start + page * PAGE, PAGE, libc::MADV_REMOVE);
        sys::get(start + page * PAGE);
    }
    say("taken away");
    churn(seed * 10)
}

/// So many MiB that so many processes have read, and write a little: what a database's buffers look like.
pub(crate) fn pool(argument: &str) -> ! {
    let (mebibytes, processes) = argument.split_once(' ').unwrap();
    let pages = mebibytes.parse::<usize>().unwrap() << 8;
    let start = sys::map_shared(None, pages * PAGE);
    (0..pages).for_each(|page| sys::put(start + page * PAGE, page as u64 | 1));
    for number in 1..processes.parse().unwrap() {
        if sys::fork() == 0 {
            let mut random = Random::new(number);
            (0..pages).for_each(|page| _ = sys::get(start + page * PAGE));
            loop {
                sys::put(start + random.below(pages) * PAGE, number);
                sys::nap(1000);
            }
        }
    }
    sys::nap(1_000_000);
    println!(">ready");
    std::io::stdout().flush().unwrap();
    loop {
        sys::nap(1_000_000);
    }
}

/// What has arrived: pages by offset, for each piece of memory that is told.
#[derive(Debug, Default)]
struct Receiver {
    areas: BTreeMap<u32, (SharedArea, BTreeMap<u64, Vec<u8>>)>,
    taken: usize,
}

impl Receiver {
    /// `again`: reads some of it twice, as a broken connection makes one do.
    fn take(&mut self, round: &SharedRound, again: bool) {
        self.areas.retain(|_, (area, _)| round.areas.contains(area));
        for area in &round.areas {
            self.areas.entry(area.number).or_insert_with(|| (area.clone(), BTreeMap::new()));
        }
        for pages in &round.forgotten {
            let held = &mut self.areas.get_mut(&pages.number).unwrap().1;
            for page in pages.spans.iter().flat_map(|span| (span.start..span.end).step_by(PAGE)) {
                held.remove(&page);
            }
        }
        for pages in &round.pages {
            let (reader, held) =
                (&round.readers[&pages.number], &mut self.areas.get_mut(&pages.number).unwrap().1);
            for span in &pages.spans {
                let mut bytes = vec![0; usize::try_from(span.end - span.start).unwrap()];
                reader.read(span.start, &mut bytes).unwrap();
                self.taken += bytes.len() / PAGE;
                for (page, content) in (span.start..).step_by(PAGE).zip(bytes.chunks(PAGE)) {
                    held.insert(page, content.to_vec());
                }
                if again {
                    let mut once_more = vec![0; PAGE];
                    reader.read(span.start, &mut once_more).unwrap();
                }
            }
        }
    }

    /// With what there is; how many pages there are.
    fn compare(&self, processes: &[Process]) -> usize {
        let mut pages = 0;
        for (area, held) in self.areas.values() {
            let path = processes.iter().find_map(|process| path_of(process.host, area.inode)).unwrap();
            let mut there = Vec::new();
            File::open(path).unwrap().take(area.size).read_to_end(&mut there).unwrap();
            assert_eq!(there.len() as u64, area.size);
            for (page, there) in (0..).step_by(PAGE).zip(there.chunks(PAGE)) {
                let here = held.get(&page).map_or(&[0; PAGE][..], Vec::as_slice);
                assert!(here == there, "page {page:x} of {area:?}: {} here, {} there", here[0], there[0]);
                pages += 1;
            }
        }
        pages
    }
}

/// Where a process has it.
fn path_of(host: i32, inode: u64) -> Option<std::path::PathBuf> {
    let all =
        ["map_files", "fd"].into_iter().filter_map(|of| std::fs::read_dir(format!("/proc/{host}/{of}")).ok());
    let mut files = all.flatten().flatten().map(|file| file.path());
    files.find(|path| std::fs::metadata(path).is_ok_and(|status| status.ino() == inode))
}

fn names(round: &SharedRound) -> Vec<String> {
    let name = |area: &SharedArea| String::from_utf8(area.name.clone()).unwrap();
    let mut names: Vec<String> = round.areas.iter().map(name).collect();
    names.sort();
    names
}

#[test]
fn what_a_receiver_has_of_shared_memory_is_what_is_there() {
    let mut tree = Tree::start("sharing 1");
    assert_eq!(tree.hear(), "ready");
    let (mut tracker, mut receiver) = (SharedTracker::default(), Receiver::default());
    let mut random = Random::new(7);
    for attempt in 0..6 {
        for _ in 0..=random.below(3) {
            let round = tracker.round(&tree.processes(), None);
            if attempt == 0 {
                let mut all = NAMES;
                all.sort_unstable();
                assert_eq!(names(&round), all);
            }
            std::thread::sleep(Duration::from_millis(random.below(5) as u64));
            receiver.take(&round, random.below(2) == 0);
            std::thread::sleep(Duration::from_millis(random.below(40) as u64));
        }
        let taken = receiver.taken;
        if attempt == 3 {
            tree.tell();
            assert_eq!(tree.hear(), "changed");
        }
        tree.freeze();
        let processes = tree.processes();
        let last = tracker.last(&processes, None);
        receiver.take(&last, false);
        assert_eq!(last.areas.len(), if attempt < 3 { 5 } else { 3 }, "{:?}", last.areas);
        assert_eq!(receiver.compare(&processes), last.areas.len() * PAGES);
        assert!(receiver.taken - taken < 3 * PAGES + 500, "what was not written is sent again");
        tree.thaw();
        tree.assert_alive();
    }
}

#[test]
fn what_is_not_written_is_sent_once() {
    let mut tree = Tree::start("sharing 2");
    assert_eq!(tree.hear(), "ready");
    tree.freeze();
    let (mut tracker, mut receiver) = (SharedTracker::default(), Receiver::default());
    let processes = tree.processes();
    receiver.take(&tracker.round(&processes, None), false);
    let taken = receiver.taken;
    assert!(taken > 2 * PAGES, "{taken}");
    let last = tracker.last(&processes, None);
    assert!(last.pages.is_empty() && last.forgotten.is_empty(), "{:?}", last.pages);
    receiver.compare(&processes);
    // What nobody has read has not been sent.
    let mut unread = SharedTracker::default();
    drop(unread.round(&processes, None));
    receiver = Receiver::default();
    receiver.take(&unread.last(&processes, None), false);
    assert_eq!(receiver.taken, taken);
    receiver.compare(&processes);
}

/// Nothing that lies in a file system is taken for it, nor what is private.
#[test]
fn other_memory_is_left() {
    let mut tree = Tree::start("steady 4 1");
    tree.hear();
    assert!(tracker_areas(&tree).is_empty());
}

fn tracker_areas(tree: &Tree) -> Vec<SharedArea> {
    SharedTracker::default().round(&tree.processes(), None).areas
}

/// Two rounds and a freeze; of how many bytes page tables told what was written.
fn watched_move(tree: &mut Tree, between: impl FnOnce(&mut Tree), births: [u32; 2]) -> u64 {
    let (mut tracker, mut shared) = (Tracker::new(Method::WriteProtect), SharedTracker::default());
    let (mut receiver, processes) = (Receiver::default(), tree.processes());
    for _ in 0..2 {
        tracker.round(&processes).unwrap();
        receiver.take(&shared.round(&processes, Some((&mut tracker, Some(births[0])))), false);
    }
    between(tree);
    tree.freeze();
    let processes = tree.processes();
    tracker.last(&processes).unwrap();
    let last = shared.last(&processes, Some((&tracker, Some(births[1]))));
    receiver.take(&last, false);
    assert_eq!(receiver.compare(&processes), PAGES);
    tree.thaw();
    last.watched
}

/// Written by mappings, given back to the kernel, read, taken away and read again: page tables tell of all. Of what somebody wrote who
/// has come and gone they do not, and then all of it is compared.
#[test]
fn no_write_to_watched_memory_is_missed() {
    if crate::method() != Some(Method::WriteProtect) {
        return eprintln!("skipped: shared memory is watched by write-protection alone");
    }
    let mut tree = Tree::start("watched 3");
    assert_eq!(tree.hear(), "ready");
    let all = (PAGES * PAGE) as u64;
    assert_eq!(fastmig_memory::shared_length(&tree.processes()), all);
    for milliseconds in [0, 1, 5, 20, 80, 80] {
        let pause = |_: &mut Tree| std::thread::sleep(Duration::from_millis(milliseconds));
        assert_eq!(watched_move(&mut tree, pause, [1, 1]), all, "{milliseconds} ms");
    }
    let until = |said: &'static str| {
        move |tree: &mut Tree| {
            tree.tell();
            assert_eq!(tree.hear(), said);
        }
    };
    assert_eq!(watched_move(&mut tree, until("born"), [1, 2]), 0);
    assert_eq!(watched_move(&mut tree, until("taken away"), [2, 2]), all);
    tree.assert_alive();
}

#[test]
#[ignore = "prints what shared memory costs in the freeze, for people; FASTMIG_MEMORY_MIB says how much"]
fn costs_of_shared_memory() {
    let size = std::env::var("FASTMIG_MEMORY_MIB").unwrap_or_else(|_| "1024".into());
    let mut tree = Tree::start(&format!("pool {size} 12"));
    assert_eq!(tree.hear(), "ready");
    let processes = tree.processes();
    for births in [None, Some(1)] {
        let (mut tracker, mut shared) = (Tracker::new(Method::WriteProtect), SharedTracker::default());
        for _ in 0..3 {
            tracker.round(&processes).unwrap();
            let round = shared.round(&processes, Some((&mut tracker, births)));
            for (pages, reader) in round.pages.iter().map(|pages| (pages, &round.readers[&pages.number])) {
                let read = |span: &fastmig_memory::Span| {
                    let mut at = span.start;
                    while at < span.end {
                        let length = (span.end - at).min(1 << 20);
                        reader.read(at, &mut vec![0; usize::try_from(length).unwrap()]).unwrap();
                        at += length;
                    }
                };
                pages.spans.iter().for_each(read);
            }
            eprintln!("round: {:?}", round.scan);
        }
        tree.freeze();
        let last = shared.last(&processes, Some((&tracker, births)));
        let pages: u64 = last.pages.iter().flat_map(|p| &p.spans).map(|s| (s.end - s.start) / 4096).sum();
        eprintln!("in the freeze: {:?}, {pages} pages, {} MiB watched", last.scan, last.watched >> 20);
        tree.thaw();
    }
}
