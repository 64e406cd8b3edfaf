//! Memory that travels in rounds while the application runs.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod common;

use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Duration;

use common::ends::{Life, World, DOUBTFUL};
use common::hosts::Hosts;
use fastmig_migrate::cancel::Cancel;
use fastmig_migrate::journal::Role;
use fastmig_migrate::options::{OnTimeout, Rounds, Strategy};
use fastmig_migrate::report::{Outcome, Report, RoundsEnd};

fn migrate(world: &Arc<World>, rounds: Rounds) -> Report {
    let hosts = Hosts::new(world);
    let mut plan = hosts.plan();
    plan.options.strategy = Strategy::PreCopy;
    plan.options.verify = true;
    plan.options.rounds = rounds;
    let report = hosts.migrate_as(&plan, &Cancel::default());
    assert_eq!(world.lives.lock().unwrap().sins, Vec::<String>::new());
    report
}

#[test]
fn what_changed_travels_again_and_all_of_it_is_there() {
    let world = World::new(11, 3, 9 << 20);
    world.writes.store(700_000, Ordering::SeqCst);
    let report = migrate(&world, Rounds::default());
    assert_eq!(report.outcome, Outcome::Moved, "{report:#?}");
    assert_eq!((report.strategy, report.rounds_end), (Strategy::PreCopy, Some(RoundsEnd::Converged)));
    assert_eq!(report.rounds[0].bytes, 9 << 20);
    assert_eq!((report.rounds[1].bytes, report.last_round), (700_000, 700_000));
    assert_eq!(report.verified_pages, Some((9 << 20) / 4096));
    let phases: Vec<_> = report.source.iter().map(|took| took.phase.name()).collect();
    let order = ["rounds", "freeze", "last-round", "dump", "restore", "verify", "commit"];
    let at: Vec<_> = order.iter().map(|name| phases.iter().position(|phase| phase == name)).collect();
    assert!(at.iter().all(Option::is_some) && at.is_sorted(), "{phases:?}");
    assert_eq!(world.lives(), (Life::Standby, Life::Running));
}

#[test]
fn one_wrong_byte_keeps_the_application_where_it_is() {
    let world = World::new(12, 3, 3 << 20);
    world.spoils.store(true, Ordering::SeqCst);
    let report = migrate(&world, Rounds::default());
    assert_eq!(report.outcome, Outcome::Stayed);
    assert!(report.reason.as_ref().is_some_and(|reason| reason.contains("memory differs")), "{report:#?}");
    assert_eq!(world.lives(), (Life::Running, Life::Standby));
}

#[test]
fn a_doubt_of_either_end_is_told_as_one() {
    for end in [Role::Source, Role::Destination] {
        let world = World::new(12, 3, 3 << 20);
        *world.doubts.lock().unwrap() = Some(end);
        let report = migrate(&world, Rounds::default());
        assert_eq!(
            (report.outcome, report.doubt.clone()),
            (Outcome::Stayed, Some(vec![DOUBTFUL])),
            "{end:?}: {report:#?}"
        );
        assert!(report.reason.as_ref().is_some_and(|reason| reason.contains("half of it")), "{report:#?}");
        assert_eq!(world.lives(), (Life::Running, Life::Standby));
        *world.doubts.lock().unwrap() = None;
        world.spoils.store(true, Ordering::SeqCst);
        let report = migrate(&world, Rounds::default());
        assert!(report.doubt.is_none(), "memory that differs is no doubt, but wrong: {report:#?}");
    }
}

/// It writes all of its memory between two rounds, however short.
fn outrun(on_timeout: OnTimeout) -> (Arc<World>, Report) {
    let world = World::new(13, 3, 12 << 20);
    world.writes.store(400 << 20, Ordering::SeqCst);
    // No freeze is ever short enough.
    let max_downtime = Duration::from_millis(1);
    let rounds = Rounds { max_downtime, most: 4, on_timeout, ..Rounds::default() };
    let report = migrate(&world, rounds);
    (world, report)
}

#[test]
fn an_application_that_outruns_the_link_is_stopped_when_asked() {
    let (world, report) = outrun(OnTimeout::Force);
    assert_eq!((report.outcome, report.rounds_end), (Outcome::Moved, Some(RoundsEnd::Forced)), "{report:#?}");
    assert_eq!(report.rounds.len(), 4);
    assert_eq!(world.lives(), (Life::Standby, Life::Running));
}

#[test]
fn or_stays() {
    let (world, report) = outrun(OnTimeout::Abort);
    assert_eq!(report.outcome, Outcome::Stayed);
    let reason = report.reason.unwrap_or_default();
    assert!(reason.contains("MiB/s") && reason.contains("--on-timeout"), "{reason}");
    assert_eq!((world.lives().0, report.frozen_ms), (Life::Running, None));
}

#[test]
fn or_is_slowed_down_step_by_step() {
    let (world, report) = outrun(OnTimeout::Throttle);
    assert_eq!(report.outcome, Outcome::Moved, "{report:#?}");
    assert!(report.throttled >= 80 && world.throttled.load(Ordering::SeqCst) >= 80, "{report:#?}");
}

#[test]
fn what_the_destination_does_beside_says_nothing_of_the_link() {
    let world = World::new(14, 3, 8 << 20);
    world.aside_ms.store(700, Ordering::SeqCst);
    let report = migrate(&world, Rounds { most: 1, ..Rounds::default() });
    let round = &report.rounds[0];
    assert!(round.milliseconds >= 700, "{round:?}");
    let with_all = round.bytes * 1000 / round.milliseconds;
    assert!(round.rate > with_all * 3 / 2, "{with_all} {round:?}");
}
