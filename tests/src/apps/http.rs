//! Just enough of HTTP/1.1 to ask a service on a connection that stays open.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{ensure, Context, Result};
use serde_json::Value;

use super::load::{Client, Counter, Trouble};
use super::peer::{Connection, Peer};

/// The body of the answer to GET `path`, which must have status 200.
pub fn get(connection: &mut Connection, path: &str) -> Result<Vec<u8>, Trouble> {
    connection.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes())?;
    let status = connection.line()?;
    if !status.starts_with("HTTP/1.1 200") {
        return Err(Trouble::Wrong(format!("GET {path} answers {status:?}")));
    }
    let mut length = None;
    loop {
        let line = connection.line()?.to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().ok();
        }
    }
    let length = length.ok_or_else(|| Trouble::Wrong(format!("GET {path}: no length")))?;
    Ok(connection.bytes(length)?)
}

/// The JSON that GET `path` answers.
pub fn get_json(peer: &Peer, path: &str) -> Result<Value> {
    let body = get(&mut peer.connect()?, path)?;
    serde_json::from_slice(&body).with_context(|| format!("GET {path} answers no JSON"))
}

/// A client of a program that counts its requests and answers the count.
#[derive(Debug, Clone, Default)]
pub struct CountingClient(pub Arc<Mutex<Counter>>);

impl CountingClient {
    /// Fails unless the program may have counted so far.
    pub fn require(&self, count: &Value) -> Result<()> {
        let counter = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let allowed = count.as_u64().is_some_and(|count| counter.allows(count));
        ensure!(allowed, "its count is {count} although {} requests are answered", counter.value());
        Ok(())
    }
}

impl Client for CountingClient {
    fn request(&mut self, connection: &mut Connection) -> Result<(), Trouble> {
        let mut counter = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counter.sent();
        let body = get(connection, "/count")?;
        let text = String::from_utf8_lossy(&body).into_owned();
        let value = text.trim().parse().map_err(|_| Trouble::Wrong(format!("the count is {text:?}")))?;
        counter.answered(value)
    }
}
