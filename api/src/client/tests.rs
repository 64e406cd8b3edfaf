//! The client against a small server on a unix socket, which answers with prepared text and keeps what it was asked.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread::JoinHandle;

use super::*;
use crate::error::Code;
use crate::event::What;

/// Answers one call; gives back its head and its body.
struct Server {
    directory: tempfile::TempDir,
    thread: JoinHandle<(String, String)>,
}

impl Server {
    fn answering(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::doing(move |mut stream| stream.write_all(&answer).unwrap())
    }

    fn doing(answer: impl FnOnce(UnixStream) + Send + 'static) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("s")).unwrap();
        let thread = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let asked = read_request(&stream);
            answer(stream);
            asked
        });
        Self { directory, thread }
    }

    fn client(&self) -> Client {
        Client::unix(&self.directory.path().join("s"))
    }

    fn asked(self) -> (String, String) {
        self.thread.join().unwrap()
    }
}

fn read_request(stream: &UnixStream) -> (String, String) {
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    (head, String::from_utf8(body).unwrap())
}

fn json(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[test]
fn a_call_asks_in_its_own_words_and_takes_the_answer() {
    let answer = r#"{"operation":"op-1","container":"abc","started_at":"2026-11-21T10:00:00Z","took_ms":7,"report":{}}"#;
    let server = Server::answering(json("200 OK", answer));
    let done = server.client().standby("ns/pod/web", Some("key-1")).unwrap();
    assert_eq!((done.operation.as_str(), done.took_ms), ("op-1", 7));
    let (head, body) = server.asked();
    assert!(head.starts_with("POST /v1/containers/ns%2Fpod%2Fweb/standby HTTP/1.1\r\n"), "{head}");
    assert!(head.to_lowercase().contains("idempotency-key: key-1\r\n"), "{head}");
    assert_eq!(body, "{}");
}

#[test]
fn a_query_is_encoded() {
    let server = Server::answering(json("200 OK", r#"{"operations":[]}"#));
    assert!(server.client().operations(Some("a&b=c")).unwrap().operations.is_empty());
    assert!(server.asked().0.starts_with("GET /v1/operations?key=a%26b%3Dc "));
}

#[test]
fn a_namespace_goes_along_where_a_container_is_meant() {
    let server =
        Server::answering(json("404 Not Found", r#"{"error":{"code":"not-found","message":"no web"}}"#));
    let error = server.client().within(Some("k8s.io".into())).container("web").unwrap_err();
    assert_eq!(error.code(), Some(Code::NotFound));
    assert!(server.asked().0.starts_with("GET /v1/containers/web?namespace=k8s.io "));
}

#[test]
fn a_refusal_says_why_and_what_would_help() {
    let body = r#"{"error":{"code":"refused","message":"web cannot move","cause":["host-b lacks avx2"],"remedy":"choose another host"}}"#;
    let server = Server::answering(json("422 Unprocessable Entity", body));
    let error = server.client().migrate("web", &MigrateRequest::new("host-b"), None).unwrap_err();
    assert_eq!(error.code(), Some(Code::Refused));
    assert_eq!(error.to_string(), "web cannot move: host-b lacks avx2; choose another host");
    assert_eq!(
        serde_json::from_str::<MigrateRequest>(&server.asked().1).unwrap(),
        MigrateRequest::new("host-b")
    );
}

#[test]
fn without_a_daemon_it_says_how_to_start_one() {
    let directory = tempfile::tempdir().unwrap();
    let error = Client::unix(&directory.path().join("none")).health().unwrap_err();
    assert!(error.is_not_running());
    assert!(error.to_string().ends_with("systemctl start fastmigd"), "{error}");
    // One that died leaves its socket.
    drop(UnixListener::bind(directory.path().join("dead")).unwrap());
    assert!(Client::unix(&directory.path().join("dead")).health().unwrap_err().is_not_running());
}

#[test]
fn a_connection_that_breaks_is_not_taken_for_an_answer() {
    for part in
        ["", "HTTP/1.1 200 OK\r\nContent-Le", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"ok\":"]
    {
        let server = Server::answering(part);
        let error = server.client().health().unwrap_err();
        assert!(
            matches!(error, ClientError::Broken { .. } | ClientError::NotUnderstood { .. }),
            "{part:?}: {error:?}"
        );
        server.asked();
    }
}

#[test]
fn an_answer_without_end_is_given_up() {
    let server = Server::doing(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        while stream.write_all(&[b' '; 65536]).is_ok() {}
    });
    let error = server.client().health().unwrap_err();
    assert!(
        matches!(&error, ClientError::NotUnderstood { reason, .. } if reason.contains("bytes")),
        "{error:?}"
    );
    server.asked();
}

#[test]
fn what_is_no_json_of_ours_is_said_to_be_so() {
    let server = Server::answering(json("502 Bad Gateway", "<html>"));
    let error = server.client().health().unwrap_err();
    assert!(error.to_string().contains("502"), "{error}");
    let server = Server::answering(json("200 OK", r#"{"ok":"perhaps"}"#));
    assert!(matches!(server.client().health().unwrap_err(), ClientError::NotUnderstood { .. }));
}

#[test]
fn events_come_one_after_the_other() {
    let server = Server::doing(|mut stream| {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).unwrap();
        let parts = [
            ": hello\n\n",
            "id: 1\nevent: warning\ndata: {\"sequence\":1,\"at\":\"t\",\"type\":\"warning\",",
            "\"message\":\"slow\"}\n\n",
            "id: 2\ndata: {\"sequence\":2,\"at\":\"t\",\"type\":\"progress\",\"phase\":\"restore\",\"done\":1,\"total\":2,\"wire\":1,\"rate\":3}\n\n",
            "data: nonsense\n\n",
        ];
        for part in parts {
            stream.write_all(format!("{:x}\r\n{part}\r\n", part.len()).as_bytes()).unwrap();
        }
        stream.write_all(b"0\r\n\r\n").unwrap();
    });
    let mut events = server.client().events(Some("k")).unwrap();
    let first = events.next().unwrap().unwrap();
    assert_eq!(first.what, What::Warning { message: "slow".into() });
    assert!(matches!(events.next().unwrap().unwrap().what, What::Progress { rate: 3, .. }));
    assert!(events.next().unwrap().is_err());
    assert!(events.next().is_none());
    assert!(server.asked().0.starts_with("GET /v1/events?key=k "));
}
