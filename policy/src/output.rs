//! The last lines of a log: never more than a bound, and without what the log's keeper put around them.
//!
//! A file of docker's has a JSON object in each line, one of Kubernetes' or podman's time, stream and a mark before the
//! words; any other is taken as it is.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use regex::bytes::Regex;
use serde::Deserialize;

/// Never more lines than this are looked at.
pub const MAX_LINES: usize = 20_000;

/// Never more bytes than this are read.
const MAX_BYTES: u64 = 4 << 20;

/// A line is cut after this many bytes.
const MAX_LINE: usize = 8192;

/// What an application said last, each line ended by a newline.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Output {
    text: Vec<u8>,
}

impl Output {
    /// The last `lines` of a log's text.
    #[must_use]
    pub fn of(text: &[u8], lines: usize) -> Self {
        let mut last: Vec<&[u8]> = text.rsplit(|byte| *byte == b'\n').collect();
        // What follows the last newline is nothing, or a line that is not whole yet.
        if last.first().is_some_and(|line| line.is_empty()) {
            last.remove(0);
        }
        last.truncate(lines.min(MAX_LINES));
        let mut output = Self::default();
        for line in last.into_iter().rev() {
            output.push(line);
        }
        output
    }

    /// The last `lines` of the log at `path`; a symbolic link is not followed.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn tail(path: &Path, lines: usize) -> io::Result<Self> {
        let mut file =
            File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file"));
        }
        let begin = begin_of_last(&mut file, metadata.len(), lines.min(MAX_LINES))?;
        file.seek(SeekFrom::Start(begin))?;
        let mut text = Vec::new();
        file.take(metadata.len() - begin).read_to_end(&mut text)?;
        Ok(Self::of(&text, lines))
    }

    /// The first line in which `pattern` is found.
    #[must_use]
    pub fn find(&self, pattern: &Regex) -> Option<&[u8]> {
        let found = pattern.find(&self.text)?;
        let begin = self.text[..found.start()].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let rest = &self.text[begin..];
        Some(rest.split(|byte| *byte == b'\n').next().unwrap_or(rest))
    }

    /// Each line, as text.
    pub fn lines(&self) -> impl Iterator<Item = std::borrow::Cow<'_, str>> {
        let text = self.text.strip_suffix(b"\n").unwrap_or(&self.text);
        let lines = (!self.text.is_empty()).then(|| text.split(|byte| *byte == b'\n'));
        lines.into_iter().flatten().map(String::from_utf8_lossy)
    }

    fn push(&mut self, line: &[u8]) {
        match from_docker(line) {
            Some(words) => self.push_words(words.as_bytes()),
            None => self.push_words(from_cri(line).unwrap_or(line)),
        }
    }

    fn push_words(&mut self, words: &[u8]) {
        let words = words.strip_suffix(b"\n").unwrap_or(words);
        self.text.extend(&words[..words.len().min(MAX_LINE)]);
        self.text.push(b'\n');
    }
}

/// Where the last `lines` begin, read backwards; at most [`MAX_BYTES`] before the end.
fn begin_of_last(file: &mut File, length: u64, lines: usize) -> io::Result<u64> {
    const PIECE: u64 = 64 << 10;
    let (mut begin, mut newlines) = (length, 0);
    while begin > 0 && length - begin < MAX_BYTES {
        let size = PIECE.min(begin);
        let mut piece = vec![0; usize::try_from(size).unwrap_or(0)];
        file.seek(SeekFrom::Start(begin - size))?;
        file.read_exact(&mut piece)?;
        for (index, _) in piece.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            // The newline that ends the last line begins none.
            if newlines == lines {
                return Ok(begin - size + index as u64 + 1);
            }
            newlines += 1;
        }
        begin -= size;
    }
    Ok(begin)
}

/// docker's `json-file`, and nerdctl's.
fn from_docker(line: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Line {
        log: String,
    }
    if !line.starts_with(b"{\"log\":") {
        return None;
    }
    serde_json::from_slice::<Line>(line).ok().map(|line| line.log)
}

/// `TIME stdout F words`: the container runtime interface's, and podman's `k8s-file`.
fn from_cri(line: &[u8]) -> Option<&[u8]> {
    let mut fields = line.splitn(4, |byte| *byte == b' ');
    let (time, stream, mark, words) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let is_time = time.len() >= 20 && time[0].is_ascii_digit() && time[10] == b'T';
    (is_time && matches!(stream, b"stdout" | b"stderr") && matches!(mark, b"F" | b"P")).then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(output: &Output) -> Vec<String> {
        output.lines().map(Into::into).collect()
    }

    #[test]
    fn only_the_last_lines_are_kept() {
        let output = Output::of(b"one\ntwo\nthree\n", 2);
        assert_eq!(lines(&output), ["two", "three"]);
        assert_eq!(lines(&Output::of(b"one\n\nnot whole", 9)), ["one", "", "not whole"]);
        assert!(lines(&Output::of(b"", 9)).is_empty() && lines(&Output::of(b"x\n", 0)).is_empty());
    }

    #[test]
    fn the_words_of_every_keeper_are_found() {
        let docker = br#"{"log":"a \"b\"\n","stream":"stdout","time":"2026-11-21T10:00:00Z"}"#;
        let cri = b"2026-11-21T10:00:00.123456789+00:00 stderr F panic: x y";
        let text = [&docker[..], b"\n", cri, b"\nplain stdout F text\n{\"log\":3}\n"].concat();
        let output = Output::of(&text, 9);
        assert_eq!(lines(&output), ["a \"b\"", "panic: x y", "plain stdout F text", "{\"log\":3}"]);
    }

    #[test]
    fn a_file_is_read_from_its_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let text: String = (0..100_000).map(|number| format!("line {number}\n")).collect();
        std::fs::write(&path, &text).unwrap();
        for count in [0, 1, 2, 2000, MAX_LINES] {
            let tail = Output::tail(&path, count).unwrap();
            assert_eq!(tail, Output::of(text.as_bytes(), count), "{count}");
            assert_eq!(tail.lines().count(), count);
        }
        // Without a newline at all no more is read than the bound.
        std::fs::write(&path, vec![b'x'; usize::try_from(MAX_BYTES).unwrap() + (1 << 20)]).unwrap();
        let tail = Output::tail(&path, 3).unwrap();
        assert_eq!(lines(&tail)[0].len(), MAX_LINE);
        assert!(Output::tail(directory.path(), 3).is_err());
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(Output::tail(&link, 3).is_err());
    }

    #[test]
    fn the_line_of_a_match_is_found() {
        let output = Output::of(b"first\nthe second line\nlast\n", 9);
        let line = |pattern| output.find(&Regex::new(pattern).unwrap()).map(<[u8]>::to_vec);
        assert_eq!(line("second"), Some(b"the second line".to_vec()));
        assert_eq!(line("(?m)^last$"), Some(b"last".to_vec()));
        assert_eq!(line("third"), None);
    }
}
