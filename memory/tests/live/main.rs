//! Real processes, tracked while they do their worst; each page of what a receiver then has compared with what is there.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod churn;
mod content;
mod receiver;
mod roles;
mod shared;
mod sys;
mod tree;
mod unharmed;

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use fastmig_memory::{probe, Last, Method, Process, Tracker};

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
        "program" => panic!("{}", Command::new("sh").args(["-c", argument]).exec()),
        "steady" => roles::steady(argument),
        "dense" => roles::dense(argument),
        "signals" => roles::signals(),
        "direct" => roles::direct(argument),
        "grows" => roles::grows(),
        "filtered" => roles::filtered(),
        "family" => roles::family(),
        "huge" => roles::huge(),
        "gives-back" => roles::gives_back(),
        "moved" => roles::moved(),
        "strange" => roles::strange(),
        "sharing" => shared::main(argument.parse().unwrap()),
        "pool" => shared::pool(argument),
        "watched" => shared::watched(argument.parse().unwrap()),
        other => panic!("no role {other}"),
    }
}

/// What is tried with; nothing where nothing can work. `FASTMIG_MEMORY_METHOD` says what must, where both may.
fn method() -> Option<Method> {
    match std::env::var("FASTMIG_MEMORY_METHOD").as_deref() {
        Ok("write-protect") => return Some(Method::WriteProtect),
        Ok("soft-dirty") => return Some(Method::SoftDirty),
        Ok(other) => panic!("no method {other}"),
        Err(_) => {}
    }
    let error = match probe() {
        Ok(method) => return Some(method),
        Err(error) => error,
    };
    // Or a mistake in what is tested would skip its tests.
    let possible = cfg!(target_arch = "x86_64")
        && kernel() >= (6, 7)
        && std::path::Path::new("/proc/sys/vm/unprivileged_userfaultfd").exists();
    assert!(!possible, "{error}");
    eprintln!("skipped: {error}");
    None
}

/// Whether this machine is an emulated one, which takes twenty times as long for all.
fn is_slow() -> bool {
    std::env::var_os("FASTMIG_MEMORY_SLOW").is_some()
}

/// So many turns, or fewer.
fn turns(usual: usize) -> usize {
    if is_slow() {
        usual.div_ceil(5)
    } else {
        usual
    }
}

fn kernel() -> (u32, u32) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap(), numbers.next().unwrap())
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
    for _ in 0..turns(3) {
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

/// `FASTMIG_MEMORY_PROGRAM='java -jar x.jar' cargo test -p fastmig-memory --test live program -- --ignored --nocapture`
#[test]
#[ignore = "needs a program to be named"]
fn a_program_of_choice() {
    let (Some(method), Ok(program)) = (method(), std::env::var("FASTMIG_MEMORY_PROGRAM")) else { return };
    let mut tree = Tree::start(&format!("program {program}"));
    std::thread::sleep(Duration::from_secs(3));
    let (mut tracker, mut receiver) = (Tracker::new(method).with_stacks(), Receiver::default());
    for _ in 0..5 {
        if tree.child.try_wait().unwrap().is_some() {
            break;
        }
        for _ in 0..3 {
            let processes = tree.processes();
            let round = tracker.round(&processes).unwrap();
            eprintln!("round: {:?}", round.cost);
            receiver.take_round(&round, &processes);
        }
        let (last, covered) = last(&tree, &mut tracker, &mut receiver);
        let all: usize = tree
            .processes()
            .iter()
            .map(|process| fastmig_memory::page_hashes(process.host, 4).unwrap().len())
            .sum();
        eprintln!("last: {:?}; {covered:?} of {all} pages", last.cost);
        tree.thaw();
        std::thread::sleep(Duration::from_millis(200));
    }
    tracker.end(true);
    eprintln!("it has ended with {}", tree.child.wait().unwrap());
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
