//! Operations: once per key, whoever hangs up, and known after a restart.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use common::http::request;
use common::{lines_until, Daemon};
use nix::sys::signal::Signal;
use serde_json::Value;

const CHECKPOINT: &str = "/v1/containers/web/checkpoint";
const KEY: (&str, &str) = ("Idempotency-Key", "k1");

#[test]
fn a_key_runs_once_though_its_client_hangs_up_and_the_daemon_restarts() {
    let mut daemon = Daemon::start();
    let mut container = daemon.make_container("web");
    container.lock();

    // Asks, and hangs up while the operation waits for the container.
    let mut client = UnixStream::connect(daemon.socket()).unwrap();
    client.write_all(&request("POST", CHECKPOINT, &[KEY], b"{}")).unwrap();
    let running = daemon.wait_for_operation("k1");
    assert_eq!((&running["state"], &running["kind"]), (&"running".into(), &"checkpoint".into()));
    drop(client);
    assert_eq!(daemon.call("GET", "/v1/containers/web", "").json()["operation"], running["id"]);

    // Asked again it waits for the first, and another request by the same key is a mistake.
    let other = daemon.call_with("POST", CHECKPOINT, &[KEY], r#"{"after":"exit"}"#);
    assert_eq!((other.status, other.code().as_str()), (422, "key-reused"));
    thread::scope(|scope| {
        let again = scope.spawn(|| daemon.call_with("POST", CHECKPOINT, &[KEY], "{}"));
        thread::sleep(Duration::from_millis(200));
        assert!(!again.is_finished());
        container.release();
        let answer = again.join().unwrap();
        assert_eq!((answer.status, answer.code().as_str()), (409, "wrong-state"));
        assert_eq!(answer.json()["error"]["operation"], running["id"]);
    });
    let first = daemon.call_with("POST", CHECKPOINT, &[KEY], "{}").json();
    let list = daemon.call("GET", "/v1/operations", "").json();
    assert_eq!(list["operations"].as_array().unwrap().len(), 1, "{list}");

    assert!(daemon.end(Signal::SIGTERM), "{}", daemon.log());
    assert!(!daemon.socket().exists());
    drop(container);
    daemon.up();
    assert_eq!(daemon.call_with("POST", CHECKPOINT, &[KEY], "{}").json(), first);
    let known = daemon.call("GET", &format!("/v1/operations/{}", running["id"].as_str().unwrap()), "");
    assert_eq!(known.json()["state"], "failed");
}

#[test]
fn what_a_killed_daemon_did_has_failed_and_does_not_run_again() {
    let mut daemon = Daemon::start();
    let mut container = daemon.make_container("web");
    container.lock();
    let mut client = UnixStream::connect(daemon.socket()).unwrap();
    client.write_all(&request("POST", CHECKPOINT, &[KEY], b"{}")).unwrap();
    let running = daemon.wait_for_operation("k1");
    daemon.end(Signal::SIGKILL);
    daemon.up();
    let answer = daemon.call_with("POST", CHECKPOINT, &[KEY], "{}");
    assert_eq!((answer.status, &answer.json()["error"]["operation"]), (500, &running["id"]));
    assert!(answer.text().contains("stopped while"), "{}", answer.text());
}

#[test]
fn a_stopping_daemon_waits_for_what_runs_and_answers_it() {
    let mut daemon = Daemon::start();
    let mut container = daemon.make_container("web");
    container.lock();
    let (socket, call) = (daemon.socket(), request("POST", CHECKPOINT, &[KEY], b"{}"));
    let client = thread::spawn(move || {
        let mut stream = UnixStream::connect(socket).unwrap();
        common::http::ask(&mut stream, &call).unwrap()
    });
    daemon.wait_for_operation("k1");
    thread::spawn(move || {
        thread::sleep(Duration::from_millis(500));
        container.release();
    });
    assert!(daemon.end(Signal::SIGTERM), "{}", daemon.log());
    assert_eq!(client.join().unwrap().code(), "wrong-state");
}

#[test]
fn only_so_many_run_at_a_time() {
    let mut daemon = Daemon::prepare();
    daemon.configure("max_operations = 1");
    daemon.up();
    let mut container = daemon.make_container("web");
    container.lock();
    let mut client = UnixStream::connect(daemon.socket()).unwrap();
    client.write_all(&request("POST", CHECKPOINT, &[KEY], b"{}")).unwrap();
    daemon.wait_for_operation("k1");
    let answer = daemon.call("POST", "/v1/containers/web/standby", "");
    assert_eq!((answer.status, answer.code().as_str()), (429, "busy"));
}

#[test]
fn events_tell_of_an_operation_by_its_key() {
    let mut daemon = Daemon::start();
    let _container = daemon.make_container("web");
    let mut stream = UnixStream::connect(daemon.socket()).unwrap();
    stream.set_read_timeout(Some(common::LIMIT)).unwrap();
    stream.write_all(&request("GET", "/v1/events?key=k1", &[], b"")).unwrap();
    let head = lines_until(&stream, |line| line.trim_end().is_empty());
    assert!(head.iter().any(|line| line.to_lowercase().contains("text/event-stream")), "{head:?}");

    daemon.call("POST", "/v1/containers/web/standby", "");
    daemon.call_with("POST", CHECKPOINT, &[KEY], "{}");
    let lines = lines_until(&stream, |line| line.contains("operation-ended") && line.starts_with("data:"));
    let data = lines.iter().filter_map(|line| line.strip_prefix("data:"));
    let events: Vec<Value> = data.map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events.len(), 2, "{events:?}");
    assert_eq!(events[0]["type"], "operation-started");
    assert_eq!(events[1]["ended"]["state"], "failed");
    assert!(events.iter().all(|event| event["key"] == "k1" && event["container"] == "web"), "{events:?}");

    // A listener does not keep the daemon from its end.
    assert!(daemon.end(Signal::SIGTERM), "{}", daemon.log());
}

#[test]
fn events_tell_of_containers_that_come_and_go() {
    let daemon = Daemon::start();
    let mut stream = UnixStream::connect(daemon.socket()).unwrap();
    stream.set_read_timeout(Some(common::LIMIT)).unwrap();
    stream.write_all(&request("GET", "/v1/events", &[], b"")).unwrap();
    // Until it has looked once there is nothing to compare with.
    thread::sleep(Duration::from_millis(2500));
    let container = daemon.make_container("web");
    lines_until(&stream, |line| line.starts_with("data:") && line.contains(r#""application":"created""#));
    drop(container);
    lines_until(&stream, |line| line.starts_with("data:") && line.contains(r#""application":"ended""#));
}

#[test]
fn checkpoints_are_names_and_nothing_else() {
    let daemon = Daemon::start();
    for name in ["..%2Flib", "%2Fetc", "..", ".hidden"] {
        let answer = daemon.call("DELETE", &format!("/v1/checkpoints/{name}"), "");
        assert!([400, 404].contains(&answer.status), "{name}: {answer:?}");
    }
    assert!(daemon.path("lib").is_dir());
    assert_eq!(daemon.call("DELETE", "/v1/checkpoints/none", "").code(), "not-found");
    let _container = daemon.make_container("web");
    let answer = daemon.call("POST", CHECKPOINT, r#"{"name":"../x"}"#);
    assert_eq!(answer.status, 400);
    let answer = daemon.call("POST", "/v1/containers/web/migrate", r#"{"to":"nowhere"}"#);
    assert_eq!((answer.status, answer.code().as_str()), (422, "refused"), "{}", answer.text());
    assert!(answer.text().contains("fastmigd peers add nowhere"), "{}", answer.text());
}
