//! Lines of JSON that survive a crash: each is on disk, whole, before its writer goes on.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::record::{Change, Record};
use super::JournalError;

/// Only root is to know who moves where.
const PRIVATE: u32 = 0o600;
const PRIVATE_DIRECTORY: u32 = 0o700;
/// A record with its changes and its report is some kilobytes; passports are not in it, a recipe may be.
const LARGEST: u64 = 16 << 20;

/// An error about a path.
pub(super) fn failed(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> JournalError + use<> {
    let path = path.to_owned();
    move |source| JournalError::Io { doing, path: path.clone(), source }
}

pub(super) fn make_directory(path: &Path) -> Result<(), JournalError> {
    DirBuilder::new().recursive(true).mode(PRIVATE_DIRECTORY).create(path).map_err(failed("make", path))
}

/// Why a line is not there.
#[derive(Debug)]
pub(super) enum AppendError {
    /// The file is as before.
    Undone(JournalError),
    /// The line may be on disk or not.
    Unknown(JournalError),
}

/// A record's file.
#[derive(Debug)]
pub(super) struct Lines {
    path: PathBuf,
    /// Open while something is likely to follow.
    file: Option<File>,
    /// Bytes of whole lines.
    length: u64,
}

impl Lines {
    /// A new file with its first line.
    pub(super) fn create(path: &Path, record: &Record) -> Result<Self, JournalError> {
        let mut options = OpenOptions::new();
        let file =
            options.append(true).create_new(true).mode(PRIVATE).open(path).map_err(failed("make", path))?;
        let mut lines = Self { path: path.to_owned(), file: Some(file), length: 0 };
        let made = lines.append(record).and_then(|()| lines.sync_directory().map_err(AppendError::Undone));
        made.map_err(|(AppendError::Undone(error) | AppendError::Unknown(error))| {
            // What is left of it is no whole line, or a migration that has not begun.
            drop(fs::remove_file(path));
            error
        })?;
        Ok(lines)
    }

    /// Reads a file again; nothing when not even its first line is whole.
    pub(super) fn load(path: &Path) -> Result<Option<(Record, Self)>, JournalError> {
        let damaged = |reason: String| JournalError::Damaged { path: path.to_owned(), reason };
        let file = OpenOptions::new().read(true).append(true).open(path).map_err(failed("open", path))?;
        let mut content = Vec::new();
        (&file).take(LARGEST + 1).read_to_end(&mut content).map_err(failed("read", path))?;
        if content.len() as u64 > LARGEST {
            return Err(damaged(format!("it has more than {LARGEST} bytes")));
        }
        let whole = content.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let mut texts = content[..whole].split_inclusive(|byte| *byte == b'\n');
        let Some(first) = texts.next() else {
            return Ok(None);
        };
        let mut record: Record = serde_json::from_slice(first).map_err(|error| damaged(error.to_string()))?;
        for text in texts {
            let change: Change = serde_json::from_slice(text).map_err(|error| damaged(error.to_string()))?;
            if let Some(to) = change.state {
                record.state.step(to).map_err(|error| damaged(error.to_string()))?;
            }
            record.apply(change);
        }
        let mut lines = Self { path: path.to_owned(), file: Some(file), length: whole as u64 };
        if content.len() > whole {
            lines.cut().map_err(failed("repair", path))?;
        }
        Ok(Some((record, lines)))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes one more line.
    pub(super) fn append(&mut self, line: &impl Serialize) -> Result<(), AppendError> {
        let failed = failed("write", &self.path);
        let text = serde_json::to_vec(line).map_err(|error| AppendError::Undone(failed(error.into())))?;
        let text = [text, vec![b'\n']].concat();
        let written = self.open().and_then(|mut file| {
            file.write_all(&text)?;
            file.sync_data()
        });
        match written {
            Ok(()) => {
                self.length += text.len() as u64;
                Ok(())
            }
            Err(error) => match self.cut() {
                Ok(()) => Err(AppendError::Undone(failed(error))),
                Err(_) => Err(AppendError::Unknown(failed(error))),
            },
        }
    }

    /// Takes back what follows the last whole line.
    fn cut(&mut self) -> io::Result<()> {
        let length = self.length;
        let file = self.open()?;
        file.set_len(length)?;
        file.sync_data()
    }

    /// Nothing is likely to follow: hundreds of finished migrations keep no descriptor.
    pub(super) fn rest(&mut self) {
        self.file = None;
    }

    fn open(&mut self) -> io::Result<&File> {
        let file = match self.file.take() {
            Some(file) => file,
            None => OpenOptions::new().append(true).open(&self.path)?,
        };
        Ok(self.file.insert(file))
    }

    pub(super) fn remove(&self) -> Result<(), JournalError> {
        fs::remove_file(&self.path).map_err(failed("remove", &self.path))
    }

    /// From here on the disk is full.
    #[cfg(test)]
    pub(super) fn fill_up(&mut self) {
        self.file = Some(OpenOptions::new().write(true).open("/dev/full").unwrap());
    }

    fn sync_directory(&self) -> Result<(), JournalError> {
        let directory = self.path.parent().unwrap_or(Path::new("."));
        let synced = File::open(directory).and_then(|directory| directory.sync_all());
        synced.map_err(failed("write", directory))
    }
}
