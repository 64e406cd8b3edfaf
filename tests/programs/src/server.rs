//! Lines in, lines of JSON out, over TCP; on the same port of UDP each datagram goes back as it came, so that whoever asks whether
//! the program lives leaves no connection in it.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{json, Value};

use crate::pauses::Pauses;

/// Before the next try to accept, when one failed.
const AGAIN: Duration = Duration::from_millis(10);

/// What a program answers; what it knows nothing of is [`Value::Null`].
pub(crate) trait Answer: Send + Sync + 'static {
    /// The answer to `stat` or `check`.
    fn answer(&self, request: &str) -> Value;
}

/// Answers on `port` as long as the program lives. What every program has is added to its `stat`.
pub(crate) fn serve(port: u16, program: impl Answer, pauses: Pauses) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))
        .with_context(|| format!("cannot listen on port {port}"))?;
    let datagrams = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))
        .with_context(|| format!("cannot receive datagrams on port {port}"))?;
    std::thread::spawn(move || echo(&datagrams));
    let service = Arc::new(Service { program, pauses, life: life() });
    loop {
        let Ok((client, _)) = listener.accept() else {
            std::thread::sleep(AGAIN);
            continue;
        };
        let service = Arc::clone(&service);
        // A client that goes, or a connection that was closed by a move, ends its thread alone.
        std::thread::spawn(move || service.converse(&client));
    }
}

fn echo(datagrams: &UdpSocket) {
    let mut content = [0; 64];
    loop {
        // Nobody may be there any more to hear it.
        let _ = datagrams
            .recv_from(&mut content)
            .and_then(|(size, from)| datagrams.send_to(&content[..size], from));
    }
}

struct Service<P> {
    program: P,
    pauses: Pauses,
    life: String,
}

impl<P: Answer> Service<P> {
    fn converse(&self, client: &TcpStream) -> io::Result<()> {
        client.set_nodelay(true)?;
        for line in BufReader::new(client).lines() {
            let answer = format!("{}\n", self.reply(line?.trim()));
            (&mut &*client).write_all(answer.as_bytes())?;
        }
        Ok(())
    }

    fn reply(&self, request: &str) -> Value {
        if request == "reset" {
            self.pauses.reset();
            return json!({ "ok": true });
        }
        let mut answer = self.program.answer(request);
        match &mut answer {
            Value::Object(fields) if request == "stat" => {
                fields.insert("life".to_owned(), json!(self.life));
                if let Value::Object(pauses) = self.pauses.tell() {
                    fields.extend(pauses);
                }
                answer
            }
            Value::Null => json!({ "error": format!("nothing is known of {request:?}") }),
            _ => answer,
        }
    }
}

/// A name for this life of the program: one that was started anew has another.
fn life() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("{}-{:x}", std::process::id(), now.as_nanos())
}
