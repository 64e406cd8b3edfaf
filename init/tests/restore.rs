//! Restores: a process that appears from outside becomes the application.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::{eventually, root, Container};
use fastmig_control::{Event, ExitStatus, Pid, Refusal, Reply, Request, Signal, State};

fn pid(number: i32) -> Pid {
    Pid::new(number).unwrap()
}

#[test]
fn an_expected_process_is_adopted() {
    if !root() {
        return;
    }
    let mut container = Container::start(["false"]);
    let events = container.client().subscribed();
    let client = container.client();
    assert_eq!(client.wrong_state(Request::Adopt), State::Standby);
    assert_eq!(client.ask(Request::Expect { pid: pid(500) }), Reply::Ok);
    assert_eq!(client.wrong_state(Request::Run), State::Restoring(pid(500)));
    assert_eq!(client.refused(Request::Adopt), Refusal::NoSuchProcess);
    container.plant(pid(500));
    eventually("adoption", || (client.ask(Request::Adopt) == Reply::Running { pid: pid(500) }).then_some(()));
    assert_eq!(events.event(), Event::Restored { pid: pid(500) });
    assert_eq!((client.status().state, client.status().runs), (State::Running(pid(500)), 1));

    // From here on it is an application as any other.
    client.stop(libc::SIGTERM);
    events.exited(pid(500), ExitStatus::Signal(Signal::new(15).unwrap()));
    assert_eq!(client.ask(Request::Expect { pid: pid(700) }), Reply::Ok);
    container.plant(pid(700));
    eventually("adoption", || (client.ask(Request::Adopt) == Reply::Running { pid: pid(700) }).then_some(()));
    container.kill(libc::SIGUSR1);
    assert_eq!(container.exit_code(), 138);
}

#[test]
fn a_process_of_somebody_else_is_not_adopted() {
    if !root() {
        return;
    }
    let container = Container::start(["true"]);
    let client = container.client();
    // Its parent is outside of the container.
    let mut session = container.session("echo $$ >pid; exec sleep 1000").spawn().unwrap();
    let number = container.wait_for("pid", "\n").trim().parse().unwrap();
    assert_eq!(client.ask(Request::Expect { pid: pid(number) }), Reply::Ok);
    assert_eq!(client.refused(Request::Adopt), Refusal::NoSuchProcess);
    assert_eq!(client.status().state, State::Restoring(pid(number)));
    assert_eq!(client.ask(Request::Abandon), Reply::Ok);
    assert!(session.try_wait().unwrap().is_none(), "abandoning killed an exec session");
    session.kill().unwrap();
    session.wait().unwrap();
}

#[test]
fn an_exit_before_the_adoption_is_remembered() {
    if !root() {
        return;
    }
    let mut container = Container::start(["true"]);
    let events = container.client().subscribed();
    let client = container.client();
    assert_eq!(client.ask(Request::Expect { pid: pid(500) }), Reply::Ok);
    container.plant(pid(500));
    container.exec("kill -ABRT 500");
    eventually("reaping", || container.exec("test -e /proc/500 || echo gone").eq("gone").then_some(()));
    assert_eq!(client.status().last_exit, None);
    assert_eq!(client.ask(Request::Adopt), Reply::Running { pid: pid(500) });
    assert_eq!(events.event(), Event::Restored { pid: pid(500) });
    let status = ExitStatus::Signal(Signal::new(libc::SIGABRT).unwrap());
    assert_eq!(events.event(), Event::Exited { pid: pid(500), status });
    assert_eq!(container.exit_code(), 134);
}

#[test]
fn an_abandoned_restore_leaves_nothing_and_a_second_succeeds() {
    if !root() {
        return;
    }
    let container = Container::start(["sleep", "1000"]);
    let client = container.client();
    assert_eq!(client.wrong_state(Request::Abandon), State::Standby);
    assert_eq!(client.ask(Request::Expect { pid: pid(500) }), Reply::Ok);
    container.plant(pid(500));
    container.plant(pid(600));
    assert_eq!(client.ask(Request::Abandon), Reply::Ok);
    // The answer comes when nothing is left.
    container.exec("test ! -e /proc/500 && test ! -e /proc/600");
    assert_eq!(client.status(), common::STANDBY);
    assert_eq!(client.ask(Request::Expect { pid: pid(500) }), Reply::Ok);
    container.plant(pid(500));
    eventually("adoption", || (client.ask(Request::Adopt) == Reply::Running { pid: pid(500) }).then_some(()));
}

#[test]
fn a_held_process_is_not_abandoned() {
    if !root() {
        return;
    }
    let container = Container::start(["sleep", "1000"]);
    let client = container.client();
    let held = client.prepare();
    assert_eq!(container.client().wrong_state(Request::Abandon), State::Held(held));
    assert_eq!(client.ask(Request::Release), Reply::Running { pid: held });
}

#[test]
fn a_user_can_end_the_container_during_a_restore() {
    if !root() {
        return;
    }
    let mut container = Container::start(["true"]);
    assert_eq!(container.client().ask(Request::Expect { pid: pid(500) }), Reply::Ok);
    container.kill(libc::SIGTERM);
    assert_eq!(container.exit_code(), 143);
}
