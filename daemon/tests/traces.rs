//! Traces go where the settings say.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::mpsc;
use std::thread;

use common::Daemon;
use nix::sys::signal::Signal;

#[test]
fn an_operation_is_a_span() {
    let collector = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = collector.local_addr().unwrap();
    let (sender, received) = mpsc::channel();
    thread::spawn(move || {
        for stream in collector.incoming() {
            let mut stream = stream.unwrap();
            let (mut all, mut part) = (Vec::new(), [0; 4096]);
            // A whole request, by its length.
            while !is_whole(&all) {
                let count = stream.read(&mut part).unwrap();
                all.extend_from_slice(&part[..count]);
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n{}").unwrap();
            sender.send(String::from_utf8_lossy(&all).into_owned()).unwrap();
        }
    });
    let mut daemon = Daemon::prepare();
    daemon.configure(&format!("otlp = \"http://{address}\""));
    daemon.up();
    let _container = daemon.make_container("web");
    assert_eq!(daemon.call("POST", "/v1/containers/web/standby", "").status, 409);
    // What was not sent yet is sent at the end.
    assert!(daemon.end(Signal::SIGTERM), "{}", daemon.log());
    let request = received.recv_timeout(common::LIMIT).unwrap();
    assert!(request.starts_with("POST /v1/traces "), "{request}");
    for word in ["\"operation\"", "standby", "\"web\"", "fastmigd"] {
        assert!(request.contains(word), "{word} is not in {request}");
    }
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request).into_owned();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().unwrap())
    });
    length.is_some_and(|length| body.len() >= length)
}
