//! Programs that behave: targets of which one thing is to be seen.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::sys::{self, PAGE, SIGNALS};

const MIB: usize = 1 << 20;

/// Tells the test something.
fn say(text: &str) {
    let mut out = std::io::stdout();
    writeln!(out, ">{text}").and_then(|()| out.flush()).unwrap();
}

fn wait() {
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

fn filled(length: usize) -> usize {
    let start = sys::map(None, length);
    for page in (start..start + length).step_by(PAGE) {
        sys::put(page, page as u64);
    }
    start
}

/// Memory of so many MiB, a little of which is written all the time, also by other threads.
pub(crate) fn steady(argument: &str) -> ! {
    let (mebibytes, threads) = argument.split_once(' ').unwrap();
    let length = mebibytes.parse::<usize>().unwrap() * MIB;
    let start = filled(length);
    let write = move |thread: usize| {
        let mut count = 0_u64;
        loop {
            count += 1;
            sys::put(start + (thread * 64 + usize::try_from(count % 64).unwrap()) * PAGE, count);
            sys::nap(200);
        }
    };
    for thread in 1..threads.parse().unwrap() {
        std::thread::spawn(move || write(thread));
    }
    say(&format!("{start:x}"));
    write(0)
}

/// Memory of so many MiB, pages of which are written at random by two threads, neither all nor few between two looks: what is
/// written lies in as many pieces as can be.
pub(crate) fn dense(argument: &str) -> ! {
    const AT_ONCE: u64 = 16;
    let pages = argument.parse::<usize>().unwrap() * MIB / PAGE;
    let start = filled(pages * PAGE);
    let write = move |seed: u64| {
        let mut random = crate::churn::Random::new(seed);
        for count in 1_u64.. {
            sys::put(start + random.below(pages) * PAGE, count << 8 | seed);
            if count % AT_ONCE == 0 {
                sys::nap(500);
            }
        }
        std::process::exit(95)
    };
    std::thread::spawn(move || write(2));
    say("ready");
    write(1)
}

/// Counts signals of several kinds, in a thread that computes and one that sleeps; then says what it has seen.
pub(crate) fn signals() -> ! {
    sys::ignore(libc::SIGTRAP);
    sys::count_signals(libc::SIGRTMIN() + 3, true);
    sys::count_signals(libc::SIGUSR1, true);
    sys::count_signals(libc::SIGSYS, true);
    let _ = filled(4 * MIB);
    static DONE: AtomicBool = AtomicBool::new(false);
    let computing = std::thread::spawn(|| {
        let mut sum = 0_u64;
        while !DONE.load(Ordering::Relaxed) {
            sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(7));
        }
        sum
    });
    // A call that a handler would end, in a thread that takes no signal: nothing else may end it.
    let sleeping = std::thread::spawn(|| {
        sys::block_signals();
        let mut interrupted = 0;
        while !DONE.load(Ordering::Relaxed) {
            interrupted += u64::from(sys::nap(3000));
        }
        interrupted
    });
    // And one that is restarted: it reads what is written to it, whole.
    let (mut from, mut to) = std::os::unix::net::UnixStream::pair().unwrap();
    let reading = std::thread::spawn(move || {
        let mut all = Vec::new();
        from.read_to_end(&mut all).unwrap();
        all.len()
    });
    say("ready");
    wait();
    DONE.store(true, Ordering::Relaxed);
    to.write_all(&[1; 1000]).unwrap();
    drop(to);
    let (interrupted, read) = (sleeping.join().unwrap(), reading.join().unwrap());
    computing.join().unwrap();
    let ignored = sys::handler(libc::SIGTRAP) == libc::SIG_IGN;
    say(&format!("{} {interrupted} {read} {ignored}", SIGNALS.load(Ordering::Relaxed)));
    wait();
    std::process::exit(42)
}

/// Is killed if it calls userfaultfd.
pub(crate) fn filtered() -> ! {
    let start = filled(4 * MIB);
    sys::forbid_userfaultfd();
    say(&format!("{start:x}"));
    let mut count = 0;
    loop {
        count += 1;
        sys::put(start, count);
        sys::nap(200);
    }
}

/// A parent and its children, which write one page in twenty each; then the parent writes some that they share.
pub(crate) fn family() -> ! {
    let length = 32 * MIB;
    let start = filled(length);
    let pages = length / PAGE;
    for child in 0..3 {
        if sys::fork() == 0 {
            for page in (child..pages).step_by(20) {
                sys::put(start + page * PAGE, 1);
            }
            // Pages that the parent has and it has not.
            sys::advise(start + 500 * PAGE, 10 * PAGE, libc::MADV_DONTNEED);
            loop {
                sys::nap(10_000);
            }
        }
    }
    sys::nap(300_000);
    say("ready");
    wait();
    for page in (0..pages).step_by(50) {
        sys::put(start + page * PAGE, 2);
    }
    say("written");
    loop {
        sys::nap(10_000);
    }
}

/// Huge pages, of which one word each is written when told.
pub(crate) fn huge() -> ! {
    let length = 32 * MIB;
    let start = sys::map(None, length + 2 * MIB).next_multiple_of(2 * MIB);
    sys::advise(start, length, libc::MADV_HUGEPAGE);
    for page in (start..start + length).step_by(PAGE) {
        sys::put(page, 1);
    }
    loop {
        say("ready");
        wait();
        for page in (start..start + length).step_by(2 * MIB) {
            sys::put(page + 5 * PAGE, 2);
        }
    }
}

/// A thread with a large stack that it uses, memory with a guard in it, memory that is locked, and some that is neither.
pub(crate) fn strange() -> ! {
    const MADV_GUARD_INSTALL: i32 = 102;
    let plain = filled(MIB);
    let guarded = sys::map(None, 3 * MIB) + MIB;
    for page in (guarded..guarded + MIB).step_by(PAGE) {
        sys::put(page, 1);
    }
    sys::unmap(guarded - MIB, MIB);
    sys::unmap(guarded + MIB, MIB);
    sys::advise(guarded + 100 * PAGE, PAGE, MADV_GUARD_INSTALL);
    let (sender, stack) = std::sync::mpsc::channel();
    std::thread::Builder::new()
        .stack_size(4 * MIB)
        .spawn(move || {
            let deep = [std::hint::black_box(1_u8); MIB];
            sender.send(deep.as_ptr() as usize).unwrap();
            loop {
                sys::nap(1000);
                std::hint::black_box(&deep);
            }
        })
        .unwrap();
    say(&format!("{plain:x} {guarded:x} {:x}", stack.recv().unwrap()));
    loop {
        sys::nap(10_000);
    }
}

/// Small and huge pages, of which some are given back when told, by whole page tables and one by one; some of these are read
/// afterwards, and some written. Says how many are there.
pub(crate) fn gives_back() -> ! {
    const TABLE: usize = 2 * MIB;
    const LENGTH: usize = 16 * MIB;
    let mut there = 0;
    let piece = |advice| {
        let start = sys::map(None, LENGTH + TABLE).next_multiple_of(TABLE);
        sys::advise(start, LENGTH, advice);
        start
    };
    let pieces = [piece(libc::MADV_NOHUGEPAGE), piece(libc::MADV_HUGEPAGE)];
    for start in pieces {
        // The last of the page tables is never there.
        (start..start + LENGTH - TABLE).step_by(PAGE).for_each(|page| sys::put(page, 1));
        there += (LENGTH - TABLE) / PAGE;
    }
    say("ready");
    wait();
    for start in pieces {
        sys::advise(start + TABLE, 4 * TABLE, libc::MADV_DONTNEED);
        (0..9).for_each(|page| sys::advise(start + 2 * page * PAGE, PAGE, libc::MADV_DONTNEED));
        there -= 4 * TABLE / PAGE + 9;
    }
    // Not where huge pages come at once.
    let small = pieces[0];
    assert!([2 * PAGE, TABLE, TABLE + 3 * PAGE].iter().all(|at| sys::get(small + at) == 0));
    [4 * PAGE, 2 * TABLE, 2 * TABLE + 5 * PAGE].iter().for_each(|at| sys::put(small + at, 3));
    there += 3;
    // What is written without having been given back.
    sys::put(small + PAGE, 3);
    say(&there.to_string());
    loop {
        sys::nap(10_000);
    }
}

/// Two pieces of memory; when told, one is moved over the other, by whole page tables where the kernel does that.
pub(crate) fn moved() -> ! {
    const LENGTH: usize = 4 * MIB;
    const TABLE: usize = 2 * MIB;
    let piece = |value: u64| {
        let space = sys::map(None, LENGTH + 2 * TABLE);
        let start = (space + PAGE).next_multiple_of(TABLE);
        // With a gap on each side, it stays a mapping by itself.
        sys::unmap(space, start - space);
        sys::unmap(start + LENGTH, space + 2 * TABLE - start);
        sys::advise(start, LENGTH, libc::MADV_NOHUGEPAGE);
        (start..start + LENGTH).step_by(PAGE).for_each(|page| sys::put(page, value));
        start
    };
    let (target, source) = (piece(1), piece(2));
    say(&format!("{target:x}"));
    wait();
    assert_eq!(sys::remap(source, LENGTH, LENGTH, Some(target)), Some(target));
    say("moved");
    loop {
        sys::nap(10_000);
    }
}

/// Has a device fill its memory all the time, by two threads, from the file `path`.
pub(crate) fn direct(path: &str) -> ! {
    use std::os::unix::fs::OpenOptionsExt;
    let length = 2 * MIB;
    let open = || std::fs::File::options().read(true).custom_flags(libc::O_DIRECT).open(path);
    let Ok(file) = open() else {
        say("no");
        std::process::exit(0)
    };
    let start = filled(2 * length);
    if !sys::read_at(&file, start, length, 0) {
        say("no");
        std::process::exit(0)
    }
    say("ready");
    let read = move |file: std::fs::File, start: usize| {
        for turn in 0.. {
            assert!(sys::read_at(&file, start, length, (turn % 7) * PAGE * 64));
            sys::nap(500);
        }
    };
    let other = open().unwrap();
    std::thread::spawn(move || read(other, start + length));
    read(file, start);
    std::process::exit(95)
}

/// Maps memory, lets it grow and shrink where it is, moves it, and gives it up, as fast as it can; tells how often the kernel
/// found a mapping in the way of that which is none of its own, once it is asked.
pub(crate) fn grows() -> ! {
    const PART: usize = 1 << 20;
    const PARTS: usize = 24;
    static ERRORS: AtomicBool = AtomicBool::new(false);
    let _ = filled(4 * MIB);
    let grow = || loop {
        // Nothing else lies there: it can always grow.
        let place = sys::map(None, 2 * PARTS * PART);
        sys::unmap(place + PART, (2 * PARTS - 1) * PART);
        for page in (place..place + PART).step_by(PAGE) {
            sys::put(page, page as u64);
        }
        let mut at = place;
        for parts in 1..PARTS {
            match sys::remap_or_error(at, parts * PART, (parts + 1) * PART) {
                Ok(moved) => at = moved,
                Err(e) => {
                    ERRORS.store(true, Ordering::Relaxed);
                    say(&format!("{e} after {parts} parts"));
                    wait();
                }
            }
        }
        sys::unmap(at, PARTS * PART);
    };
    std::thread::spawn(grow);
    say("ready");
    wait();
    say(if ERRORS.load(Ordering::Relaxed) { "bad" } else { "good" });
    wait();
    std::process::exit(0)
}
