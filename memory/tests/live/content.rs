//! What is sent, what is shared, what is left, and what it costs.

use std::time::Duration;

use fastmig_memory::{page_hashes, Content, Method, Process, Tracker};

use crate::receiver::Receiver;
use crate::tree::Tree;
use crate::{kernel, last, method, turns};

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
    // What the parent wrote was shared by three, who have it for themselves now, though they wrote nothing.
    let taken = receiver.taken;
    receiver.take_round(&tracker.round(&processes).unwrap(), &processes);
    assert!(receiver.taken - taken > 3 * pages / 60, "{}", receiver.taken - taken);
    let taken = receiver.taken;
    let (last_, covered) = last(&tree, &mut tracker, &mut receiver);
    assert!(receiver.taken - taken < pages / 60, "{} were left for the freeze", receiver.taken - taken);
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

/// Linux 6.18 loses pages where one scan protects more than 512 regions: scans are cut so that none does. (With room for 4096 and
/// pieces of a GiB, this fails within a second.)
#[test]
fn what_is_written_densely_is_told() {
    let Some(method) = method() else { return };
    let mut tree = Tree::start("dense 64");
    assert_eq!(tree.hear(), "ready");
    let (mut tracker, mut receiver) = (Tracker::new(method), Receiver::default());
    for _ in 0..turns(8) {
        for _ in 0..4 {
            let processes = tree.processes();
            receiver.take_round(&tracker.round(&processes).unwrap(), &processes);
        }
        let (_, covered) = last(&tree, &mut tracker, &mut receiver);
        assert!(covered.own >= 64 << 8, "{covered:?}");
        tree.thaw();
    }
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
    // Soft-dirty bits are of huge pages as well, which stay whole.
    assert!(split < before || method == Method::SoftDirty);
    // Each needs 2 MiB in one piece, which a busy machine may not have for every one.
    assert!((joined > split || split == before) && joined >= before / 2, "{joined} of {before} kB");
}

/// What the freeze asks the kernel is what is not clean: what is gone must be told of too, with its page table or without.
#[test]
fn what_is_given_back_is_gone() {
    let Some(method) = method() else { return };
    for rounds in [1, 2] {
        let mut tree = Tree::start("gives-back");
        assert_eq!(tree.hear(), "ready");
        let (mut tracker, mut receiver) = (Tracker::new(method), Receiver::default());
        let processes = tree.processes();
        receiver.take_round(&tracker.round(&processes).unwrap(), &processes);
        tree.tell();
        let there: u64 = tree.hear().parse().unwrap();
        if rounds == 2 {
            receiver.take_round(&tracker.round(&processes).unwrap(), &processes);
        }
        let taken = receiver.taken;
        let (last, covered) = last(&tree, &mut tracker, &mut receiver);
        let discarded: u64 =
            last.discard.iter().flat_map(|p| &p.spans).map(|s| (s.end - s.start) >> 12).sum();
        let pages = 2 * (4 << 9) + 18 - 3;
        assert!((pages..pages + 200).contains(&discarded) == (rounds == 1), "{discarded} are gone");
        // The program, the library of C and their memory are more.
        assert!((there..there + 400).contains(&covered.own), "{covered:?}, {there} there");
        assert!(receiver.taken - taken < 200, "{} were left for the freeze", receiver.taken - taken);
    }
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
    if kernel() < (6, 13) {
        return eprintln!("skipped: no guards in this kernel");
    }
    assert!(!listed(addresses[1]), "a guard");
}

#[test]
fn stacks_are_sent_where_they_are_wanted() {
    let Some(method) = method() else { return };
    let mut tree = Tree::start("strange");
    let said = tree.hear();
    let stack = u64::from_str_radix(said.split(' ').nth(2).unwrap(), 16).unwrap();
    let (mut tracker, mut receiver) = (Tracker::new(method).with_stacks(), Receiver::default());
    for _ in 0..3 {
        let processes = tree.processes();
        receiver.take_round(&tracker.round(&processes).unwrap(), &processes);
    }
    let (last, _) = last(&tree, &mut tracker, &mut receiver);
    assert!(last.mappings.iter().any(|m| (m.start..m.end).contains(&stack)));
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
#[ignore = "prints what tracking costs, for people; FASTMIG_MEMORY_MIB says how much memory"]
fn costs() {
    let Some(method) = method() else { return };
    let size = std::env::var("FASTMIG_MEMORY_MIB").unwrap_or_else(|_| "1024".into());
    let mut tree = Tree::start(&format!("steady {size} 5"));
    tree.hear();
    let mut tracker = Tracker::new(method);
    for _ in 0..5 {
        let cost = tracker.round(&tree.processes()).unwrap().cost;
        eprintln!("round: stopped {:?}, took {:?}", cost.stop, cost.scan);
    }
    for _ in 0..5 {
        tree.freeze();
        let last = tracker.last(&tree.processes()).unwrap();
        let pages: u64 = last.pages.iter().flat_map(|p| &p.spans).map(|s| (s.end - s.start) / 4096).sum();
        tree.thaw();
        eprintln!("last: took {:?}, {pages} pages, {} mappings", last.cost.scan, last.mappings.len());
        std::thread::sleep(Duration::from_millis(20));
    }
    for _ in 0..8 {
        tracker.end(false);
        tracker = Tracker::new(method);
        let cost = tracker.round(&tree.processes()).unwrap().cost;
        eprintln!("anew: stopped {:?}, took {:?}", cost.stop, cost.scan);
    }
}

#[test]
fn what_devices_write_is_seen() {
    let Some(method) = method() else { return };
    let file = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let content: Vec<u8> = (0..8_u64 << 20).step_by(8).flat_map(|at| (at ^ 0x5555).to_ne_bytes()).collect();
    std::fs::write(file.path(), content).unwrap();
    let mut tree = Tree::start(&format!("direct {}", file.path().display()));
    if tree.hear() == "no" {
        return eprintln!("skipped: no direct I/O on this file system");
    }
    let (mut tracker, mut receiver) = (Tracker::new(method), Receiver::default());
    for _ in 0..turns(20) {
        let mut tracked = 0;
        for _ in 0..30 {
            let processes = tree.processes();
            let round = tracker.round(&processes).unwrap();
            receiver.take_round(&round, &processes);
            // Whom a device keeps in a call for long is left for a round.
            if round.cost.untracked == 0 {
                assert!(round.cost.stop > Duration::ZERO, "it was not waited for");
                tracked += 1;
            }
            if tracked == 3 {
                break;
            }
        }
        let (_, covered) = last(&tree, &mut tracker, &mut receiver);
        assert!(covered.own >= 512, "{covered:?}");
        tree.thaw();
    }
}

#[test]
fn what_is_moved_over_what_was_sent_is_seen() {
    let Some(method) = method() else { return };
    for rounds in [0, 1] {
        let mut tree = Tree::start("moved");
        let target = u64::from_str_radix(&tree.hear(), 16).unwrap();
        let (mut tracker, mut receiver) = (Tracker::new(method), Receiver::default());
        let processes = tree.processes();
        for _ in 0..2 {
            receiver.take_round(&tracker.round(&processes).unwrap(), &processes);
        }
        tree.tell();
        assert_eq!(tree.hear(), "moved");
        for _ in 0..rounds {
            receiver.take_round(&tracker.round(&processes).unwrap(), &processes);
        }
        let (last, _) = last(&tree, &mut tracker, &mut receiver);
        let is_listed = last.mappings.iter().any(|m| (m.start..m.end).contains(&target));
        assert!(is_listed || rounds == 0, "with a round after it, it is ours again");
    }
}
