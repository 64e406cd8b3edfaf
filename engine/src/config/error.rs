//! What a wrong configuration file is told.

use std::path::{Path, PathBuf};

/// What helps where the parser has refused a line.
const REMEDY: &str = "correct the line or remove it (fastmig config shows all settings)";

/// A file that is no valid configuration: where, why, and what helps.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{}: {cause}; {remedy}", path.display(), at(*line))]
pub struct ConfigError {
    /// The file.
    pub path: PathBuf,
    /// The line, counted from 1.
    pub line: Option<usize>,
    /// What is wrong there.
    pub cause: String,
    /// What helps.
    pub remedy: String,
}

impl ConfigError {
    /// What the parser says of `text`.
    pub(super) fn from_toml(path: &Path, text: &str, error: &toml::de::Error) -> Self {
        // The parser's words go over several lines and name Rust's types.
        let cause = error.message().split_whitespace().collect::<Vec<_>>().join(" ");
        let cause = ["u64", "u32"].into_iter().fold(cause, |cause, number| {
            cause.replace(&format!("expected {number}"), "expected a whole number")
        });
        let line = error.span().map(|span| line_of(text, span.start));
        Self { path: path.into(), line, cause, remedy: REMEDY.into() }
    }
}

/// The line, counted from 1, that the byte at `offset` stands in.
pub(super) fn line_of(text: &str, offset: usize) -> usize {
    let end = offset.min(text.len());
    text.as_bytes()[..end].iter().filter(|byte| **byte == b'\n').count() + 1
}

fn at(line: Option<usize>) -> String {
    line.map(|line| format!(", line {line}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_count_from_one() {
        let text = "a\nbc\n";
        assert_eq!([0, 1, 2, 3, 5, 99].map(|offset| line_of(text, offset)), [1, 1, 2, 2, 3, 3]);
    }
}
