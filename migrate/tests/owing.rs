//! Memory that follows an application which has moved.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod common;

use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use common::ends::{Life, World};
use common::hosts::Hosts;
use fastmig_migrate::cancel::Cancel;
use fastmig_migrate::faults::Fault;
use fastmig_migrate::journal::Role;
use fastmig_migrate::options::Strategy;
use fastmig_migrate::report::{Outcome, Report};
use fastmig_migrate::state::State;

const MEMORY: usize = 9 << 20;

fn migrate(hosts: &Arc<Hosts>, strategy: Strategy, apart: Duration) -> Report {
    let mut plan = hosts.plan();
    plan.options.strategy = strategy;
    plan.options.limits.apart = apart;
    hosts.migrate_as(&plan, &Cancel::default())
}

fn judge(world: &World) {
    assert_eq!(world.lives.lock().unwrap().sins, Vec::<String>::new());
}

#[test]
fn it_moves_first_and_its_memory_follows() {
    for (strategy, rounds) in [(Strategy::PostCopy, 0), (Strategy::Hybrid, 1)] {
        let world = World::new(21, 3, MEMORY);
        world.writes.store(700_000, Ordering::SeqCst);
        let hosts = Hosts::new(&world);
        let report = migrate(&hosts, strategy, Duration::from_secs(5));
        assert_eq!(report.outcome, Outcome::Moved, "{report:#?}");
        judge(&world);
        assert_eq!((report.owed, report.last_round, report.faults), (MEMORY as u64, 0, 7));
        assert!(report.filled_ms.is_some() && report.rounds.len() >= rounds, "{report:#?}");
        assert_eq!(world.lives(), (Life::Standby, Life::Running));
        assert_eq!(*world.placed.lock().unwrap(), *world.tracked.lock().unwrap());
        let phases: Vec<_> = report.source.iter().map(|took| took.phase.name()).collect();
        let at = |name| phases.iter().position(|phase| *phase == name);
        assert!(at("commit") < at("serve") && at("serve") < at("end"), "{phases:?}");
        assert!(report.destination.iter().any(|took| took.phase.name() == "fill"));
    }
}

/// Right when it runs.
fn cut_when_released(hosts: &Arc<Hosts>, heals_after: Option<Duration>) {
    let network = hosts.network.clone();
    hosts.world.slow.store(10, Ordering::SeqCst);
    hosts.inject(Arc::new(move |role, point| {
        if (role, point) == (Role::Destination, "fill") {
            network.cut();
            let network = network.clone();
            thread::spawn(move || {
                if let Some(pause) = heals_after {
                    thread::sleep(pause);
                    network.heal();
                }
            });
        }
        Fault::None
    }));
}

#[test]
fn a_link_that_is_cut_for_a_while_costs_only_time() {
    let world = World::new(22, 3, MEMORY);
    let hosts = Hosts::new(&world);
    cut_when_released(&hosts, Some(Duration::from_secs(3)));
    let report = migrate(&hosts, Strategy::PostCopy, Duration::from_secs(20));
    assert_eq!(report.outcome, Outcome::Moved, "{report:#?}");
    judge(&world);
    assert_eq!(world.lives(), (Life::Standby, Life::Running));
    assert_eq!(*world.placed.lock().unwrap(), *world.tracked.lock().unwrap());
}

#[test]
fn a_source_that_is_lost_ends_it_and_is_told_when_it_comes_back() {
    let world = World::new(23, 3, MEMORY);
    let hosts = Hosts::apart(&world, Duration::from_secs(1));
    cut_when_released(&hosts, None);
    let report = migrate(&hosts, Strategy::PostCopy, Duration::from_secs(1));
    assert_eq!(report.outcome, Outcome::Undecided, "{report:#?}");
    for _ in 0..100 {
        if world.lives() == (Life::Fenced, Life::Standby) {
            break;
        }
        thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(world.lives(), (Life::Fenced, Life::Standby), "it was killed there, and does not run here");
    let journal = hosts.destination().unwrap().journal.record(report.id, Role::Destination).unwrap();
    assert_eq!(journal.state, State::Lost);
    hosts.stop_injecting();
    hosts.restart_source();
    judge(&world);
    assert_eq!(world.lives(), (Life::Standby, Life::Standby));
}

/// Whoever fetches it belongs to no daemon.
#[test]
fn a_destination_whose_daemon_dies_keeps_it() {
    let world = World::new(24, 3, MEMORY);
    let hosts = Hosts::new(&world);
    world.slow.store(10, Ordering::SeqCst);
    let died = Arc::clone(&world);
    hosts.inject(Arc::new(move |role, point| {
        if (role, point) == (Role::Destination, "fill") {
            died.destination_died.store(true, Ordering::SeqCst);
            return Fault::Die;
        }
        Fault::None
    }));
    let report = migrate(&hosts, Strategy::PostCopy, Duration::from_secs(20));
    assert_eq!(report.outcome, Outcome::Moved, "{report:#?}");
    judge(&world);
    assert_eq!(world.lives(), (Life::Standby, Life::Running));
    assert_eq!(*world.placed.lock().unwrap(), *world.tracked.lock().unwrap());
    let record = hosts.destination().unwrap().journal.record(report.id, Role::Destination).unwrap();
    let told = record.report.unwrap();
    assert_eq!((record.state, told.outcome, told.owed), (State::Released, Outcome::Moved, MEMORY as u64));
}
