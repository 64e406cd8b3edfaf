//! Whole migrations between two hosts within this process.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod common;

use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use common::ends::{Life, World};
use common::hosts::Hosts;
use fastmig_migrate::cancel::Cancel;
use fastmig_migrate::hooks::Stage;
use fastmig_migrate::journal::Role;
use fastmig_migrate::options::{Compression, Options};
use fastmig_migrate::report::{Outcome, Report};
use fastmig_migrate::state::State;
use fastmig_migrate::transport::Connection;

#[test]
fn an_application_moves() {
    let world = World::new(1, 8, 6 << 20);
    let hosts = Hosts::new(&world);
    let report = hosts.migrate();
    assert_eq!(report.outcome, Outcome::Moved, "{report:#?}");
    assert_eq!(world.lives(), (Life::Standby, Life::Running));
    assert_eq!(report.warnings, Vec::<String>::new());
    // Three rounds: of 3 MB, of less than a small round, and the one in the freeze.
    assert_eq!((report.file_rounds, report.streams), (3, 4));
    let memory: usize = world.memory.values().map(Vec::len).sum();
    assert_eq!(report.bytes.memory, memory as u64);
    assert!(report.bytes.zero > report.bytes.memory / 4, "{report:#?}");
    assert!(report.frozen_ms.is_some_and(|frozen| frozen <= report.total_ms));
    assert!(report.destination.iter().any(|took| took.phase.name() == "restore"), "{report:#?}");

    let record = hosts.source_journal().record(report.id, Role::Source).unwrap();
    assert_eq!((record.state, record.settled, record.report.as_ref()), (State::Done, true, Some(&report)));
    let destination = hosts.destination().unwrap();
    let settled =
        || destination.journal.record(report.id, Role::Destination).is_ok_and(|record| record.settled);
    wait_until("the destination's record is settled", settled);

    use Stage::{PostCheckpoint, PostRestore, PreCheckpoint, PreRestore};
    let hooks: Vec<_> = hosts.hooks.0.lock().unwrap().iter().map(|(_, stage)| *stage).collect();
    assert_eq!(hooks, [PreCheckpoint, PostCheckpoint, PreRestore, PostRestore]);
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(10), "never: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn moves_with(change: impl FnOnce(&mut Options)) {
    let world = World::new(2, 3, 4 << 20);
    let mut hosts = Hosts::new(&world);
    // Only the destination, which is made anew below, shares them.
    let mut plan = hosts.plan();
    change(&mut plan.options);
    let report = Arc::clone(&hosts).migrate_as(&plan, &Cancel::default());
    assert_eq!(report.outcome, Outcome::Moved, "{report:#?}");
    assert_eq!(report.streams, plan.options.streams);
    let _ = &mut hosts;
}

#[test]
fn it_moves_however_it_is_compressed() {
    for compression in [Compression::Auto, Compression::None, Compression::Lz4, Compression::Zstd] {
        moves_with(|options| options.compression = compression);
    }
}

#[test]
fn it_moves_over_one_connection_and_over_many() {
    moves_with(|options| options.streams = 1);
    moves_with(|options| options.streams = 16);
}

#[test]
fn it_moves_without_files() {
    moves_with(|options| options.file_rounds = 0);
}

#[test]
fn the_image_travels_when_a_container_is_made() {
    let hosts = Hosts::new(&World::new(3, 1, 1 << 20));
    let mut plan = hosts.plan();
    plan.wanted.create = Some(serde_json::json!({"image": "nginx"}));
    let report = hosts.migrate_as(&plan, &Cancel::default());
    assert_eq!(report.outcome, Outcome::Moved, "{report:#?}");
    assert!(report.source.iter().any(|took| took.phase.name() == "image"));
}

#[test]
fn a_refusal_says_why_and_costs_nothing() {
    let world = World::new(4, 1, 1 << 20);
    let hosts = Hosts::new(&world);
    let mut plan = hosts.plan();
    plan.wanted.container = "none".to_owned();
    let report = hosts.migrate_as(&plan, &Cancel::default());
    assert_eq!(report.outcome, Outcome::Stayed);
    let reason = report.reason.unwrap();
    assert!(reason.contains("no container none waits here; create it"), "{reason}");
    assert_eq!(report.frozen_ms, None);
    assert_eq!(world.lives(), (Life::Running, Life::Standby));
}

#[test]
fn the_same_migration_is_not_tried_twice() {
    let world = World::new(5, 1, 1 << 20);
    let hosts = Hosts::new(&world);
    let mut plan = hosts.plan();
    plan.wanted.container = "none".to_owned();
    hosts.migrate_as(&plan, &Cancel::default());
    plan.wanted.container = "web".to_owned();
    let report = hosts.migrate_as(&plan, &Cancel::default());
    assert!(report.reason.unwrap().contains("was tried before"));
}

#[test]
fn a_cancelled_migration_goes_back() {
    let world = World::new(6, 2, 8 << 20);
    world.slow.store(500, Ordering::Relaxed);
    let hosts = Hosts::new(&world);
    let cancel = Cancel::default();
    let report = thread::scope(|scope| {
        let migration = scope.spawn(|| hosts.migrate_as(&hosts.plan(), &cancel));
        let restoring = || hosts.hooks.0.lock().unwrap().iter().any(|(_, stage)| *stage == Stage::PreRestore);
        wait_until("it is being restored", restoring);
        assert_eq!(world.lives().0, Life::Frozen);
        cancel.cancel();
        migration.join().unwrap()
    });
    assert_eq!(report.outcome, Outcome::Stayed, "{report:#?}");
    assert_eq!(report.reason.as_deref(), Some("the migration was cancelled"));
    assert_eq!(world.lives().0, Life::Running);
    wait_until("the destination is in standby", || world.lives().1 == Life::Standby);
    let aborted = |role: &str| hosts.hooks.0.lock().unwrap().contains(&(role.to_owned(), Stage::Aborted));
    wait_until("both undo their hooks", || aborted("source") && aborted("destination"));
    world.slow.store(0, Ordering::Relaxed);
    assert_eq!(hosts.migrate().outcome, Outcome::Moved);
}

#[test]
fn the_source_says_how_long_a_freeze_may_take() {
    let world = World::new(8, 2, 12 << 20);
    // Longer than the destination's own limit of four seconds.
    world.slow.store(700, Ordering::Relaxed);
    let hosts = Hosts::new(&world);
    let mut plan = hosts.plan();
    plan.options.limits.frozen = Duration::from_secs(60);
    plan.options.streams = 2;
    let report = hosts.migrate_as(&plan, &Cancel::default());
    assert_eq!(report.outcome, Outcome::Moved, "{report:#?}");
    assert!(report.frozen_ms.unwrap() > 4000, "{report:#?}");
}

#[test]
fn a_bound_on_the_freeze_holds_while_memory_still_comes() {
    let world = World::new(7, 2, 20 << 20);
    world.slow.store(400, Ordering::Relaxed);
    let hosts = Hosts::new(&world);
    let mut plan = hosts.plan();
    plan.options.limits.frozen = Duration::from_secs(1);
    let report = hosts.migrate_as(&plan, &Cancel::default());
    assert_eq!(report.outcome, Outcome::Stayed, "{report:#?}");
    let reason = report.reason.unwrap();
    assert!(reason.contains("stood still for 1 s"), "{reason}");
    assert!(report.frozen_ms.unwrap() < 1500);
}

/// A connection that breaks once so much was sent over it.
#[derive(Debug)]
struct Brittle {
    inner: Box<dyn Connection>,
    left: usize,
}

impl Read for Brittle {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.inner.read(into)
    }
}

impl Write for Brittle {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(&bytes[..bytes.len().min(self.left)])?;
        self.left -= written;
        if written == 0 {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl Connection for Brittle {
    fn limit(&mut self, limit: Duration) -> io::Result<()> {
        self.inner.limit(limit)
    }
}

/// The control connection is whole; data connections break, but for so many.
fn migrate_brittle(whole: u64) -> Report {
    let hosts = Hosts::new(&World::new(31, 4, 12 << 20));
    let wrap = |number, inner| -> Box<dyn Connection> {
        if number <= whole {
            return inner;
        }
        Box::new(Brittle { inner, left: 2_500_000 })
    };
    migrate_over(&hosts, 4, &wrap)
}

/// Connections are wrapped as they are made; the first is the control connection.
fn migrate_over(
    hosts: &Arc<Hosts>,
    streams: u32,
    wrap: &(dyn Fn(u64, Box<dyn Connection>) -> Box<dyn Connection> + Sync),
) -> Report {
    let dialled = AtomicU64::new(0);
    let dial = || Ok(wrap(dialled.fetch_add(1, Ordering::SeqCst), hosts.dial()?));
    let mut plan = hosts.plan();
    plan.options.streams = streams;
    plan.options.limits.frozen = Duration::from_secs(60);
    hosts.migrate_over(&dial, &plan, &Cancel::default())
}

/// A slow link: little at a time.
#[derive(Debug)]
struct Slow(Box<dyn Connection>);

impl Read for Slow {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }
}

impl Write for Slow {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        thread::sleep(Duration::from_millis(20));
        self.0.write(&bytes[..bytes.len().min(8 << 10)])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Connection for Slow {
    fn limit(&mut self, limit: Duration) -> io::Result<()> {
        self.0.limit(limit)
    }
}

#[test]
fn a_slow_link_is_not_a_silent_one() {
    let hosts = Hosts::new(&World::new(32, 1, 3 << 20));
    // A chunk takes longer than anybody may be silent.
    let wrap = |number, inner| -> Box<dyn Connection> {
        match number {
            0 => inner,
            _ => Box::new(Slow(inner)),
        }
    };
    let report = migrate_over(&hosts, 1, &wrap);
    assert_eq!(report.outcome, Outcome::Moved, "{report:#?}");
    assert!(report.frozen_ms.unwrap() > 3 * 1500, "{report:#?}");
}

#[test]
fn a_broken_data_connection_is_made_up_for() {
    let report = migrate_brittle(1);
    assert_eq!(report.outcome, Outcome::Moved, "{report:#?}");
}

#[test]
fn without_data_connections_it_stays() {
    let report = migrate_brittle(0);
    assert_eq!(report.outcome, Outcome::Stayed, "{report:#?}");
    let reason = report.reason.unwrap();
    assert!(reason.contains("the last data connection broke"), "{reason}");
}
