//! Run, exit, stop and run again.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::io::Read;

use common::{eventually, root, Container, Setup};
use fastmig_control::{
    Errno, Event, ExecFailure, ExecStep, ExitStatus, Pid, Policy, Reply, Request, Signal, State,
};

fn killed(signal: i32) -> ExitStatus {
    ExitStatus::Signal(Signal::new(signal).unwrap())
}

#[test]
fn the_container_ends_with_the_application_s_code() {
    if !root() {
        return;
    }
    let cases = [("true", 0), ("false", 1), ("exit 7", 7), ("exit 255", 255), ("kill -SEGV $$", 139)];
    for (script, code) in cases {
        let mut container = Container::shell(script);
        container.run();
        assert_eq!(container.exit_code(), code, "{script}");
    }
}

#[test]
fn end_is_obeyed_in_standby_and_while_running() {
    if !root() {
        return;
    }
    for running in [false, true] {
        let mut container = Container::start(["sleep", "1000"]);
        if running {
            container.run();
        }
        assert_eq!(container.client().ask(Request::End { code: 42 }), Reply::Ok);
        assert_eq!(container.exit_code(), 42);
    }
}

#[test]
fn the_application_leads_a_session_with_default_signals() {
    if !root() {
        return;
    }
    let container = Container::start(["sleep", "1000"]);
    let pid = container.run();
    let sid = container.exec(&format!("awk '{{print $4, $5, $6}}' /proc/{pid}/stat"));
    assert_eq!(sid, format!("1 {pid} {pid}"));
    assert_eq!(container.field(pid, "SigBlk"), "0000000000000000");
    assert_eq!(container.field(pid, "SigIgn"), "0000000000000000");
    // Only its own three streams: neither the control socket nor a pipe of the init.
    assert_eq!(container.exec(&format!("ls /proc/{pid}/fd | xargs")), "0 1 2");
}

#[test]
fn a_held_process_has_not_executed_anything() {
    if !root() {
        return;
    }
    let container = Container::start(["sleep", "1000"]);
    let client = container.client();
    let pid = client.prepare();
    assert_eq!(client.status().state, State::Held(pid));
    assert_eq!(container.exec(&format!("cat /proc/{pid}/comm")), "fastmig-init");
    assert_eq!(container.client().wrong_state(Request::Run), State::Held(pid));
    assert_eq!(container.client().refused(Request::Release), fastmig_control::Refusal::NotHolder);
    assert_eq!(client.ask(Request::Release), Reply::Running { pid });
    assert_eq!(container.exec(&format!("cat /proc/{pid}/comm")), "sleep");
    assert_eq!(client.status().runs, 1);
}

#[test]
fn a_held_process_enters_the_cgroup_that_it_is_given_and_nobody_keeps_the_entrance() {
    if !root() {
        return;
    }
    let container = Container::start(["sleep", "1000"]);
    let (mut read, write) = std::io::pipe().unwrap();
    let client = container.client();
    assert!(matches!(client.ask_with(Request::Run, write.into()), Reply::Prepared { .. }));
    assert!(matches!(client.ask(Request::Release), Reply::Running { .. }));
    let mut written = String::new();
    // Ends only when neither the init nor the application has it open.
    read.read_to_string(&mut written).unwrap();
    assert_eq!(written, "0");
    // One that belongs to nothing is closed.
    let (mut read, write) = std::io::pipe().unwrap();
    assert!(matches!(client.ask_with(Request::Status, write.into()), Reply::Status(_)));
    assert_eq!(read.read_to_string(&mut written).unwrap(), 0);
}

#[test]
fn a_held_process_dies_with_its_connection() {
    if !root() {
        return;
    }
    let container = Container::start(["sleep", "1000"]);
    let events = container.client().subscribed();
    let client = container.client();
    let pid = client.prepare();
    drop(client);
    assert_eq!(events.event(), Event::Standby);
    container.exec(&format!("test ! -e /proc/{pid}"));
    assert_eq!(container.status().runs, 0);
    container.run();
}

#[test]
fn a_held_process_that_is_killed_leaves_standby() {
    if !root() {
        return;
    }
    let container = Container::start(["sleep", "1000"]);
    let client = container.client();
    let pid = client.prepare();
    container.exec(&format!("kill -KILL {pid}"));
    eventually("standby", || (client.status().state == State::Standby).then_some(()));
    assert_eq!(client.wrong_state(Request::Release), State::Standby);
    client.run();
}

#[test]
fn stop_leads_to_standby_and_a_second_run() {
    if !root() {
        return;
    }
    let container = Container::start(["sleep", "1000"]);
    let events = container.client().subscribed();
    let client = container.client();
    assert_eq!(client.wrong_state(Request::Stop { signal: None }), State::Standby);
    for round in 1..=3 {
        let pid = client.run();
        assert_eq!(events.event(), Event::Started { pid });
        client.stop(libc::SIGTERM);
        events.exited(pid, killed(libc::SIGTERM));
        let status = client.status();
        assert_eq!((status.state, status.last_exit), (State::Standby, Some(killed(libc::SIGTERM))));
        assert_eq!((status.runs, status.marked), (round, false));
    }
}

#[test]
fn a_mark_can_be_set_without_a_signal_and_taken_back() {
    if !root() {
        return;
    }
    let mut container = Container::start(["sleep", "1000"]);
    let events = container.client().subscribed();
    let client = container.client();
    let pid = client.run();
    assert_eq!(events.event(), Event::Started { pid });
    assert_eq!(client.ask(Request::Stop { signal: None }), Reply::Ok);
    assert!(client.status().marked);
    container.exec(&format!("kill -KILL {pid}"));
    events.exited(pid, killed(libc::SIGKILL));

    client.run();
    assert_eq!(client.ask(Request::Stop { signal: None }), Reply::Ok);
    assert_eq!(client.ask(Request::Unmark), Reply::Ok);
    assert_eq!(client.ask(Request::Signal { signal: Signal::KILL }), Reply::Ok);
    assert_eq!(container.exit_code(), 137);
}

#[test]
fn a_policy_of_standby_outlives_exits() {
    if !root() {
        return;
    }
    let container = Container::shell("exit 3");
    let events = container.client().subscribed();
    let client = container.client();
    assert_eq!(client.ask(Request::OnExit { policy: Policy::Standby }), Reply::Ok);
    for _ in 0..5 {
        let pid = client.prepare();
        // The application may be gone before the answer, but not before it ran.
        assert_eq!(client.ask(Request::Release), Reply::Running { pid });
        assert_eq!(events.event(), Event::Started { pid });
        events.exited(pid, ExitStatus::Code(3));
    }
    assert_eq!(client.status().runs, 5);
}

#[test]
fn nothing_of_a_stopped_application_is_left_but_exec_sessions_live_on() {
    if !root() {
        return;
    }
    // A daemon that left the session and ignores everything, with a child of its own.
    let daemon = "trap '' TERM HUP; setsid sh -c 'trap \"\" TERM HUP; (sleep 1000; :) & sleep 1001' & ";
    let container = Container::shell(&format!("{daemon} echo up; exec sleep 1002"));
    let events = container.client().subscribed();
    let client = container.client();
    let mut session = container.session("sleep 1003").spawn().unwrap();
    let pid = client.run();
    assert_eq!(events.event(), Event::Started { pid });
    container.wait_for("stdout", "up");
    let sleeps = || container.exec("pgrep -a sleep | sed 's/^[0-9]* //' | sort | xargs");
    eventually("everything up", || (sleeps() == "sleep 1000 sleep 1001 sleep 1002 sleep 1003").then_some(()));
    client.stop(libc::SIGKILL);
    events.exited(pid, killed(libc::SIGKILL));
    assert_eq!(sleeps(), "sleep 1003");
    session.kill().unwrap();
    session.wait().unwrap();
}

#[test]
fn orphans_stay_with_the_application() {
    if !root() {
        return;
    }
    let container = Container::shell("(sleep 1000 & echo $! >daemon); echo up; exec sleep 1001");
    let pid = container.run();
    container.wait_for("stdout", "up");
    let daemon = container.file("daemon");
    assert_eq!(container.field(daemon.trim(), "PPid"), pid.to_string());
}

#[test]
fn orphans_of_exec_sessions_are_reaped() {
    if !root() {
        return;
    }
    let container = Container::start(["sleep", "1000"]);
    container.run();
    for _ in 0..20 {
        container.exec("(sleep 0.01 &) ; (sleep 0.02 &)");
    }
    eventually("reaping", || container.exec("ps -eo stat,ppid | grep -c '^Z' || true").eq("0").then_some(()));
    assert_eq!(container.status().runs, 1);
}

#[test]
fn a_missing_command_is_known_before_anything_is_forked() {
    if !root() {
        return;
    }
    let container = Container::start(["no-such-command", "argument"]);
    let failure = ExecFailure { step: ExecStep::Search, errno: Errno::NOT_FOUND };
    assert_eq!(container.client().ask(Request::Run), Reply::ExecFailed(failure));
    let message = "exec: \"no-such-command\": executable file not found in $PATH\n";
    assert_eq!(container.file("stderr"), message);
    assert_eq!(container.status(), common::STANDBY);
}

#[test]
fn a_command_that_cannot_be_executed_leaves_standby() {
    if !root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let broken = directory.path().join("broken");
    std::fs::write(&broken, "no interpreter, no ELF").unwrap();
    std::process::Command::new("chmod").arg("755").arg(&broken).status().unwrap();
    let setup = Setup {
        path: Some(format!("{}:/usr/bin:/bin", directory.path().display()).into()),
        ..Setup::default()
    };
    let container = Container::start_with(setup, &["broken"]);
    let client = container.client();
    for _ in 0..2 {
        client.prepare();
        let errno = Errno::new(libc::ENOEXEC).unwrap();
        let failure = ExecFailure { step: ExecStep::Exec, errno };
        assert_eq!(client.ask(Request::Release), Reply::ExecFailed(failure));
        assert_eq!(client.status(), common::STANDBY);
    }
    container.wait_for("stderr", "exec broken: exec format error\n");
}

/// Whether this kernel has AppArmor or not, it has no such profile.
#[test]
fn what_cannot_be_confined_does_not_run() {
    if !root() {
        return;
    }
    let setup = Setup { profile: Some("fastmig-of-no-kernel"), ..Setup::default() };
    let container = Container::start_with(setup, &["touch", "ran"]);
    let Reply::ExecFailed(failure) = container.client().ask(Request::Run) else { panic!("it is prepared") };
    assert_eq!(failure.step, ExecStep::Confine);
    assert_eq!(container.status(), common::STANDBY);
    assert!(!container.directory.path().join("ran").exists());
}

#[test]
fn arguments_and_environment_arrive_unchanged() {
    if !root() {
        return;
    }
    let setup = Setup { env: vec![("ODD", " a=b\n".into())], ..Setup::default() };
    let script = "printf '[%s]' \"$0\" \"$@\" \"$ODD\"";
    let mut container = Container::start_with(setup, &["sh", "-c", script, "--", "", "--control-fd", "é *"]);
    container.run();
    assert_eq!(container.exit_code(), 0);
    assert_eq!(container.file("stdout"), "[--][][--control-fd][é *][ a=b\n]");
}

#[test]
fn states_are_reported_with_their_pid() {
    if !root() {
        return;
    }
    let container = Container::start(["sleep", "1000"]);
    let pid = container.run();
    assert_eq!(container.status().state, State::Running(pid));
    assert_eq!(container.status().state.pid().map(Pid::get), Some(pid.get()));
}
