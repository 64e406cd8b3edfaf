//! What a client may not do to the daemon.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use common::http::{ask, request};
use common::Daemon;
use fastmig_api::MAX_REQUEST;

#[test]
fn a_head_that_never_ends_is_cut_off() {
    let daemon = Daemon::start();
    let mut slow = UnixStream::connect(daemon.socket()).unwrap();
    slow.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    slow.write_all(b"GET /healthz HTTP/1.1\r\n").unwrap();
    let begun = Instant::now();
    let mut rest = Vec::new();
    let limit = Duration::from_secs(20);
    // A byte now and then does not keep it open.
    while begun.elapsed() < limit && slow.write_all(b"x: y\r\n").is_ok() {
        if slow.read_to_end(&mut rest).is_ok() {
            break;
        }
    }
    assert!(begun.elapsed() < limit, "it is served still");
    assert_eq!(daemon.call("GET", "/healthz", "").status, 200);
}

#[test]
fn a_body_that_never_comes_is_given_up() {
    let daemon = Daemon::start();
    let mut slow = UnixStream::connect(daemon.socket()).unwrap();
    slow.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let head =
        "POST /v1/containers/x/run HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\nConnection: close\r\n\r\n{";
    assert_eq!(ask(&mut slow, head.as_bytes()).unwrap().status, 504);
}

#[test]
fn what_is_too_large_is_refused() {
    let daemon = Daemon::start();
    let body = vec![b' '; MAX_REQUEST + 1];
    let mut stream = UnixStream::connect(daemon.socket()).unwrap();
    let answer = ask(&mut stream, &request("POST", "/v1/containers/x/run", &[], &body)).unwrap();
    assert_eq!((answer.status, answer.code().as_str()), (413, "too-large"));

    let long = "x".repeat(64 << 10);
    let mut stream = UnixStream::connect(daemon.socket()).unwrap();
    let head = request("GET", "/healthz", &[("X-Long", &long)], b"");
    // It may be cut off before all of it is written.
    if let Ok(answer) = ask(&mut stream, &head) {
        assert_eq!(answer.status, 431, "{}", answer.head);
    }
    for key in [String::new(), "k".repeat(129), "\u{e4}".to_owned()] {
        let answer = daemon.call_with("POST", "/v1/containers/x/run", &[("Idempotency-Key", &key)], "{}");
        assert_eq!(answer.status, 400, "{key:?}: {}", answer.text());
    }
}

#[test]
fn a_misspelt_wish_is_refused() {
    let daemon = Daemon::start();
    for (method, path, body) in [
        ("POST", "/v1/containers/x/checkpoint", r#"{"nmae":"x"}"#),
        ("POST", "/v1/containers/x/migrate", "{}"),
        ("POST", "/v1/containers/x/run", "["),
        ("GET", "/v1/operations?limt=3", ""),
        ("GET", "/v1/operations?limit=x", ""),
        ("GET", "/v1/containers?key=x", ""),
    ] {
        let answer = daemon.call(method, path, body);
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (400, "bad-request"),
            "{path}: {}",
            answer.text()
        );
    }
}

#[test]
fn connections_have_an_end() {
    let mut daemon = Daemon::prepare();
    daemon.configure("max_connections = 2");
    daemon.up();
    let held: Vec<UnixStream> = (0..2).map(|_| UnixStream::connect(daemon.socket()).unwrap()).collect();
    std::thread::sleep(Duration::from_millis(200));
    assert!(common::http::try_unix(&daemon.socket(), "GET", "/healthz", &[], b"").is_err());
    drop(held);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(daemon.call("GET", "/healthz", "").status, 200);
}
