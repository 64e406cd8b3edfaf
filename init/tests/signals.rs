//! Signals that users send to the container.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::{root, Container};
use fastmig_control::{Reply, Request, Signal};

/// Those that a process can catch and a shell can trap: glibc keeps 32 and 33 from its callers.
fn trappable() -> impl Iterator<Item = i32> {
    (1..=64).filter(|signal| ![libc::SIGKILL, libc::SIGSTOP, libc::SIGCHLD, 32, 33].contains(signal))
}

#[test]
fn every_signal_reaches_the_application() {
    if !root() {
        return;
    }
    let traps: String = trappable().map(|signal| format!("trap 'echo got {signal}.' {signal}; ")).collect();
    let container = Container::shell(&format!("{traps} echo ready; while :; do sleep 0.01; done"));
    container.run();
    container.wait_for("stdout", "ready");
    for signal in trappable() {
        container.kill(signal);
        container.wait_for("stdout", &format!("got {signal}."));
    }
}

#[test]
fn signals_that_only_the_kernel_knows_are_forwarded() {
    if !root() {
        return;
    }
    for signal in [32, 33] {
        let mut container = Container::start(["sleep", "1000"]);
        container.run();
        container.kill(signal);
        assert_eq!(container.exit_code(), 128 + signal);
    }
}

#[test]
fn a_signal_from_inside_is_forwarded_too() {
    if !root() {
        return;
    }
    let mut container = Container::start(["sleep", "1000"]);
    container.run();
    // Ends with the container, so its own fate does not matter.
    container.session("kill -TERM 1").status().unwrap();
    assert_eq!(container.exit_code(), 143);
}

#[test]
fn standby_ends_by_what_users_stop_with() {
    if !root() {
        return;
    }
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGQUIT, libc::SIGHUP] {
        let mut container = Container::start(["sleep", "1000"]);
        container.kill(signal);
        assert_eq!(container.exit_code(), 128 + signal);
    }
}

#[test]
fn standby_ignores_everything_else() {
    if !root() {
        return;
    }
    let ends = [libc::SIGTERM, libc::SIGINT, libc::SIGQUIT, libc::SIGHUP, libc::SIGKILL, libc::SIGSTOP];
    let mut container = Container::start(["sleep", "1000"]);
    for signal in (1..=64).filter(|signal| !ends.contains(signal)) {
        container.kill(signal);
    }
    assert_eq!(container.status(), common::STANDBY);
    assert!(container.is_up());
    // What came in standby is not kept for the application.
    let pid = container.run();
    assert_eq!(container.field(pid, "ShdPnd"), "0000000000000000");
}

#[test]
fn uncatchable_signals_go_by_request() {
    if !root() {
        return;
    }
    let mut container = Container::start(["sleep", "1000"]);
    let client = container.client();
    let pid = client.run();
    let stop = Signal::new(libc::SIGSTOP).unwrap();
    assert_eq!(client.ask(Request::Signal { signal: stop }), Reply::Ok);
    common::eventually("stopping", || container.field(pid, "State").starts_with('T').then_some(()));
    assert_eq!(client.ask(Request::Signal { signal: Signal::KILL }), Reply::Ok);
    assert_eq!(container.exit_code(), 137);
}
