//! What tracking must not change.

use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fastmig_memory::{Process, Tracker};

use crate::receiver::Receiver;
use crate::tree::{self, Tree};
use crate::{churn, is_slow, last, method, sys, turns};

#[test]
fn signals_calls_and_the_exit_code_are_as_without_us() {
    let Some(method) = method() else { return };
    let mut tree = Tree::start("signals");
    assert_eq!(tree.hear(), "ready");
    let (pid, done) = (tree.pid(), AtomicBool::new(false));
    let (mut stop, mut untracked) = (Vec::new(), 0);
    let queued = std::thread::scope(|scope| {
        // All the time, so that some come in the middle of it.
        let sender = scope.spawn(|| {
            let mut queued = 0;
            while !done.load(Ordering::Relaxed) {
                queued += u32::from(sys::queue(pid, libc::SIGRTMIN() + 3));
                sys::nap(30);
            }
            queued
        });
        for _ in 0..turns(60) {
            let mut tracker = Tracker::new(method);
            let round = tracker.round(&tree.processes()).unwrap();
            stop.push(round.cost.stop);
            untracked += round.cost.untracked;
        }
        done.store(true, Ordering::Relaxed);
        sender.join().unwrap()
    });
    // Some may be busy for long on a machine that is.
    assert!(untracked <= turns(60) / 6, "{untracked} of {} failed", turns(60));
    stop.sort_unstable();
    eprintln!(
        "{queued} signals, {untracked} failed, stopped {:?}, at most {:?}",
        stop[stop.len() / 2],
        stop.last()
    );
    tree.tell();
    assert_eq!(tree.hear(), format!("{queued} 0 1000 true"), "signals, calls ended, bytes, SIGTRAP ignored");
    tree.tell();
    assert_eq!(tree.child.wait().unwrap().code(), Some(42));
}

#[test]
fn who_is_frozen_in_the_middle_of_it_goes_on() {
    let Some(method) = method() else { return };
    let mut tree = Tree::start("steady 4 3");
    tree.hear();
    let (done, all) = (AtomicBool::new(false), tree.processes());
    let untracked = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = churn::Random::new(5);
            while !done.load(Ordering::Relaxed) {
                tree.freeze_at_once();
                sys::nap(random.below(30_000) as u64);
                tree.thaw();
                sys::nap(random.below(3000) as u64);
            }
        });
        let round = |_| Tracker::new(method).round(&all).unwrap().cost.untracked;
        let untracked: usize = (0..turns(60)).map(round).sum();
        done.store(true, Ordering::Relaxed);
        untracked
    });
    eprintln!("{untracked} of {} failed", turns(60));
    sys::nap(50_000);
    tree.assert_alive();
}

#[test]
fn what_ends_by_a_signal_ends_by_it() {
    let Some(method) = method() else { return };
    let mut tree = Tree::start("steady 4 2");
    tree.hear();
    let mut tracker = Tracker::new(method);
    tracker.round(&tree.processes()).unwrap();
    sys::kill(tree.pid(), libc::SIGTERM);
    assert_eq!(tree.child.wait().unwrap().signal(), Some(libc::SIGTERM));
    let processes = [Process { host: tree.pid(), id: 1, parent: None }];
    let round = tracker.round(&processes).unwrap();
    assert_eq!((round.cost.untracked, round.areas.len(), round.forgotten.len()), (1, 0, 1));
    tracker.end(true);
}

#[test]
fn a_stopped_process_stays_stopped() {
    let Some(method) = method() else { return };
    let mut tree = Tree::start("steady 4 2");
    tree.hear();
    sys::kill(tree.pid(), libc::SIGSTOP);
    std::thread::sleep(Duration::from_millis(20));
    let state = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", tree.pid())).unwrap();
        stat[stat.rfind(')').unwrap() + 2..].chars().next()
    };
    assert_eq!(state(), Some('T'));
    let round = Tracker::new(method).round(&tree.processes()).unwrap();
    assert_eq!(round.cost.untracked, 0);
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(state(), Some('T'));
    sys::kill(tree.pid(), libc::SIGCONT);
    std::thread::sleep(Duration::from_millis(20));
    assert_ne!(state(), Some('T'));
}

#[test]
fn a_tracker_that_is_killed_harms_nobody() {
    let Some(method) = method() else { return };
    let mut tree = Tree::start("steady 16 4");
    tree.hear();
    let mut random = churn::Random::new(3);
    let mut looks = 0;
    // It begins with an exec.
    let (start, longest) = if is_slow() { (1_000_000, 2_000_000) } else { (20_000, 60_000) };
    for _ in 0..turns(25) {
        let role = format!("tracker {}", tree.pid());
        let mut tracker = tree::target(&role).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_micros(start + random.below(longest) as u64));
        tracker.kill().unwrap();
        let mut said = String::new();
        tracker.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        tracker.wait().unwrap();
        looks += said.matches(">0").count();
        tree.assert_alive();
    }
    assert!(looks > turns(25), "the trackers were killed before they began: {looks}");
    std::thread::sleep(Duration::from_millis(if is_slow() { 2000 } else { 30 }));
    // Nothing of theirs is left: not a descriptor, not a tracer, not a registration.
    let status = std::fs::read_to_string(format!("/proc/{}/status", tree.pid())).unwrap();
    assert!(status.contains("TracerPid:\t0\n"), "{status}");
    for descriptor in std::fs::read_dir(format!("/proc/{}/fd", tree.pid())).unwrap() {
        let name = std::fs::read_link(descriptor.unwrap().path()).unwrap_or_default();
        assert!(!name.to_string_lossy().contains("userfaultfd"), "{name:?}");
    }
    let (mut tracker, mut receiver) = (Tracker::new(method).with_stacks(), Receiver::default());
    let processes = tree.processes();
    receiver.take_round(&tracker.round(&processes).unwrap(), &processes);
    let (_, covered) = last(&tree, &mut tracker, &mut receiver);
    assert!(covered.own >= 4000, "{covered:?}");
}

#[test]
fn a_filter_that_kills_for_userfaultfd_does_not() {
    let Some(method) = method() else { return };
    let mut tree = Tree::start("filtered");
    tree.hear();
    let (mut tracker, mut receiver) = (Tracker::new(method), Receiver::default());
    for _ in 0..5 {
        let processes = tree.processes();
        let round = tracker.round(&processes).unwrap();
        assert_eq!(round.cost.untracked, 0);
        receiver.take_round(&round, &processes);
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", tree.pid())).unwrap();
    assert!(status.contains("Seccomp:\t2\n"), "it has lost its filter");
    let (_, covered) = last(&tree, &mut tracker, &mut receiver);
    assert!(covered.own >= 1024, "{covered:?}");
    tree.thaw();
    tree.assert_alive();
}

#[test]
fn a_process_that_runs_is_not_taken_for_frozen() {
    let Some(method) = method() else { return };
    let mut tree = Tree::start("signals");
    tree.hear();
    let mut tracker = Tracker::new(method);
    tracker.round(&tree.processes()).unwrap();
    let error = tracker.last(&tree.processes()).unwrap_err();
    assert!(matches!(error, fastmig_memory::Error::NotFrozen { .. }), "{error}");
}

/// A mapping that grows while it is being registered stays one.
#[test]
fn what_grows_meanwhile_can_be_moved() {
    let Some(method) = method() else { return };
    let mut tree = Tree::start("grows");
    assert_eq!(tree.hear(), "ready");
    let (processes, begun) = (tree.processes(), std::time::Instant::now());
    let mut tracker = Tracker::new(method);
    let mut rounds = 0;
    while begun.elapsed() < Duration::from_secs(if is_slow() { 20 } else { 4 }) {
        tracker.round(&processes).unwrap();
        rounds += 1;
        if rounds % 50 == 0 {
            // All is new again.
            tracker.end(false);
            tracker = Tracker::new(method);
        }
    }
    eprintln!("{rounds} rounds");
    tree.tell();
    assert_eq!(tree.hear(), "good");
}

/// Whoever kills a service kills its group: not the child that has changed registers of the process at this moment.
#[test]
fn a_tracker_whose_group_is_killed_harms_nobody() {
    let Some(_) = method() else { return };
    let mut tree = Tree::start("steady 1 1");
    tree.hear();
    let mut random = churn::Random::new(11);
    let (start, longest) = if is_slow() { (1_000_000, 2_000_000) } else { (20_000, 30_000) };
    for _ in 0..turns(60) {
        let role = format!("tracker {}", tree.pid());
        let mut tracker = tree::target(&role);
        let mut tracker =
            tracker.process_group(0).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_micros(start + random.below(longest) as u64));
        sys::kill(-i32::try_from(tracker.id()).unwrap(), libc::SIGKILL);
        tracker.wait().unwrap();
        tree.assert_alive();
    }
}

/// The one thing that harms: how often, of so many children that are killed at some moment of their lives.
#[test]
#[ignore = "a measurement"]
fn how_often_a_killed_child_ends_the_process() {
    let Some(_) = method() else { return };
    let mut random = churn::Random::new(12);
    let (mut killed, mut ended) = (0, 0);
    while killed < 300 {
        let mut tree = Tree::start("steady 1 1");
        tree.hear();
        let role = format!("tracker {}", tree.pid());
        let mut tracker = tree::target(&role).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(30));
        let begun = std::time::Instant::now();
        while begun.elapsed() < Duration::from_millis(300) {
            let threads = std::fs::read_dir(format!("/proc/{}/task", tracker.id())).unwrap();
            let children = threads
                .filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("children")).ok());
            let children: String = children.collect();
            if let Some(child) = children.split_whitespace().next() {
                sys::nap(random.below(100) as u64);
                sys::kill(child.parse().unwrap(), libc::SIGKILL);
                killed += 1;
            }
        }
        tracker.kill().unwrap();
        tracker.wait().unwrap();
        std::thread::sleep(Duration::from_millis(20));
        ended += u32::from(tree.child.try_wait().unwrap().is_some());
    }
    eprintln!("{killed} children were killed, and {ended} processes ended");
}
