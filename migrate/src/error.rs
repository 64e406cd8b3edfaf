//! What can go wrong in a migration.

use std::error::Error as StdError;
use std::io;

use crate::ends::{Doubt, EndError, InDoubt};
use crate::hooks::Stage;
use crate::journal::JournalError;
use crate::options::OnTimeout;
use crate::phase::Phase;
use crate::wire::WireError;

/// Why a migration does not go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The other host cannot be reached.
    #[error("cannot reach the other host")]
    Dial(#[source] io::Error),
    /// The connection.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The other host said no.
    #[error("the other host gives up: {0}")]
    Refused(String),
    /// The other host's end is in doubt about memory that travelled in rounds.
    #[error("the other host gives up: {0}")]
    RefusedInDoubt(Doubt),
    /// This host's end.
    #[error("cannot {doing}")]
    End {
        /// What was tried.
        doing: &'static str,
        /// Why not.
        #[source]
        source: EndError,
    },
    /// An operator's command.
    #[error("a {stage:?} hook failed")]
    Hook {
        /// When.
        stage: Stage,
        /// Why.
        #[source]
        source: EndError,
    },
    /// The journal does not take it.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Somebody wanted it to end.
    #[error("the migration was cancelled")]
    Cancelled,
    /// A phase's time is over.
    #[error("phase `{0}` took longer than it may")]
    TooLong(Phase),
    /// The application stood still for as long as it may.
    #[error("the application stood still for {0} s, which is the most that is allowed")]
    FrozenTooLong(u64),
    /// Rounds of memory do not come to an end.
    #[error(
        "the application writes {dirty:.0} MiB/s and the link carries {link:.0} MiB/s: stopped now it would stand still for \
         {freeze:.1} s. Let it be slowed down (--on-timeout {}), stopped all the same (--on-timeout force), \
         or allow more with --max-downtime", .instead.name()
    )]
    DoesNotConverge {
        /// What it writes, in MiB per second.
        dirty: f64,
        /// What travels, in MiB per second.
        link: f64,
        /// The freeze that is predicted, in seconds.
        freeze: f64,
        /// How much of the processor had been taken away.
        throttled: u32,
        /// What else can be asked for.
        instead: OnTimeout,
    },
    /// The destination was to keep more than it may.
    #[error("{what} need more than the {most} bytes that this host keeps in memory for them; raise the bound in its configuration")]
    TooMuch {
        /// Which images.
        what: &'static str,
        /// The bound.
        most: u64,
    },
    /// A second migration into this container, or too many at once.
    #[error("{0}")]
    Busy(String),
    /// A test wanted it.
    #[error("{0}")]
    Injected(String),
    /// A test wanted the process to die here.
    #[error("died")]
    Died,
}

impl Error {
    pub(crate) fn end(doing: &'static str) -> impl FnOnce(EndError) -> Self {
        move |source| Self::End { doing, source }
    }

    pub(crate) fn refused(reason: String, doubt: Option<Vec<InDoubt>>) -> Self {
        match doubt {
            Some(mappings) => Self::RefusedInDoubt(Doubt { reason, mappings }),
            None => Self::Refused(reason),
        }
    }

    /// Of which mappings an end is in doubt that travelled in rounds; none of them where it is of all. Nothing without a doubt.
    pub(crate) fn doubt(&self) -> Option<Vec<InDoubt>> {
        match self {
            Self::RefusedInDoubt(doubt) => Some(doubt.mappings.clone()),
            Self::End { source, .. } => source.downcast_ref::<Doubt>().map(|doubt| doubt.mappings.clone()),
            _ => None,
        }
    }
}

/// An error with all its causes.
pub(crate) fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}
