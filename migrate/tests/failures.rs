//! Every way to fail, at every phase, on either side: exactly one copy lives in the end, never two at any time, the source
//! runs again within a bound, and the next try succeeds.

#![allow(clippy::unwrap_used)]

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{mpsc, Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::ends::{Life, World};
use common::hosts::{limits, Hosts};
use fastmig_migrate::cancel::Cancel;
use fastmig_migrate::faults::Fault;
use fastmig_migrate::journal::Role;
use fastmig_migrate::options::Strategy;
use fastmig_migrate::report::Outcome;

/// The longest that the source may stand still: its limit, and what a busy machine adds.
const SLACK: Duration = Duration::from_secs(3);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    /// A step fails.
    Fails,
    /// The daemon dies, and starts again.
    Dies,
    /// All connections break; new ones can be made soon after.
    IsCut,
    /// Nothing arrives any more, for longer than anybody waits.
    IsSilent,
}

const HOWS: [How; 4] = [How::Fails, How::Dies, How::IsCut, How::IsSilent];

const SOURCE: [&str; 34] = [
    "connect",
    "connect-done",
    "prepare",
    "prepare-done",
    "files",
    "files-done",
    "ready",
    "ready-done",
    "rounds",
    "round-1",
    "round-2",
    "rounds-done",
    "pre-checkpoint",
    "pre-checkpoint-done",
    "freeze",
    "freeze-done",
    "last-round",
    "last-round-done",
    "last-files",
    "last-files-done",
    "dump",
    "dump-done",
    "post-checkpoint",
    "post-checkpoint-done",
    "restore",
    "restore-done",
    "verify",
    "verify-done",
    "commit",
    "fenced",
    "deciding",
    "commit-sent",
    "commit-done",
    "end",
];

const DESTINATION: [&str; 26] = [
    "connect",
    "connect-done",
    "prepare",
    "prepare-done",
    "files",
    "ready",
    "ready-done",
    "rounds",
    "rounds-done",
    "last-round",
    "last-round-done",
    "last-files",
    "dump",
    "dump-done",
    "pre-restore",
    "restore",
    "restore-done",
    "verify",
    "verify-done",
    "commit",
    "commit-done",
    "release",
    "committed",
    "released",
    "release-done",
    "post-restore",
];

const SOURCE_OWING: [&str; 9] = [
    "rounds",
    "last-round",
    "restore-done",
    "fenced",
    "deciding",
    "commit-sent",
    "commit-done",
    "serve",
    "end",
];

const DESTINATION_OWING: [&str; 9] = [
    "last-round",
    "restore-done",
    "commit",
    "commit-done",
    "committed",
    "released",
    "release-done",
    "post-restore",
    "fill",
];

/// One row of the table.
#[derive(Debug, Clone, Copy)]
struct Case {
    role: Role,
    point: &'static str,
    how: How,
    /// Memory follows the application.
    owes: bool,
}

#[test]
fn exactly_one_copy_lives_whatever_fails_wherever() {
    let rows = |role, points: &[&'static str]| -> Vec<Case> {
        let rows = points.iter().flat_map(|point| HOWS.map(|how| Case { role, point, how, owes: false }));
        rows.collect()
    };
    let mut cases = rows(Role::Source, &SOURCE);
    cases.extend(rows(Role::Destination, &DESTINATION));
    try_all(cases);
}

/// Also while memory follows the application; but when the destination's daemon dies then, so does the application. The source's
/// may: it serves on when it has started again.
#[test]
fn at_most_one_copy_lives_while_memory_follows_it() {
    let rows = |role, points: &[&'static str]| -> Vec<Case> {
        let rows = points.iter().flat_map(|point| HOWS.map(|how| Case { role, point, how, owes: true }));
        rows.collect()
    };
    let mut cases = rows(Role::Source, &SOURCE_OWING);
    cases.extend(rows(Role::Destination, &DESTINATION_OWING));
    try_all(cases);
}

fn try_all(cases: Vec<Case>) {
    let count = cases.len();
    let cases = Mutex::new(cases.into_iter());
    let (failed, failures) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| loop {
                let next = cases.lock().unwrap().next();
                let Some(case) = next else {
                    return;
                };
                if let Err(reason) = try_case(case) {
                    failed.send(format!("{case:?}: {reason}")).unwrap();
                }
            });
        }
    });
    drop(failed);
    let failures: Vec<_> = failures.into_iter().collect();
    assert!(failures.is_empty(), "{} of {count} cases:\n{}", failures.len(), failures.join("\n"));
}

/// By whom, the protocol does not know: the kernel, out of memory, or somebody who removes the container.
#[test]
fn what_was_killed_while_it_was_held_is_not_committed() {
    let world = World::new(11, 3, 3 << 20);
    let hosts = Hosts::new(&world);
    let there = Arc::clone(&world);
    hosts.inject(Arc::new(move |role, point| {
        if (role, point) == (Role::Source, "deciding") {
            there.destination(Life::Standby, "killed");
        }
        Fault::None
    }));
    let report = hosts.migrate();
    assert_eq!(report.outcome, Outcome::Stayed, "{report:?}");
    assert_eq!(world.lives(), (Life::Running, Life::Standby));
    hosts.stop_injecting();
    assert_eq!(hosts.migrate().outcome, Outcome::Moved);
    judge(&world).unwrap();
}

fn try_case(case: Case) -> Result<(), String> {
    let world = World::new(11, 3, 3 << 20);
    let hosts = Hosts::new(&world);
    let happened = inject(&hosts, case);
    world.writes.store(700_000, Ordering::SeqCst);
    // Of all strategies the one with most steps.
    let mut plan = hosts.plan();
    (plan.options.strategy, plan.options.verify) = (Strategy::PreCopy, true);
    if case.owes {
        (plan.options.strategy, plan.options.verify) = (Strategy::PostCopy, false);
        // So that there is something left to follow.
        world.slow.store(20, Ordering::SeqCst);
    }
    let report = hosts.migrate_as(&plan, &Cancel::default());
    if report.reason.as_deref() == Some("died") {
        hosts.restart_source();
    }
    let reason = format!("{:?} {:?} {:?}", report.outcome, report.reason, report.warnings);
    if !happened.load(Ordering::SeqCst) {
        return Err(format!("the fault's point was never reached: {reason}"));
    }
    let may_end = case.owes && (case.role, case.how) != (Role::Source, How::Dies);
    settled(&world, may_end).map_err(|lives| format!("in the end {lives:?}; {reason}"))?;
    hosts.stop_injecting();
    judge(&world)?;
    let lives = world.lives();
    let as_reported = match report.outcome {
        Outcome::Moved => lives == (Life::Standby, Life::Running),
        Outcome::Stayed => lives == (Life::Running, Life::Standby),
        Outcome::Undecided => case.how == How::Dies && case.role == Role::Source,
        Outcome::Stopped => false,
        Outcome::Lost => case.owes && lives == (Life::Standby, Life::Standby),
    };
    if !as_reported {
        return Err(format!("{lives:?} but {reason}"));
    }
    if lives.0 == Life::Running {
        let mut plan = hosts.plan();
        (plan.options.strategy, plan.options.verify) = (Strategy::PreCopy, true);
        // How long it takes on a busy machine is not what this is about.
        plan.options.limits.frozen = Duration::from_secs(30);
        let next = hosts.migrate_as(&plan, &Cancel::default());
        if next.outcome != Outcome::Moved || world.lives() != (Life::Standby, Life::Running) {
            return Err(format!("the next try: {:?}; the first: {reason}", next.reason));
        }
        judge(&world)?;
    }
    Ok(())
}

/// Lets it happen once, when the point is reached for the first time.
fn inject(hosts: &Arc<Hosts>, case: Case) -> Arc<AtomicBool> {
    let happened = Arc::new(AtomicBool::new(false));
    let (flag, network, world) = (Arc::clone(&happened), hosts.network.clone(), Arc::clone(&hosts.world));
    hosts.inject(Arc::new(move |role, point| {
        if (role, point) != (case.role, case.point) || flag.swap(true, Ordering::SeqCst) {
            return Fault::None;
        }
        let heal_after = |pause| {
            let network = network.clone();
            thread::spawn(move || {
                thread::sleep(pause);
                network.heal();
            });
        };
        match case.how {
            How::Fails => return Fault::Fail("it fails".to_owned()),
            How::Dies => {
                let died = if role == Role::Source { &world.source_died } else { &world.destination_died };
                died.store(true, Ordering::SeqCst);
                return Fault::Die;
            }
            How::IsCut => {
                network.cut();
                heal_after(Duration::from_millis(300));
            }
            How::IsSilent => {
                network.fall_silent();
                heal_after(Duration::from_secs(5));
            }
        }
        Fault::None
    }));
    happened
}

/// Waits until one side runs and the other stands by, or, where that may be, neither runs.
fn settled(world: &World, may_end: bool) -> Result<(), (Life, Life)> {
    let begun = Instant::now();
    loop {
        let lives = world.lives();
        if matches!(lives, (Life::Running, Life::Standby) | (Life::Standby, Life::Running)) {
            return Ok(());
        }
        if may_end && lives == (Life::Standby, Life::Standby) {
            return Ok(());
        }
        if begun.elapsed() > Duration::from_secs(15) {
            return Err(lives);
        }
        thread::sleep(Duration::from_millis(10));
    }
}

fn judge(world: &World) -> Result<(), String> {
    let lives = world.lives.lock().unwrap();
    if !lives.sins.is_empty() {
        return Err(lives.sins.join("; "));
    }
    // Once the commit is sent, only the destination can say: then the silence adds to it.
    let most = limits().frozen + Duration::from_secs(5) + SLACK;
    if lives.longest_frozen > most {
        return Err(format!("it stood still for {:?}", lives.longest_frozen));
    }
    Ok(())
}
