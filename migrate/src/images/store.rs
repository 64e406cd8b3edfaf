//! Images that were pushed, until the restore reads them: in memory, each freed as it is read.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Read};
use std::sync::{Mutex, PoisonError};

use super::{is_name, MOST_IMAGES};
use crate::chunk;
use crate::error::Error;
use crate::options::Bounds;
use crate::wire::WireError;

/// What has arrived so far.
#[derive(Debug)]
pub(crate) struct Store {
    bounds: Bounds,
    content: Mutex<Content>,
}

#[derive(Debug, Default)]
struct Content {
    images: HashMap<String, Image>,
    small: u64,
    large: u64,
}

#[derive(Debug, Default)]
struct Image {
    chunks: VecDeque<Vec<u8>>,
    whole: bool,
}

impl Store {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self { bounds, content: Mutex::default() }
    }

    /// The next chunk of an image.
    pub(crate) fn put(&self, name: &str, large: bool, last: bool, packed: &[u8]) -> Result<(), Error> {
        let malformed = |what: &str| WireError::Malformed(format!("an image {what}"));
        if !is_name(name) {
            return Err(malformed("whose name is none").into());
        }
        let chunk = chunk::unpack(packed)?;
        let mut content = self.content.lock().unwrap_or_else(PoisonError::into_inner);
        content.count(large, chunk.len() as u64, &self.bounds)?;
        if content.images.len() >= MOST_IMAGES {
            return Err(malformed("too many").into());
        }
        let image = content.images.entry(name.to_owned()).or_default();
        if image.whole {
            return Err(malformed("that goes on after its end").into());
        }
        if !chunk.is_empty() {
            image.chunks.push_back(chunk);
        }
        image.whole = last;
        Ok(())
    }

    /// Whether all that began is whole.
    pub(crate) fn check_whole(&self) -> Result<(), Error> {
        let content = self.content.lock().unwrap_or_else(PoisonError::into_inner);
        if content.images.values().all(|image| image.whole) {
            return Ok(());
        }
        Err(WireError::Malformed("an image without its end".to_owned()).into())
    }

    /// The names of those that are left.
    pub(crate) fn names(&self) -> Vec<String> {
        let content = self.content.lock().unwrap_or_else(PoisonError::into_inner);
        content.images.keys().cloned().collect()
    }

    /// Takes an image out.
    pub(crate) fn take(&self, name: &str) -> Option<Reader> {
        let mut content = self.content.lock().unwrap_or_else(PoisonError::into_inner);
        content.images.remove(name).map(|image| Reader { chunks: image.chunks, at: 0 })
    }
}

impl Content {
    fn count(&mut self, large: bool, bytes: u64, bounds: &Bounds) -> Result<(), Error> {
        let (what, so_far, most) = if large {
            ("the application's shared memory and deleted files", &mut self.large, bounds.large)
        } else {
            ("the descriptions of the application's processes", &mut self.small, bounds.small)
        };
        *so_far += bytes;
        if *so_far > most {
            return Err(Error::TooMuch { what, most });
        }
        Ok(())
    }
}

/// Reads an image, and frees what is read.
#[derive(Debug)]
pub(crate) struct Reader {
    chunks: VecDeque<Vec<u8>>,
    at: usize,
}

impl Read for Reader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let Some(chunk) = self.chunks.front() else {
            return Ok(0);
        };
        let taken = into.len().min(chunk.len() - self.at);
        into[..taken].copy_from_slice(&chunk[self.at..self.at + taken]);
        self.at += taken;
        if self.at == chunk.len() {
            self.chunks.pop_front();
            self.at = 0;
        }
        Ok(taken)
    }
}
