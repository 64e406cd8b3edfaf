//! An end that waits for a decision.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::{root, Container};
use fastmig_control::{Account, Change, Event, ExitStatus, Policy, Refusal, Reply, Request, State};

/// Longer than any test takes.
const LONG: Request = Request::Ask { patience_ms: 3_600_000 };

#[test]
fn an_end_waits_for_a_decision_and_another_application_is_one() {
    if !root() {
        return;
    }
    let mut container = Container::shell("exit 7");
    let events = container.client().subscribed();
    let client = container.client();
    assert_eq!(client.ask(LONG), Reply::Ok);
    assert_eq!(client.status().policy, Policy::Ask);
    for _ in 0..3 {
        let pid = container.run();
        assert_eq!(events.event(), Event::Started { pid });
        events.exited(pid, ExitStatus::Code(7));
        assert!(matches!(client.ask(Request::Account), Reply::Account(Account { waits: true, .. })));
        assert_eq!(client.status().state, State::Standby);
        assert_eq!(client.ask(Request::Postpone { ms: 1_000_000 }), Reply::Ok);
    }
    assert_eq!(client.ask(Request::End { code: 7 }), Reply::Ok);
    assert_eq!(container.exit_code(), 7);
}

#[test]
fn changes_to_the_command_count_from_the_next_start_on() {
    if !root() {
        return;
    }
    let container = Container::start(["sh", "-c", "echo \"$A [$*]\"; exec sleep 1000", "x"]);
    let events = container.client().subscribed();
    let client = container.client();
    let change = |change: Change<'_>| {
        client.send(&change.encode().unwrap());
        client.reply()
    };
    for word in [Change::Set(b"A=b c"), Change::Argument(b"one"), Change::Argument(b"")] {
        assert_eq!(change(word), Reply::Ok);
    }
    container.run();
    container.wait_for("stdout", "b c [one ]");
    client.stop(libc::SIGKILL);
    while events.event() != Event::Standby {}
    assert_eq!(change(Change::Forget), Reply::Ok);
    container.run();
    container.wait_for("stdout", "\n []");
    // What is no word of a process is no message.
    client.send(&[fastmig_control::VERSION, 0x32, b'a', 0]);
    assert_eq!(client.reply(), Reply::Refused(Refusal::Malformed));
}

#[test]
fn it_stays_when_that_is_decided_and_ends_when_nothing_is() {
    if !root() {
        return;
    }
    let mut container = Container::shell("exit 9");
    let events = container.client().subscribed();
    let client = container.client();
    for request in [Request::Stay, Request::Postpone { ms: 1 }] {
        assert_eq!(client.refused(request), Refusal::NothingToDecide);
    }
    assert_eq!(client.ask(LONG), Reply::Ok);
    let pid = container.run();
    events.event();
    events.exited(pid, ExitStatus::Code(9));
    assert_eq!(client.ask(Request::Stay), Reply::Ok);
    assert!(matches!(client.ask(Request::Account), Reply::Account(Account { waits: false, .. })));
    container.run();
    events.event();
    events.event();
    // Nobody decides, also when the wait is made shorter while it lasts.
    assert_eq!(events.event(), Event::Standby);
    assert_eq!(client.ask(Request::Postpone { ms: 1 }), Reply::Ok);
    assert_eq!(container.exit_code(), 9);
}

#[test]
fn a_client_that_asks_for_the_end_is_obeyed() {
    if !root() {
        return;
    }
    for (signal, code) in [(libc::SIGTERM, 3), (libc::SIGINT, 3), (libc::SIGUSR1, 138)] {
        let mut container =
            Container::shell("trap 'exit 3' TERM INT; echo ready; while :; do sleep 0.01; done");
        let client = container.client();
        assert_eq!(client.ask(LONG), Reply::Ok);
        container.run();
        container.wait_for("stdout", "ready");
        container.kill(signal);
        assert_eq!(container.exit_code(), code, "{signal}");
    }
    // Also while the decision is waited for.
    let mut container = Container::shell("exit 5");
    let events = container.client().subscribed();
    let client = container.client();
    assert_eq!(client.ask(LONG), Reply::Ok);
    let pid = container.run();
    events.event();
    events.exited(pid, ExitStatus::Code(5));
    container.kill(libc::SIGTERM);
    assert_eq!(container.exit_code(), 143);
}
