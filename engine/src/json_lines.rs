//! A file of JSON lines to which many programs write.

use std::fs::{DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use serde::Serialize;

/// Adds a line. The file starts anew beyond `most` bytes; the one before stays, with `.1` at its end. One write of a line is whole,
/// whoever else writes.
pub(crate) fn append(path: &Path, line: &impl Serialize, most: u64) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    if std::fs::metadata(path).is_ok_and(|metadata| metadata.len() > most) {
        std::fs::rename(path, path.with_extension("jsonl.1"))?;
    }
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    File::options().append(true).create(true).mode(0o600).open(path)?.write_all(&text)
}
