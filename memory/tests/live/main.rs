//! Real processes, tracked while they do their worst; each page of what a receiver then has compared with what is there.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod churn;
mod receiver;
mod roles;
mod sys;
mod tree;

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::Duration;

use fastmig_memory::{page_hashes, probe, Content, Last, Method, Process, Tracker};

use receiver::Receiver;
use tree::Tree;

/// What this program is when a test starts it once more.
#[test]
#[ignore = "the target of the other tests"]
fn target() {
    let Ok(role) = std::env::var("FASTMIG_MEMORY_TARGET") else { return };
    let (role, argument) = role.split_once(' ').unwrap_or((&role, ""));
    match role {
        "brief" => churn::brief(argument.parse().unwrap()),
        "tracker" => track_for_ever(argument.parse().unwrap()),
        _ => {}
    }
    std::io::stdin().read_line(&mut String::new()).unwrap(); // it is in its cgroup
    match role {
        "churn" => churn::main(argument.parse().unwrap()),
        "steady" => roles::steady(argument),
        "signals" => roles::signals(),
        "filtered" => roles::filtered(),
        "family" => roles::family(),
        "huge" => roles::huge(),
        "strange" => roles::strange(),
        other => panic!("no role {other}"),
    }
}

/// What is tried with; nothing where nothing works.
fn method() -> Option<Method> {
    probe().map_err(|e| eprintln!("skipped: {e}")).ok()
}

fn last(tree: &Tree, tracker: &mut Tracker, receiver: &mut Receiver) -> (Last, receiver::Covered) {
    tree.freeze();
    let processes = tree.processes();
    let last = tracker.last(&processes).unwrap();
    receiver.take_last(&last, &processes);
    let covered = receiver.compare(&last, &processes);
    (last, covered)
}

fn churned(seed: u64) {
    let Some(method) = method() else { return };
    let mut tree = Tree::start(&format!("churn {seed}"));
    let mut random = churn::Random::new(seed);
    let (mut total, mut inherited, mut stop, mut scan) = (0, 0, Duration::ZERO, Duration::ZERO);
    std::thread::sleep(Duration::from_millis(300));
    for _ in 0..3 {
        let mut tracker = Tracker::new(method);
        let mut receiver = Receiver::default();
        for _ in 0..3 {
            for _ in 0..=random.below(4) {
                let processes = tree.processes();
                let round = tracker.round(&processes).unwrap();
                stop = stop.max(round.cost.stop);
                receiver.take_round(&round, &processes);
                std::thread::sleep(Duration::from_millis(random.below(60) as u64));
            }
            let (last, covered) = last(&tree, &mut tracker, &mut receiver);
            total += covered.own;
            inherited += covered.inherited;
            scan = scan.max(last.cost.scan);
            tree.thaw();
            tree.assert_alive();
        }
        tracker.end(true);
    }
    std::thread::sleep(Duration::from_millis(100));
    tree.assert_alive();
    eprintln!("seed {seed}: {total} pages own, {inherited} inherited, stopped {stop:?}, last {scan:?}");
    assert!(total > 1000, "hardly anything was compared: {total}");
}

#[test]
fn what_a_receiver_has_is_what_is_there() {
    churned(1);
}

#[test]
fn what_a_receiver_has_is_what_is_there_with_other_numbers() {
    let seed = std::env::var("FASTMIG_MEMORY_SEED").ok().and_then(|seed| seed.parse().ok());
    churned(seed.unwrap_or(2));
}

/// A tracker as a program of its own, for a test to kill.
fn track_for_ever(host: i32) -> ! {
    let process = [Process { host, id: 1, parent: None }];
    let method = method().unwrap();
    loop {
        let mut tracker = Tracker::new(method);
        for _ in 0..3 {
            let round = tracker.round(&process).unwrap();
            println!(">{}", round.cost.untracked);
        }
    }
}

#[test]
fn signals_calls_and_the_exit_code_are_as_without_us() {
    let Some(method) = method() else { return };
    let mut tree = Tree::start("signals");
    assert_eq!(tree.hear(), "ready");
    let (mut queued, mut stop) = (0, Vec::new());
    for turn in 0..60 {
        for _ in 0..turn % 4 {
            sys::queue(tree.pid(), libc::SIGRTMIN() + 3);
            queued += 1;
        }
        let mut tracker = Tracker::new(method);
        let round = tracker.round(&tree.processes()).unwrap();
        stop.push(round.cost.stop);
        assert_eq!(round.cost.untracked, 0);
        assert!(!round.pages.is_empty());
    }
    stop.sort_unstable();
    eprintln!("stopped {:?}, at most {:?}", stop[stop.len() / 2], stop.last());
    tree.tell();
    assert_eq!(tree.hear(), format!("{queued} 0 1000 true"), "signals, calls ended, bytes, SIGTRAP ignored");
    tree.tell();
    assert_eq!(tree.child.wait().unwrap().code(), Some(42));
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
    for _ in 0..25 {
        let role = format!("tracker {}", tree.pid());
        let mut tracker = tree::target(&role).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_micros(20_000 + random.below(60_000) as u64));
        tracker.kill().unwrap();
        let mut said = String::new();
        tracker.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        tracker.wait().unwrap();
        looks += said.matches(">0").count();
        tree.assert_alive();
    }
    assert!(looks > 25, "the trackers were killed before they began: {looks}");
    std::thread::sleep(Duration::from_millis(30));
    // Nothing of theirs is left: not a descriptor, not a tracer, not a registration.
    let status = std::fs::read_to_string(format!("/proc/{}/status", tree.pid())).unwrap();
    assert!(status.contains("TracerPid:\t0\n"), "{status}");
    for descriptor in std::fs::read_dir(format!("/proc/{}/fd", tree.pid())).unwrap() {
        let name = std::fs::read_link(descriptor.unwrap().path()).unwrap_or_default();
        assert!(!name.to_string_lossy().contains("userfaultfd"), "{name:?}");
    }
    let (mut tracker, mut receiver) = (Tracker::new(method), Receiver::default());
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

/// Kilobytes in memory, what is shared counted once.
fn proportional(tree: &Tree) -> u64 {
    let of = |process: &Process| -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", process.host)).unwrap();
        let line = text.lines().find(|line| line.starts_with("Pss:")).unwrap();
        line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
    };
    tree.processes().iter().map(of).sum()
}

#[test]
fn what_a_family_shares_is_sent_once_and_stays_shared() {
    let Some(method) = method() else { return };
    let mut tree = Tree::start("family");
    assert_eq!(tree.hear(), "ready");
    let before = proportional(&tree);
    let (mut tracker, mut receiver) = (Tracker::new(method), Receiver::default());
    let processes = tree.processes();
    assert_eq!(processes.len(), 4);
    receiver.take_round(&tracker.round(&processes).unwrap(), &processes);
    let pages = 32 << 20 >> 12;
    assert!(receiver.taken < pages * 13 / 10, "{} pages were sent for {pages}", receiver.taken);
    tree.tell();
    assert_eq!(tree.hear(), "written");
    // What the parent wrote was shared by three, who have it for themselves now; one round knows, the other is frozen.
    let (last_, covered) = last(&tree, &mut tracker, &mut receiver);
    let inherited = last_.mappings.iter().filter(|m| matches!(m.content, Content::Inherited { .. })).count();
    assert!(inherited >= 3, "{:?}", last_.mappings.len());
    assert!(covered.inherited > 3 * pages * 8 / 10, "{covered:?}");
    let absent = |m: &fastmig_memory::Mapping| match &m.content {
        Content::Inherited { absent, .. } => absent.iter().map(|span| (span.end - span.start) / 4096).sum(),
        Content::Own => 0,
    };
    assert!(last_.mappings.iter().map(absent).sum::<u64>() >= 27, "dropped pages are told");
    let after = proportional(&tree);
    assert!(after < before * 11 / 10, "{before} kB became {after}");
}

#[test]
fn huge_pages_are_joined_again() {
    let Some(method) = method() else { return };
    let mut tree = Tree::start("huge");
    tree.hear();
    let huge = || {
        let text = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", tree.pid())).unwrap();
        let line = text.lines().find(|line| line.starts_with("AnonHugePages:")).unwrap();
        line.split_ascii_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let before = huge();
    if before < 8192 {
        return eprintln!("skipped: no huge pages here: {before} kB");
    }
    let (mut tracker, mut receiver) = (Tracker::new(method), Receiver::default());
    let processes = tree.processes();
    receiver.take_round(&tracker.round(&processes).unwrap(), &processes);
    tree.tell();
    std::thread::sleep(Duration::from_millis(50));
    let split = huge();
    let (_, covered) = last(&tree, &mut tracker, &mut receiver);
    assert!(covered.own >= 8192, "{covered:?}");
    tree.thaw();
    tracker.end(true);
    let joined = huge();
    eprintln!("{before} kB in huge pages, {split} after tracked writes, {joined} at the end");
    assert!(split < before && joined == before);
}

#[test]
fn stacks_and_guards_are_left_to_others() {
    let Some(method) = method() else { return };
    let mut tree = Tree::start("strange");
    let said = tree.hear();
    let addresses: Vec<u64> =
        said.split(' ').map(|address| u64::from_str_radix(address, 16).unwrap()).collect();
    let (mut tracker, mut receiver) = (Tracker::new(method), Receiver::default());
    let processes = tree.processes();
    receiver.take_round(&tracker.round(&processes).unwrap(), &processes);
    let (last, _) = last(&tree, &mut tracker, &mut receiver);
    let listed = |address: u64| last.mappings.iter().any(|m| (m.start..m.end).contains(&address));
    assert!(listed(addresses[0]), "ordinary memory");
    assert!(!listed(addresses[2]), "a stack");
    let (id, smaps) = &last.smaps[0];
    assert_eq!(*id, processes[0].id);
    let smaps = String::from_utf8_lossy(smaps);
    assert!(smaps.contains("[vdso]") && smaps.matches("VmFlags:").count() * 2 == smaps.lines().count());
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let number = |at: usize| release.split(['.', '-']).nth(at).and_then(|text| text.parse::<u32>().ok());
    if (number(0), number(1)) < (Some(6), Some(13)) {
        return eprintln!("skipped: no guards in this kernel");
    }
    assert!(!listed(addresses[1]), "a guard");
}

#[test]
fn hashes_tell_a_frozen_process_from_itself_later() {
    let mut tree = Tree::start("steady 8 2");
    tree.hear();
    tree.freeze();
    let first = page_hashes(tree.pid(), 3).unwrap();
    assert!(first.len() > 2048);
    assert_eq!(first, page_hashes(tree.pid(), 1).unwrap());
    tree.thaw();
    std::thread::sleep(Duration::from_millis(50));
    tree.freeze();
    let later = page_hashes(tree.pid(), 3).unwrap();
    assert_ne!(first, later);
    let same = later.iter().filter(|pair| first.binary_search(pair).is_ok()).count();
    assert!(same > 1800, "{same} of {}", later.len());
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
