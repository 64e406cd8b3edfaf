//! What can go wrong with a checkpoint at rest, and what to do then.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fastmig_engine::image::ImageError;

/// The reason that another library gives.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why a checkpoint could not be stored, found or brought back.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No place of this form.
    #[error("{text:?} is no place for checkpoints: {problem}; give /DIR, s3://BUCKET/PREFIX or oci://REGISTRY/REPOSITORY")]
    Location {
        /// What was given.
        text: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// No name that a checkpoint can have.
    #[error("{name:?} is no name for a checkpoint: it may have 128 letters, digits, dots, dashes and underscores, and begins with none of the middle two")]
    Name {
        /// What was given.
        name: String,
    },
    /// The settings lack something, or are wrong.
    #[error("{problem}: {remedy}")]
    Settings {
        /// What is wrong.
        problem: String,
        /// What to do.
        remedy: String,
    },
    /// The place does not answer.
    #[error("{place} cannot be reached: look at its address and the network between")]
    Unreachable {
        /// The place.
        place: String,
        /// What was heard.
        source: Cause,
    },
    /// The place took too long.
    #[error("{place} did not {action} within {} s: try again, or raise store.timeout", limit.as_secs())]
    Slow {
        /// The place.
        place: String,
        /// What it was to do.
        action: &'static str,
        /// How long it was waited for.
        limit: Duration,
    },
    /// The place does not let us in.
    #[error("{place} refuses us: look at the credentials that [store] names, and at what they allow")]
    Unauthorized {
        /// The place.
        place: String,
        /// What was heard.
        source: Cause,
    },
    /// There is no such place.
    #[error("{place} is not there: make it first")]
    NoPlace {
        /// The place.
        place: String,
        /// What was heard.
        source: Cause,
    },
    /// There is no such checkpoint.
    #[error(
        "there is no checkpoint {name:?} in {place}: `fastmig checkpoints list` shows those that are there"
    )]
    NotFound {
        /// The place.
        place: String,
        /// Its name.
        name: String,
    },
    /// There is none of this container.
    #[error("there is no checkpoint of {container:?} in {place}: name one of those that `fastmig checkpoints list` shows")]
    NoneOf {
        /// The place.
        place: String,
        /// The container.
        container: String,
    },
    /// The name is taken.
    #[error("{place} has a checkpoint {name:?} already: choose another name, or delete it first")]
    Occupied {
        /// The place.
        place: String,
        /// The name.
        name: String,
    },
    /// There is no room for it.
    #[error("{place} has no room: delete checkpoints there, or let fewer stay (store.keep)")]
    Full {
        /// The place.
        place: String,
        /// What was heard.
        source: Cause,
    },
    /// There is no room for it on this host.
    #[error(
        "{path:?} has room for {free} bytes, the checkpoint needs {needed}: make room, or set store.staging"
    )]
    NoRoom {
        /// Where it was to stand.
        path: PathBuf,
        /// Bytes that are free.
        free: u64,
        /// Bytes that it needs.
        needed: u64,
    },
    /// What is stored is not what was stored.
    #[error("checkpoint {name:?} in {place} is damaged: {problem}; use another one")]
    Damaged {
        /// The place.
        place: String,
        /// Its name.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// It is of another format.
    #[error(
        "checkpoint {name:?} in {place} has format {found}, this FastMig reads {}",
        crate::label::FORMAT
    )]
    Format {
        /// The place.
        place: String,
        /// Its name.
        name: String,
        /// Its format.
        found: u32,
    },
    /// It is encrypted for others.
    #[error("checkpoint {name:?} is encrypted, and none of the identities in {identities:?} opens it: put the right one there")]
    Closed {
        /// Its name.
        name: String,
        /// The file with age's secret keys.
        identities: PathBuf,
    },
    /// The place does not do it at all.
    #[error("{place} cannot {action}: {remedy}")]
    Unable {
        /// The place.
        place: String,
        /// What was asked of it.
        action: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// Something else failed in the place.
    #[error("{place} could not {action}")]
    Failed {
        /// The place.
        place: String,
        /// What it was to do.
        action: &'static str,
        /// What was heard.
        source: Cause,
    },
    /// The checkpoint on this host's disk is not usable.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A file operation on this host failed.
    #[error("could not {action} {path:?}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Someone asked for the end.
    #[error("interrupted: nothing of it stays")]
    Interrupted,
}

impl StoreError {
    pub(crate) fn io<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self::Io { action, path: path.into(), source }
    }

    /// Its text with those of its causes.
    #[must_use]
    pub fn report(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            // They may be a server's, and of any length.
            let words: String = error.to_string().chars().map(plain).take(LONGEST_CAUSE).collect();
            if !text.contains(&words) {
                text.push_str(": ");
                text.push_str(&words);
            }
            cause = error.source();
        }
        text
    }
}

/// No cause is told at greater length.
const LONGEST_CAUSE: usize = 400;

fn plain(c: char) -> char {
    if c.is_control() {
        ' '
    } else {
        c
    }
}

/// Whether `matches` is true of an error or one of its causes.
pub(crate) fn caused_by(
    error: &(dyn std::error::Error + 'static),
    matches: impl Fn(&io::Error) -> bool,
) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<io::Error>().is_some_and(&matches) {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_words_are_told_on_one_line_and_in_short() {
        let source = format!("<Error>\n\u{1b}[2J{}</Error>", "x".repeat(5000)).into();
        let error = StoreError::Failed { place: "s3://b".into(), action: "list", source };
        let report = error.report();
        assert!(report.starts_with("s3://b could not list: <Error>"), "{report}");
        assert!(report.len() < 500 && !report.contains(['\n', '\u{1b}']), "{report}");
    }
}
