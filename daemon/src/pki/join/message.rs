//! One line of JSON each way.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};

/// No answer is longer: a certificate has 1 KiB, a host in the table less than 100 bytes.
pub(super) const LONGEST_REPLY: u64 = 1 << 20;
/// Nor does one without a certificate get more than this to ask.
pub(super) const LONGEST_REQUEST: u64 = 8 << 10;
/// The time for all of it.
pub(super) const LIMIT: Duration = Duration::from_secs(10);

/// What is asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Request {
    pub(super) id: String,
    pub(super) secret: String,
    pub(super) name: String,
    /// Where a host will be found.
    pub(super) address: Option<String>,
    /// PEM.
    pub(super) request: String,
}

/// What is answered.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "lowercase")]
pub(super) enum Reply {
    Granted {
        /// PEM.
        certificate: String,
        /// PEM.
        ca: String,
        peers: BTreeMap<String, String>,
    },
    Refused {
        why: String,
    },
}

pub(super) async fn write<T: Serialize>(
    stream: &mut (impl AsyncWrite + Unpin),
    message: &T,
) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    stream.flush().await
}

pub(super) async fn read<T: DeserializeOwned>(
    stream: &mut (impl AsyncRead + Unpin),
    most: u64,
) -> io::Result<T> {
    let mut line = Vec::new();
    BufReader::new(stream.take(most)).read_until(b'\n', &mut line).await?;
    if line.pop() != Some(b'\n') {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the message is cut short or too long"));
    }
    Ok(serde_json::from_slice(&line)?)
}
