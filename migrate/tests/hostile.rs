//! A source that says what it must not, or a line that somebody tampers with: refused with a reason, and nothing changes.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod common;

use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use common::ends::{Life, World};
use common::hosts::Hosts;
use fastmig_migrate::cancel::Cancel;
use fastmig_migrate::destination::Served;
use fastmig_migrate::report::{Outcome, Report};
use fastmig_migrate::transport::Connection;
use proptest::prelude::*;

/// A frame by hand, as the wire's description has it.
fn frame(from: u32, id: [u8; 16], lane: u32, number: u64, message: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut frame = b"FMig".to_vec();
    frame.extend(from.to_le_bytes());
    frame.extend(id);
    frame.extend(lane.to_le_bytes());
    frame.extend(number.to_le_bytes());
    frame.extend(u32::try_from(message.len()).unwrap().to_le_bytes());
    frame.extend(u32::try_from(payload.len()).unwrap().to_le_bytes());
    frame.extend(message);
    frame.extend(payload);
    frame
}

const ID: [u8; 16] = [3; 16];

fn hello(versions: (u32, u32), purpose: &str) -> Vec<u8> {
    let (oldest, newest) = versions;
    format!(
        r#"{{"hello":{{"speaks":{{"oldest":{oldest},"newest":{newest}}},"software":"test","purpose":{purpose}}}}}"#
    )
    .into_bytes()
}

fn migrate() -> Vec<u8> {
    hello(
        (4, 4),
        r#"{"migrate":{"wanted":{"container":"web","create":null,"options":null},"frozen_ms":4000,"apart_ms":9000}}"#,
    )
}

/// Sends bytes to a destination, closes, and returns what it made of them and what it answered.
fn send(bytes: &[u8]) -> (Served, String) {
    let world = World::new(1, 1, 1 << 20);
    let hosts = Hosts::new(&world);
    let (mut ours, theirs) = hosts.network.pair().unwrap();
    let destination = hosts.destination().unwrap();
    let served = thread::spawn(move || destination.serve(theirs, "a"));
    ours.limit(Duration::from_secs(5)).unwrap();
    // It may hang up before it has read everything.
    drop(ours.write_all(bytes));
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    let begun = std::time::Instant::now();
    ours.limit(Duration::from_millis(300)).unwrap();
    while begun.elapsed() < Duration::from_secs(2) {
        match ours.read(&mut piece) {
            Ok(0) | Err(_) => break,
            Ok(read) => answer.extend_from_slice(&piece[..read]),
        }
    }
    drop(ours);
    let served = served.join().unwrap();
    assert_eq!(world.lives(), (Life::Running, Life::Standby));
    (served, String::from_utf8_lossy(&answer).into_owned())
}

fn refusal(bytes: &[u8]) -> String {
    match send(bytes) {
        (Served::Refused(reason), _) => reason,
        (Served::Migration(report), _) => {
            assert_eq!(report.outcome, Outcome::Stayed, "{report:?}");
            report.reason.unwrap()
        }
        (other, _) => panic!("{other:?}"),
    }
}

#[test]
fn an_old_version_is_told_to_update() {
    let frame = frame(1, ID, 0, 0, &hello((1, 1), r#"{"some-old-purpose":{}}"#), &[]);
    let (served, answer) = send(&frame);
    let text = "the other host speaks protocol 1, this FastMig 4: update the other host";
    assert!(matches!(&served, Served::Refused(reason) if reason == text), "{served:?}");
    assert!(answer.contains(text), "{answer}");
}

#[test]
fn a_newer_version_is_told_who_is_old() {
    let (_, answer) = send(&frame(1, ID, 0, 0, &hello((5, 6), r#"{"new":{"thing":1}}"#), &[]));
    assert!(answer.contains("speaks protocol 5 to 6, this FastMig 4: update this host"), "{answer}");
}

#[test]
fn what_is_not_the_protocol_is_refused() {
    assert!(refusal(b"GET / HTTP/1.1\r\nHost: b\r\nAccept: text/html\r\nUser-Agent: x\r\n\r\n")
        .contains("not of this protocol"));
    assert!(refusal(&frame(1, ID, 0, 0, b"{}", &[])).contains("not of this protocol"));
    assert!(refusal(&frame(1, ID, 0, 0, br#""working""#, &[])).contains("not of this protocol"));
}

#[test]
fn a_truncated_stream_is_refused() {
    let whole = frame(1, ID, 0, 0, &migrate(), &[]);
    assert!(refusal(&whole[..20]).contains("closed the connection"));
    assert!(refusal(&whole[..whole.len() - 1]).contains("closed the connection"));
    assert!(refusal(&whole).contains("closed the connection"));
}

#[test]
fn an_oversized_frame_is_refused_before_it_is_read() {
    let mut large = frame(1, ID, 0, 0, &migrate(), &[]);
    large[36..40].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(refusal(&large).contains("a message of 4294967295 bytes"));
    let mut large = frame(1, ID, 0, 0, &migrate(), &[]);
    large[40..44].copy_from_slice(&(64_u32 << 20).to_le_bytes());
    assert!(refusal(&large).contains("a payload of 67108864 bytes"));
}

#[test]
fn frames_of_elsewhere_and_again_are_refused() {
    let first = frame(1, ID, 0, 0, &migrate(), &[]);
    let passport = br#"{"passport":{"passport":{"cpu":"any"}}}"#;
    let after = |second: Vec<u8>| refusal(&[first.clone(), second].concat());
    assert!(after(first.clone()).contains("sent again"));
    assert!(after(frame(1, ID, 0, 2, passport, &[])).contains("one is missing"));
    assert!(after(frame(1, [4; 16], 0, 1, passport, &[])).contains("another migration"));
    assert!(after(frame(1, ID, 1, 1, passport, &[])).contains("another connection"));
    assert!(after(frame(2, ID, 0, 1, passport, &[])).contains("our own"));
    assert!(after(frame(1, ID, 0, 1, br#""commit""#, &[])).contains("`commit` where passport was due"));
}

#[test]
fn a_passport_that_does_not_fit_is_refused() {
    let passport = br#"{"passport":{"passport":{"cpu":"another"}}}"#;
    let bytes = [frame(1, ID, 0, 0, &migrate(), &[]), frame(1, ID, 0, 1, passport, &[])].concat();
    assert!(refusal(&bytes).contains("no CPU"), "{}", refusal(&bytes));
}

#[test]
fn images_keep_to_their_names_sizes_and_order() {
    let mut so_far = frame(1, ID, 0, 0, &migrate(), &[]);
    so_far.extend(frame(1, ID, 0, 1, br#"{"passport":{"passport":{"cpu":"any"}}}"#, &[]));
    so_far.extend(frame(1, ID, 0, 2, br#"{"ready":{"strategy":"pre-copy","verify":false}}"#, &[]));
    let image = |name: &str, last: bool| {
        format!(r#"{{"image":{{"name":"{name}","large":false,"last":{last}}}}}"#).into_bytes()
    };
    let empty = [0; 7];
    let after = |frames: &[Vec<u8>]| refusal(&[so_far.clone(), frames.concat()].concat());
    for name in ["../../etc/passwd", "/etc/passwd", "..", "", "a b"] {
        let reason = after(&[frame(1, ID, 0, 3, &image(name, true), &empty)]);
        assert!(reason.contains("whose name is none"), "{name}: {reason}");
    }
    let twice =
        [frame(1, ID, 0, 3, &image("a", true), &empty), frame(1, ID, 0, 4, &image("a", true), &empty)];
    assert!(after(&twice).contains("goes on after its end"));
    let bomb = [0xff, 0xff, 0xff, 0xff, 1, 0, 0, 1, 2, 3];
    assert!(after(&[frame(1, ID, 0, 3, &image("a", true), &bomb)]).contains("a chunk of 4294967295 bytes"));
    let dumped = br#"{"dumped":{"dumped":null,"memory":[["x",5]]}}"#;
    assert!(after(&[frame(1, ID, 0, 3, &image("a", false), &empty), frame(1, ID, 0, 4, dumped, &[])])
        .contains("without its end"));
    assert!(after(&[frame(1, ID, 0, 3, dumped, &[])]).contains("without a connection"));
}

#[test]
fn data_connections_belong_to_a_migration() {
    let data = hello((4, 4), r#"{"data":{"token":"00000000000000000000000000000000"}}"#);
    assert!(refusal(&frame(1, ID, 1, 0, &data, &[])).contains("belongs to no migration"));
}

/// A connection that changes one byte of what the source sends, or sends a piece of it twice.
#[derive(Debug)]
struct Tampered {
    inner: Box<dyn Connection>,
    /// Bytes sent so far on all connections, and at which something is done.
    sent: Arc<AtomicUsize>,
    at: usize,
    replay: bool,
    done: Arc<AtomicBool>,
}

impl Read for Tampered {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.inner.read(into)
    }
}

impl Write for Tampered {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let before = self.sent.fetch_add(bytes.len(), Ordering::SeqCst);
        if self.done.load(Ordering::SeqCst) || bytes.is_empty() || before + bytes.len() <= self.at {
            return self.inner.write(bytes);
        }
        self.done.store(true, Ordering::SeqCst);
        let mut wrong = bytes.to_vec();
        if self.replay {
            self.inner.write_all(&wrong)?;
        } else {
            wrong[self.at.saturating_sub(before)] ^= 0x41;
        }
        self.inner.write_all(&wrong)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl Connection for Tampered {
    fn limit(&mut self, limit: Duration) -> io::Result<()> {
        self.inner.limit(limit)
    }
}

fn migrate_tampered(at: usize, replay: bool) -> (Arc<World>, Report) {
    let world = World::new(5, 2, 2 << 20);
    let hosts = Hosts::new(&world);
    let (sent, done) = (Arc::default(), Arc::default());
    let (sent, done): (Arc<AtomicUsize>, Arc<AtomicBool>) = (sent, done);
    let dial = {
        let hosts = Arc::clone(&hosts);
        move || -> io::Result<Box<dyn Connection>> {
            let inner = hosts.dial()?;
            Ok(Box::new(Tampered { inner, sent: Arc::clone(&sent), at, replay, done: Arc::clone(&done) }))
        }
    };
    let report = hosts.migrate_over(&dial, &hosts.plan(), &Cancel::default());
    (world, report)
}

/// Below TLS this cannot be: what it is for is that nothing panics, hangs, or leaves two copies or none, whatever comes. A
/// changed byte of the content itself is for TLS alone to see.
#[test]
fn a_tampered_stream_leaves_one_copy() {
    let outcomes = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for worker in 0..6 {
            let outcomes = &outcomes;
            scope.spawn(move || {
                for round in 0..8 {
                    let at = (worker * 8 + round) * 97_003 + worker;
                    let (world, report) = migrate_tampered(at, round % 2 == 0);
                    for _ in 0..1000 {
                        if matches!(
                            world.lives(),
                            (Life::Running, Life::Standby) | (Life::Standby, Life::Running)
                        ) {
                            break;
                        }
                        thread::sleep(Duration::from_millis(10));
                    }
                    let lives = world.lives();
                    assert!(
                        matches!(lives, (Life::Running, Life::Standby) | (Life::Standby, Life::Running)),
                        "byte {at}: {lives:?}, {report:?}"
                    );
                    assert!(world.lives.lock().unwrap().sins.is_empty());
                    outcomes.lock().unwrap().push(report.outcome);
                }
            });
        }
    });
    let outcomes = outcomes.into_inner().unwrap();
    assert!(outcomes.iter().filter(|outcome| **outcome == Outcome::Stayed).count() > 10, "{outcomes:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn no_bytes_are_too_strange_for_the_codec(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        fastmig_migrate::fuzzing::head(&bytes);
        fastmig_migrate::fuzzing::message(&bytes);
        fastmig_migrate::fuzzing::chunk(&bytes);
        fastmig_migrate::fuzzing::connection(&bytes);
    }

    /// Whole conversations with some bytes changed get further in than any random ones.
    #[test]
    fn no_changed_conversation_is_too_strange(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let mut bytes = frame(1, ID, 0, 0, &migrate(), &[]);
        bytes.extend(frame(1, ID, 0, 1, br#"{"dumped":{"dumped":{"a":[1,2]},"memory":[["pages-1.img",4096]]}}"#, &[]));
        bytes.extend(frame(1, ID, 0, 2, br#"{"get":{"image":0,"offset":0,"length":4096}}"#, &[1; 64]));
        for (at, value) in &changes {
            let at = at.index(bytes.len());
            bytes[at] = *value;
        }
        fastmig_migrate::fuzzing::connection(&bytes);
    }

    #[test]
    fn no_changed_chunk_is_too_strange(size in 0_usize..20_000, codec in 0_u8..4, map in any::<u16>(), body in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut chunk = u32::try_from(size).unwrap().to_le_bytes().to_vec();
        chunk.push(codec);
        chunk.extend(map.to_le_bytes());
        chunk.extend(body);
        fastmig_migrate::fuzzing::chunk(&chunk);
    }
}
