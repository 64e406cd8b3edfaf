//! The command line, following a migration, and its exit codes' grounds.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc;

use clap::Parser;
use fastmig_api::event::{Event, What};
use fastmig_api::migration::{Bytes, Chunks, Forecast, PhaseTime, Round, RoundsEnd, Side};
use fastmig_api::ErrorInfo;

use super::follow::News;
use super::*;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    arguments: Arguments,
}

fn request(words: &str) -> Result<MigrateRequest, clap::Error> {
    let line = Line::try_parse_from(format!("migrate {words}").split_whitespace())?;
    Ok(line.arguments.request())
}

const ROUND: Round = Round {
    round: 1,
    bytes: 1 << 20,
    scan_ms: 3,
    ms: 20,
    rate: 100 << 20,
    dirty_rate: Some(1 << 20),
    predicted_freeze_ms: Some(62),
};

pub(crate) fn report(outcome: Outcome) -> MigrationReport {
    let phase = |name: &str, ms, frozen| PhaseTime { phase: name.into(), side: Side::Source, ms, frozen };
    MigrationReport {
        id: "m-1".into(),
        side: Side::Source,
        container: "web".into(),
        into: "web".into(),
        from: "host-a".into(),
        to: "host-b".into(),
        started_at: "2026-11-21T10:00:00Z".into(),
        total_ms: 1_500,
        frozen_ms: Some(87),
        strategy: Strategy::PreCopy,
        why: "asked for".into(),
        rounds: vec![
            Round { round: 1, bytes: 1 << 30, dirty_rate: None, ..ROUND },
            Round { round: 2, bytes: 1 << 20, ..ROUND },
        ],
        rounds_end: Some(RoundsEnd::Converged),
        throttled: 0,
        forecasts: vec![
            Forecast { strategy: Strategy::PreCopy, freeze_ms: 62, total_ms: 1_400 },
            Forecast { strategy: Strategy::StopCopy, freeze_ms: 1_100, total_ms: 1_100 },
        ],
        last_round_bytes: 4096,
        owed_bytes: 0,
        owed_faults: 0,
        filled_ms: None,
        predicted_freeze_ms: Some(62),
        verified_pages: None,
        iterations: 1,
        streams: 4,
        compression: Compression::Lz4,
        chunks: Chunks { none: 0, lz4: 1000, zstd: 24 },
        bytes: Bytes { raw: 1 << 30, memory: 1 << 30, wire: 1 << 28, zero: 1 << 20, files: 2048 },
        files: 12,
        resources: None,
        phases: vec![
            phase("prepare", 31, false),
            phase("freeze", 2, true),
            phase("dump", 30, true),
            phase("post-checkpoint", 0, true),
            phase("end", 6, false),
            PhaseTime { side: Side::Destination, ..phase("restore", 41, true) },
        ],
        warnings: Vec::new(),
        left_to_criu: Vec::new(),
        outcome,
        reason: None,
    }
}

#[test]
fn every_option_reaches_the_request() {
    let all = request(
        "web --to host-b --into web2 --create --volumes /data,/log --binds same --bind-map /srv=/mnt/srv \
         --tcp keep --strategy pre-copy --max-downtime 50 --max-rounds 7 --rounds-timeout 90 --on-timeout throttle \
         --post-copy-timeout 30 --verify --streams 8 --compression zstd --timeout 60 --freeze-timeout 5 --no-hooks --dry-run",
    )
    .unwrap();
    let expected = MigrateRequest {
        to: "host-b".into(),
        into: Some("web2".into()),
        create: true,
        files: true,
        volumes: vec!["/data".into(), "/log".into()],
        binds: Binds::Same,
        bind_map: [("/srv".to_owned(), "/mnt/srv".to_owned())].into(),
        tcp: Some(Tcp::Keep),
        strategy: Strategy::PreCopy,
        max_downtime_ms: 50,
        max_rounds: 7,
        rounds_timeout_s: 90,
        on_timeout: OnTimeout::Throttle,
        post_copy_timeout_s: 30,
        verify: true,
        streams: Some(8),
        compression: Compression::Zstd,
        timeout_s: Some(60),
        freeze_timeout_s: Some(5),
        hooks: false,
        dry_run: true,
    };
    assert_eq!(all, expected);
    assert_eq!(request("web --to host-b").unwrap(), MigrateRequest::new("host-b"));
    assert!(!request("web --to b --no-files").unwrap().files);
}

#[test]
fn what_cannot_be_is_said_before_anybody_is_asked() {
    for bad in [
        "web",
        "--to b",
        "web --to b --streams 17",
        "web --to b --streams 0",
        "web --to b --tcp perhaps",
        "web --to b --bind-map srv=/x",
        "web --to b --timeout 0",
        "web --to b --strategy perhaps",
        "web --to b --post-copy-timeout 0",
        "web --to b --max-downtime 0",
        "web --to b --max-rounds 1001",
        "web --to b --rounds-timeout 86401",
        "web --to b --on-timeout wait",
        "web --to b --no-files --volumes all",
    ] {
        assert!(request(bad).is_err(), "{bad}");
    }
}

fn event(what: What) -> News {
    News::Event(Box::new(Event {
        sequence: 1,
        at: String::new(),
        operation: Some("op-1".into()),
        key: None,
        container: None,
        what,
    }))
}

fn refusal(code: Code) -> ClientError {
    ClientError::Refused(Box::new(ErrorInfo::new(code, "no")))
}

#[test]
fn the_first_interrupt_cancels_and_the_answer_is_waited_for() {
    let (tell, news) = mpsc::channel();
    tell.send(event(What::PhaseEnded { phase: "files".into(), side: Side::Source, ms: 3 })).unwrap();
    tell.send(News::Interrupted).unwrap();
    tell.send(News::Answered(Box::new(Err(refusal(Code::Cancelled))))).unwrap();
    let (mut display, mut cancelled) = (display::Lines(Vec::new()), Vec::new());
    let ending = follow::follow(&news, &mut display, &mut |operation| {
        cancelled.push(operation.map(str::to_owned));
        "cancelling".into()
    });
    assert_eq!(cancelled, [Some("op-1".to_owned())]);
    assert!(matches!(ending, Ending::Answered { operation: Some(id), .. } if id == "op-1"));
    assert_eq!(String::from_utf8(display.0).unwrap(), "files                3 ms\ncancelling\n");
}

#[test]
fn the_second_interrupt_leaves_it_alone() {
    let (tell, news) = mpsc::channel();
    tell.send(News::Interrupted).unwrap();
    tell.send(News::Interrupted).unwrap();
    let mut display = display::Lines(Vec::new());
    let mut asked = 0;
    let ending = follow::follow(&news, &mut display, &mut |_| {
        asked += 1;
        String::new()
    });
    assert!(matches!(ending, Ending::Left));
    assert_eq!(asked, 1);
}

#[test]
fn a_success_says_where_it_lives_and_how_long_it_was_down() {
    let text = summary::of("web", &report(Outcome::Moved));
    assert!(
        text.starts_with("web lives at host-b in web: it was down for 87 ms, all took 1.50 s\n"),
        "{text}"
    );
    assert!(text.contains("\nphases: prepare 31 ms [ frozen 87 ms ] end 6 ms\n"), "{text}");
    let parts = "\nfrozen: freeze 2 ms, dump 30 ms; meanwhile at host-b: restore 41 ms; predicted 62 ms, real 87 ms\n";
    assert!(text.contains(parts), "{text}");
    assert!(
        text.contains("sent 256.0 MiB in 4 streams (lz4, zstd): 1.0 GiB of state, of it 1.0 MiB of zeros"),
        "{text}"
    );
    assert!(summary::of("web", &report(Outcome::Possible)).contains("could move"));
}

#[test]
fn a_success_says_how_its_memory_travelled() {
    let mut moved = report(Outcome::Moved);
    let text = summary::of("web", &moved);
    assert!(text.contains("\nstrategy pre-copy: asked for\n"), "{text}");
    let memory = "memory: 1.0 GiB in 2 rounds while it ran, 4.0 KiB while it stood still";
    assert!(text.contains(&format!("\n{memory}\n")), "{text}");
    let expected = "\nexpected to stand still: pre-copy 62 ms of 1.40 s, stop-copy 1.10 s of 1.10 s\n";
    assert!(text.contains(expected), "{text}");
    moved.rounds_end = Some(RoundsEnd::Forced);
    moved.throttled = 95;
    moved.verified_pages = Some(262_144);
    let text = summary::of("web", &moved);
    assert!(text.contains("it had to be stopped") && text.contains("; 95% of the processor"), "{text}");
    assert!(text.contains("real 87 ms; 262144 pages compared, all the same\n"), "{text}");
    moved.strategy = Strategy::StopCopy;
    moved.rounds.clear();
    moved.forecasts.clear();
    let text = summary::of("web", &moved);
    assert!(text.contains("strategy stop-copy: asked for\nsent"), "{text}");
}

#[test]
fn a_failure_says_where_it_is() {
    let failed = refusal(Code::TimeLimit);
    let place = |outcome| summary::where_it_is("web", &failed, Some(&report(outcome)));
    assert_eq!(place(Outcome::Stayed), "web runs on here; it was frozen for 87 ms");
    assert!(place(Outcome::Stopped).contains("tried again"));
    assert!(place(Outcome::Undecided).contains("is stopped until host-b says"));
    assert_eq!(summary::where_it_is("web", &refusal(Code::Refused), None), "web is here as it was");
}

/// What a daemon is asked on one connection: the request line, and the headers in small letters. The body is read, too: a
/// connection that is closed before takes the answer with it.
fn read_request(stream: &UnixStream) -> (String, String) {
    let mut reader = BufReader::new(stream);
    let mut lines = reader.by_ref().lines().map(Result::unwrap);
    let first = lines.next().unwrap();
    let headers: Vec<_> = lines.take_while(|line| !line.is_empty()).map(|line| line.to_lowercase()).collect();
    let length = headers.iter().find_map(|line| line.strip_prefix("content-length:"));
    let mut body = vec![0; length.map_or(0, |length| length.trim().parse().unwrap())];
    reader.read_exact(&mut body).unwrap();
    (first, headers.join("\n"))
}

/// A daemon whose first answer to the migration is lost, as when it is restarted, and whose second one tells how it
/// went; gives back the headers of both.
fn forgetful_daemon(socket: &Path) -> std::thread::JoinHandle<Vec<String>> {
    let listener = UnixListener::bind(socket).unwrap();
    std::thread::spawn(move || {
        let (mut asked, mut events) = (Vec::new(), None);
        while asked.len() < 2 {
            let (mut stream, _) = listener.accept().unwrap();
            let (first, headers) = read_request(&stream);
            if first.starts_with("GET /v1/events?key=") {
                let data = r#"{"sequence":1,"at":"","operation":"op-1","type":"phase-ended","phase":"dump","side":"source","ms":4}"#;
                write!(stream, "HTTP/1.1 200 OK\r\n\r\nevent: phase-ended\ndata: {data}\n\n").unwrap();
                events = Some(stream);
                continue;
            }
            assert!(first.starts_with("POST /v1/containers/web/migrate"), "{first}");
            asked.push(headers);
            if asked.len() == 2 {
                let body = serde_json::json!({
                    "operation": "op-1", "container": "web", "started_at": "", "took_ms": 9,
                    "report": report(Outcome::Moved),
                });
                let body = body.to_string();
                write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
            }
        }
        drop(events);
        asked
    })
}

#[test]
fn a_daemon_that_was_restarted_is_asked_again_with_the_same_key() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("s");
    let daemon = forgetful_daemon(&socket);
    let display = Box::new(display::Lines(std::io::sink()));
    let ending = follow::migrate(&Client::unix(&socket), "web", &MigrateRequest::new("b"), display).unwrap();
    let Ending::Answered { answer, operation } = ending else { panic!("left") };
    assert_eq!(answer.unwrap().report, report(Outcome::Moved));
    assert_eq!(operation.as_deref(), Some("op-1"));
    let asked = daemon.join().unwrap();
    let key =
        |headers: &str| headers.lines().find(|line| line.starts_with("idempotency-key:")).map(str::to_owned);
    assert!(key(&asked[0]).is_some());
    assert_eq!(key(&asked[0]), key(&asked[1]));
}

#[test]
fn without_a_daemon_nothing_is_waited_for() {
    let nowhere = Client::unix(Path::new("/nonexistent/s"));
    let display = Box::new(display::Lines(std::io::sink()));
    let error = follow::migrate(&nowhere, "web", &MigrateRequest::new("b"), display).unwrap_err();
    assert!(error.is_not_running());
}
