//! Memory that comes after its process, which forks, moves, unmaps and throws away what it misses.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

#[allow(dead_code, reason = "the other tests use the rest")]
#[path = "../live/sys.rs"]
mod sys;
mod uffd;

use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;

use fastmig_memory::fill::{Fill, Missing, Origin};
use fastmig_memory::Span;
use rustix::process::{pidfd_getfd, pidfd_open, Pid, PidfdFlags, PidfdGetfdFlags};
use sys::PAGE;

const PAGES: usize = 2048;

/// Every page holds its address.
#[derive(Debug, Default)]
struct Addresses {
    slow: AtomicU64,
    urgent: AtomicU64,
    broken: AtomicBool,
}

impl Origin for Addresses {
    fn fetch(&self, process: i32, address: u64, into: &mut [u8], urgent: bool) -> io::Result<()> {
        assert_eq!(process, 7);
        std::thread::sleep(Duration::from_micros(self.slow.load(Ordering::Relaxed)));
        self.urgent.fetch_add(u64::from(urgent), Ordering::Relaxed);
        if self.broken.load(Ordering::Relaxed) {
            return Err(io::Error::other("the other host is gone"));
        }
        for (page, bytes) in into.chunks_exact_mut(PAGE).enumerate() {
            bytes[..8].copy_from_slice(&(address + (page * PAGE) as u64).to_ne_bytes());
        }
        Ok(())
    }
}

/// What this program is when a test starts it once more.
#[test]
#[ignore = "the target of the other tests"]
fn target() {
    let Ok(role) = std::env::var("FASTMIG_FILL_TARGET") else { return };
    // Room around it, so that nothing is joined with it.
    let start = sys::map(None, (PAGES + 2) * PAGE) + PAGE;
    let Some(uffd) = uffd::open(start, PAGES * PAGE) else {
        say("none");
        return;
    };
    say(&format!("{} {start}", uffd.as_raw_fd()));
    io::stdin().read_line(&mut String::new()).unwrap();
    drop(uffd);
    if role == "read" {
        // Several mappings, none of which takes what belongs to two.
        (5..PAGES).step_by(37).for_each(|page| sys::protect(start + page * PAGE, 3 * PAGE, sys::READ));
    }
    match role.split_once(' ').unwrap_or((&role, "")) {
        ("read", _) => {
            (0..PAGES).rev().for_each(|page| expect(start + page * PAGE, Some(start + page * PAGE)));
        }
        ("random", seed) => random(start, seed.parse().unwrap()),
        ("idle", _) => io::stdin().read_line(&mut String::new()).map(drop).unwrap(),
        ("touch", _) => drop(sys::get(start)),
        (other, _) => panic!("no role {other}"),
    }
    say("whole");
    io::stdin().read_line(&mut String::new()).unwrap();
}

fn say(text: &str) {
    let mut out = io::stdout();
    writeln!(out, ">{text}").and_then(|()| out.flush()).unwrap();
}

fn expect(address: usize, content: Option<usize>) {
    let found = sys::get(address);
    assert_eq!(found, content.unwrap_or(0) as u64, "at {address:x}");
}

/// Does things to its memory, of which it knows what each page must hold, and so do its children.
fn random(start: usize, seed: u64) {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut below = move |limit: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap() % limit
    };
    // Where each page is now, and what it must hold.
    let mut pages: Vec<(usize, Option<usize>)> =
        (0..PAGES).map(|page| start + page * PAGE).map(|address| (address, Some(address))).collect();
    let mut children = Vec::new();
    for _ in 0..60 {
        let from = below(PAGES - 64);
        let range = from..from + 1 + below(64);
        match below(6) {
            0 => range.for_each(|page| expect(pages[page].0, pages[page].1)),
            1 => range.for_each(|page| {
                sys::put(pages[page].0, page as u64);
                pages[page].1 = Some(page);
            }),
            // Those that are moved alone are thrown away alone.
            2 => range.for_each(|page| {
                sys::advise(pages[page].0, PAGE, libc::MADV_DONTNEED);
                pages[page].1 = None;
            }),
            3 => range.take(4).for_each(|page| {
                let to = sys::map(None, PAGE);
                let moved = sys::remap(pages[page].0, PAGE, PAGE, Some(to)).unwrap();
                pages[page].0 = moved;
            }),
            4 => range.take(8).for_each(|page| {
                sys::unmap(pages[page].0, PAGE);
                pages[page] = (sys::map(Some(pages[page].0), PAGE), None);
            }),
            _ if children.len() < 6 => match sys::fork() {
                0 => uffd::leave(check_in_child(&pages)),
                child => children.push(child),
            },
            _ => {}
        }
    }
    pages.iter().for_each(|(address, content)| expect(*address, *content));
    for child in children {
        let mut code = None;
        while code.is_none() {
            code = sys::reap(child);
            sys::nap(1000);
        }
        assert_eq!(code, Some(0), "what a child had");
    }
}

/// Other pages than the parent touches first; and what it writes is its own.
fn check_in_child(pages: &[(usize, Option<usize>)]) -> i32 {
    for (address, content) in pages.iter().rev() {
        if sys::get(*address) != content.unwrap_or(0) as u64 {
            return 1;
        }
        sys::put(*address, 1);
    }
    0
}

struct Target {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
    uffd: OwnedFd,
    start: u64,
}

impl Target {
    /// Nothing where the kernel has no userfaultfd for us.
    fn start(role: &str) -> Option<Self> {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "target", "--ignored", "--nocapture"])
            .env("FASTMIG_FILL_TARGET", role)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let said = hear(&mut out).unwrap();
        let Some((number, start)) = said.split_once(' ') else {
            eprintln!("skipped: no userfaultfd with all its events here");
            child.wait().unwrap();
            return None;
        };
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
        let uffd = pidfd_getfd(&pidfd, number.parse().unwrap(), PidfdGetfdFlags::empty()).unwrap();
        let start = start.parse().unwrap();
        Some(Self { child, out, uffd, start })
    }

    /// All of it is missing, but for the last page.
    fn fill(&self, origin: &Arc<Addresses>) -> Fill {
        let fill = Fill::new(Arc::clone(origin) as Arc<dyn Origin>).unwrap();
        let span = Span { start: self.start, end: self.start + ((PAGES - 1) * PAGE) as u64 };
        let missing = [Missing { process: 9, of: 7, spans: vec![span] }];
        fill.add(9, self.uffd.try_clone().unwrap(), &missing).unwrap();
        fill
    }

    fn tell(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    }

    fn is_whole(&mut self) -> bool {
        hear(&mut self.out).is_some_and(|said| said == "whole")
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn hear(out: &mut impl BufRead) -> Option<String> {
    out.lines().map(Result::unwrap).find_map(|line| Some(line.split_once('>')?.1.to_owned()))
}

fn wait(fill: &Fill) {
    assert_eq!(fill.wait(Duration::from_secs(20)), Ok(true), "{:?}", fill.filled());
}

#[test]
fn what_is_touched_comes_first_and_the_rest_behind() {
    let Some(mut target) = Target::start("touch") else { return };
    let origin = Arc::new(Addresses::default());
    let mut fill = target.fill(&origin);
    target.tell();
    assert!(target.is_whole());
    // The page wakes whoever waits for it, and is counted then.
    (0..100)
        .take_while(|_| fill.filled().faults == 0)
        .for_each(|_| std::thread::sleep(Duration::from_millis(10)));
    let filled = fill.filled();
    assert!(filled.faults >= 1 && filled.bytes < (PAGES * PAGE) as u64 / 2, "{filled:?}");
    assert_eq!(fill.wait(Duration::from_millis(10)), Ok(false));
    fill.begin().unwrap();
    wait(&fill);
    assert_eq!(fill.end().bytes, ((PAGES - 1) * PAGE) as u64);
}

#[test]
fn whoever_reads_it_finds_all_of_it() {
    let Some(mut target) = Target::start("read") else { return };
    let origin = Arc::new(Addresses::default());
    let mut fill = Fill::new(Arc::clone(&origin) as Arc<dyn Origin>).unwrap();
    let span = Span { start: target.start, end: target.start + (PAGES * PAGE) as u64 };
    let missing = [Missing { process: 9, of: 7, spans: vec![span] }];
    fill.add(9, target.uffd.try_clone().unwrap(), &missing).unwrap();
    target.tell();
    fill.begin().unwrap();
    assert!(target.is_whole());
    wait(&fill);
    assert_eq!(fill.end().bytes, (PAGES * PAGE) as u64);
}

#[test]
fn memory_that_is_moved_forked_and_thrown_away_meanwhile_is_whole() {
    let seeds = std::env::var("FASTMIG_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(8);
    for seed in 1..=seeds {
        let Some(mut target) = Target::start(&format!("random {seed}")) else { return };
        let origin = Arc::new(Addresses::default());
        origin.slow.store(seed % 3 * 500, Ordering::Relaxed);
        let fill = Fill::new(Arc::clone(&origin) as Arc<dyn Origin>).unwrap();
        let span = Span { start: target.start, end: target.start + (PAGES * PAGE) as u64 };
        fill.add(9, target.uffd.try_clone().unwrap(), &[Missing { process: 9, of: 7, spans: vec![span] }])
            .unwrap();
        target.tell();
        let mut fill = fill;
        fill.begin().unwrap();
        assert!(target.is_whole(), "seed {seed}");
        wait(&fill);
        fill.end();
    }
}

#[test]
fn whoever_waits_for_what_does_not_come_waits_on() {
    let Some(mut target) = Target::start("touch") else { return };
    let origin = Arc::new(Addresses::default());
    origin.broken.store(true, Ordering::Relaxed);
    let fill = target.fill(&origin);
    target.tell();
    let error = fill.wait(Duration::from_secs(10)).unwrap_err();
    assert!(error.contains("gone"), "{error}");
    std::thread::sleep(Duration::from_millis(100));
    let state = std::fs::read_to_string(format!("/proc/{}/wchan", target.child.id())).unwrap_or_default();
    eprintln!("it waits in {state}");
    assert!(target.child.try_wait().unwrap().is_none());
    target.child.kill().unwrap();
    target.child.wait().unwrap();
    fill.end();
}

#[test]
fn a_process_that_is_gone_misses_nothing() {
    let Some(mut target) = Target::start("idle") else { return };
    let origin = Arc::new(Addresses::default());
    let mut fill = target.fill(&origin);
    target.child.kill().unwrap();
    target.child.wait().unwrap();
    fill.begin().unwrap();
    wait(&fill);
    fill.end();
}
