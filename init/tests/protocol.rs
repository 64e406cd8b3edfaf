//! Peers that misbehave, and starts that cannot work.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use common::{eventually, init_binary, root, Container, Setup, STANDBY};
use fastmig_control::{Refusal, Reply, Request, State, MAX_CONNECTIONS, MAX_PACKET, VERSION};

#[test]
fn what_is_no_request_is_refused_and_the_connection_closed() {
    if !root() {
        return;
    }
    let container = Container::start(["true"]);
    let oversized = vec![VERSION; MAX_PACKET * 4];
    let cases: [(&[u8], Refusal); 8] = [
        (&[VERSION], Refusal::Malformed),
        (&[VERSION, 0], Refusal::Malformed),
        (&[VERSION, 0x41], Refusal::Malformed),
        (&[VERSION, 3, 1, 0, 0, 0], Refusal::Malformed),
        (&[VERSION, 1, 0], Refusal::Malformed),
        (&oversized, Refusal::Malformed),
        (&[VERSION + 1, 1], Refusal::VersionMismatch { ours: VERSION }),
        (b"GET / HTTP/1.1\r\n\r\n", Refusal::VersionMismatch { ours: VERSION }),
    ];
    for (packet, refusal) in cases {
        let client = container.client();
        client.send(packet);
        assert_eq!(client.reply(), Reply::Refused(refusal));
        assert!(client.receive().is_empty());
    }
    assert_eq!(container.status(), STANDBY);
}

#[test]
fn connections_are_bounded() {
    if !root() {
        return;
    }
    let container = Container::start(["true"]);
    // The one that Container::start used may not be seen closed yet.
    let mut clients: Vec<_> = (0..MAX_CONNECTIONS)
        .map(|_| {
            eventually("a free connection", || {
                let client = container.client();
                (client.ask(Request::Status) == Reply::Status(STANDBY)).then_some(client)
            })
        })
        .collect();
    let refused = container.client();
    assert_eq!(refused.reply(), Reply::Refused(Refusal::Busy));
    assert!(refused.receive().is_empty());
    clients.pop();
    assert_eq!(clients[0].status(), STANDBY);
    assert_eq!(container.status(), STANDBY);
}

#[test]
fn a_subscriber_that_does_not_read_is_dropped() {
    if !root() {
        return;
    }
    let container = Container::start(["true"]);
    let client = container.client();
    assert_eq!(client.ask(Request::OnExit { policy: fastmig_control::Policy::Standby }), Reply::Ok);
    let lazy = container.client().subscribed();
    // Far more than a socket's buffer holds: three events each round, several hundred bytes of it each.
    for _ in 0..400 {
        client.run();
        eventually("standby", || (client.status().state == State::Standby).then_some(()));
    }
    let mut events = 0;
    while !lazy.receive().is_empty() {
        events += 1;
    }
    assert!(events < 1200, "{events} events were kept");
    assert!(client.status().runs >= 400);
}

#[test]
fn a_subscriber_that_speaks_is_dropped() {
    if !root() {
        return;
    }
    let container = Container::start(["true"]);
    let subscriber = container.client().subscribed();
    assert_eq!(subscriber.refused(Request::Status), Refusal::OutOfTurn);
    assert!(subscriber.receive().is_empty());
}

#[test]
fn a_peer_that_vanishes_before_its_answer_does_no_harm() {
    if !root() {
        return;
    }
    let container = Container::start(["sleep", "1000"]);
    for _ in 0..50 {
        let client = container.client();
        client.send(Request::Run.encode().as_bytes());
    }
    eventually("standby", || (container.status().state == State::Standby).then_some(()));
    container.run();
}

#[test]
fn short_of_descriptors_it_serves_those_it_has_and_does_not_spin() {
    if !root() {
        return;
    }
    // The streams, the listener (under whatever number), the signals, and two connections.
    let setup =
        Setup { wrapper: vec!["prlimit".into(), "--nofile=7".into(), "--".into()], ..Setup::default() };
    let container = Container::start_with(setup, &["true"]);
    let clients: Vec<_> = (0..4).map(|_| container.client()).collect();
    assert_eq!(clients[0].status(), STANDBY);
    container.wait_until_idle();
    for client in clients {
        assert_eq!(client.status(), STANDBY);
    }
}

#[test]
fn it_starts_only_as_process_1() {
    let output = Command::new(init_binary()).args(["--control-fd", "3", "--", "true"]).output().unwrap();
    assert_eq!(output.status.code(), Some(125));
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(message.contains("must be process 1 of a container"), "{message}");
}

#[test]
fn it_starts_only_with_its_socket() {
    if !root() {
        return;
    }
    let run = |descriptor: Option<i32>| {
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--kill-child=KILL"]).arg(init_binary());
        command.args(["--control-fd", &descriptor.unwrap_or(999).to_string(), "--", "true"]);
        if let Some(fd) = descriptor {
            // SAFETY: one system call between fork and exec.
            unsafe {
                command.pre_exec(move || match libc::fcntl(fd, libc::F_SETFD, 0) {
                    0 => Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                })
            };
        }
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(125));
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(run(None).contains("descriptor 999 is not open"));
    let (stream, _peer) = std::os::unix::net::UnixStream::pair().unwrap();
    let file = std::fs::File::open("/dev/null").unwrap();
    for fd in [stream.as_raw_fd(), file.as_raw_fd()] {
        assert!(run(Some(fd)).contains("is not a listening SOCK_SEQPACKET unix socket"));
    }
}
