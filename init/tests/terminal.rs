//! A container with a terminal, as runc sets one up: the init leads the session and the terminal controls it.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::io::{Read, Write};
use std::os::fd::AsFd;

use common::{eventually, root, Container, Setup, PATIENCE};
use fastmig_control::{ExitStatus, State};
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::pty::openpty;

/// The other end of the container's terminal.
struct Master {
    file: std::fs::File,
    seen: String,
}

impl Master {
    /// Reads until `text` has come, and forgets everything up to it.
    fn expect(&mut self, text: &str) {
        let mut buffer = [0; 1024];
        loop {
            if let Some(at) = self.seen.find(text) {
                self.seen.drain(..at + text.len());
                return;
            }
            let mut ready = [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)];
            let limit = PollTimeout::try_from(PATIENCE).unwrap();
            assert_eq!(nix::poll::poll(&mut ready, limit), Ok(1), "waiting for {text:?} in {:?}", self.seen);
            let length = self.file.read(&mut buffer).expect("the terminal was abandoned");
            self.seen.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
    }

    fn type_in(&mut self, text: &str) {
        self.file.write_all(text.as_bytes()).unwrap();
    }
}

fn container(script: &str) -> (Container, Master) {
    let pty = openpty(None, None).unwrap();
    let setup = Setup {
        wrapper: vec!["setsid".into(), "--ctty".into()],
        terminal: Some(pty.slave),
        ..Setup::default()
    };
    let container = Container::start_with(setup, &["sh", "-c", script]);
    (container, Master { file: pty.master.into(), seen: String::new() })
}

#[test]
fn the_application_has_the_terminal_and_the_init_has_not() {
    if !root() {
        return;
    }
    let (container, mut master) =
        container("trap 'echo interrupted' INT; echo up >/dev/tty; while :; do sleep 0.05; done");
    let pid = container.run();
    master.expect("up");
    let terminal_of = |pid: i32| container.exec(&format!("awk '{{print $6, $7, $8}}' /proc/{pid}/stat"));
    let [session, terminal, foreground]: [i32; 3] = terminal_of(pid.get())
        .split_whitespace()
        .map(|number| number.parse().unwrap())
        .collect::<Vec<_>>()
        .try_into()
        .unwrap();
    assert_eq!((session, foreground), (pid.get(), pid.get()));
    assert_ne!(terminal, 0);
    assert_eq!(terminal_of(1), "1 0 -1");
    master.type_in("\x03");
    master.expect("interrupted");
    assert_eq!(container.status().state, State::Running(pid));
}

#[test]
fn a_second_run_has_the_same_terminal() {
    if !root() {
        return;
    }
    let (container, mut master) = container("stty raw -echo; echo up; read x; echo got $x; read y");
    let events = container.client().subscribed();
    let client = container.client();
    for word in ["one", "two", "three"] {
        let pid = client.run();
        events.event();
        master.expect("up");
        master.type_in(&format!("{word}\n"));
        master.expect(&format!("got {word}"));
        client.stop(libc::SIGKILL);
        events.exited(pid, ExitStatus::Signal(fastmig_control::Signal::KILL));
    }
}

#[test]
fn a_hangup_reaches_the_application_but_not_the_init() {
    if !root() {
        return;
    }
    let (container, mut master) = container("echo up; exec sleep 1000");
    let events = container.client().subscribed();
    let client = container.client();
    let pid = client.run();
    events.event();
    master.expect("up");
    assert_eq!(client.ask(fastmig_control::Request::Stop { signal: None }), fastmig_control::Reply::Ok);
    drop(master);
    events.exited(pid, ExitStatus::Signal(fastmig_control::Signal::new(libc::SIGHUP).unwrap()));
    // The terminal is gone for good; what runs now finds its streams dead but runs.
    eventually("standby", || (client.status().state == State::Standby).then_some(()));
    client.run();
}

#[test]
fn ending_with_a_terminal_gives_the_exit_code() {
    if !root() {
        return;
    }
    let (mut container, mut master) = container("echo bye; exit 9");
    container.run();
    master.expect("bye");
    assert_eq!(container.exit_code(), 9);
}
