//! Server-sent events, one after the other.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read};
use std::time::Duration;

use ureq::{Body, BodyReader};

use crate::event::{Event, KEEP_ALIVE};

/// After so long without a word, not even one that keeps the connection alive, the daemon is taken for gone.
pub(super) const SILENCE: Duration = Duration::from_secs(3 * KEEP_ALIVE.as_secs());

/// The longest line that is read, in bytes.
const MAX_LINE: u64 = 1 << 20;

/// What happens. Ends when the daemon closes the connection.
pub struct Events {
    lines: Lines<BodyReader<'static>>,
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

impl Events {
    pub(super) fn new(body: Body) -> Self {
        Self { lines: Lines { from: BufReader::new(body.into_with_config().limit(u64::MAX).reader()) } }
    }
}

impl Iterator for Events {
    /// An event, or why there are no more.
    type Item = io::Result<Event>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let line = match self.lines.next()? {
                Ok(line) => line,
                Err(e) => return Some(Err(e)),
            };
            // The data holds all: its kind, its sequence. Comments keep the connection alive.
            let Some(data) = line.strip_prefix("data:") else { continue };
            return Some(serde_json::from_str(data).map_err(io::Error::other));
        }
    }
}

/// Lines of a bounded length.
struct Lines<R> {
    from: BufReader<R>,
}

impl<R: Read> Iterator for Lines<R> {
    type Item = io::Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut line = String::new();
        match self.from.by_ref().take(MAX_LINE).read_line(&mut line) {
            Ok(0) => None,
            Ok(_) if !line.ends_with('\n') && line.len() as u64 >= MAX_LINE => {
                Some(Err(io::Error::other(format!("an event is longer than {MAX_LINE} bytes"))))
            }
            Ok(_) => Some(Ok(line.trim_end_matches(['\n', '\r']).to_owned())),
            Err(e) => Some(Err(e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_does_not_end_is_given_up() {
        let endless = BufReader::new(io::repeat(b'x'));
        let error = Lines { from: endless }.next().unwrap().unwrap_err();
        assert!(error.to_string().contains("longer"), "{error}");
    }
}
