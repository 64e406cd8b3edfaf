//! What can be said. Bulk content is a payload beside the message.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Versions, WireError};
use crate::ends::InDoubt;
use crate::options::{Strategy, Wanted};
use crate::report::Took;

/// A secret by which the data connections of a migration are known.
pub(crate) type Token = String;

/// The first message on a connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) speaks: Versions,
    pub(crate) software: String,
    pub(crate) purpose: Purpose,
}

/// What a connection is for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Purpose {
    /// A migration's control connection.
    Migrate {
        wanted: Wanted,
        /// How long its application may stand still, in milliseconds.
        frozen_ms: u64,
        /// How long it may wait for memory that it is owed while no connection can be made, in milliseconds.
        apart_ms: u64,
    },
    /// One of its data connections.
    Data { token: Token },
    /// The destination's, to the source: memory that is owed is asked for on it.
    Fetch { token: Token },
    /// The destination's, to the source: all that was owed is there.
    AllIsHere {
        token: Token,
        bytes: u64,
        faults: u64,
        /// Since it began to come.
        milliseconds: u64,
    },
    /// How was it decided?
    Ask,
    /// The source knows how it was decided; the record may go.
    Settle,
    /// The source cannot serve what it owes any more.
    Gone,
}

/// How a destination decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verdict {
    Committed,
    /// Committed, and memory is owed.
    Owing,
    /// Committed, and killed since for want of its memory.
    Lost,
    Aborted,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Message {
    /// Source, first on each connection.
    Hello(Hello),
    /// Destination: go on. On the control connection with the token of the data connections, and whether it lacks the image.
    Welcome {
        /// The protocol that both speak.
        protocol: u32,
        /// For [`Purpose::Data`].
        token: Option<String>,
        /// The content of the container's image is wanted.
        lacks_image: bool,
    },
    /// Either: no, and the migration ends.
    Refused {
        /// Why, and what would help.
        reason: String,
        /// Of [`crate::ends::Doubt`].
        #[serde(default)]
        doubt: Option<Vec<InDoubt>>,
    },
    /// Destination: still at it.
    Working,
    /// Either: the payload is the next part of a stream of bytes.
    Bytes,
    /// Either: the stream of bytes ends, complete.
    BytesEnd,
    /// Source: what the destination must know.
    Passport {
        /// Of [`crate::ends::Leaving::passport`].
        passport: Value,
    },
    /// Source: a round of files follows as a stream.
    Files {
        /// The application stands still.
        frozen: bool,
    },
    /// Source: start what the restore needs.
    Ready {
        /// How memory is going to travel.
        strategy: Strategy,
        /// What is restored is compared before the commit.
        verify: bool,
    },
    /// Source: a round of memory. Its plan follows as a stream; its content is to be asked for.
    Round {
        /// The application stands still, and no other follows.
        last: bool,
        /// Names and sizes.
        memory: Vec<(String, u64)>,
        /// What is owed: to be asked for in any order, also after the commit.
        owed: Vec<(String, u64)>,
    },
    /// Destination: all content of a round is in its place.
    RoundDone {
        /// How long it made room and prepared its restore meanwhile, in microseconds: that says nothing of the link.
        aside_us: u64,
    },
    /// Source: what was restored is to be compared with the fingerprint that follows as a stream.
    Verify,
    /// Destination: it is the same.
    Verified {
        /// So many pages were compared.
        pages: u64,
    },
    /// Destination: the last request is fulfilled.
    Done,
    /// Destination: a round of files is put back.
    FilesDone {
        /// Files, directories, links and deletions.
        entries: u64,
        /// Bytes of content.
        bytes: u64,
    },
    /// Source: the payload is the next chunk of an image.
    Image {
        /// Its name.
        name: String,
        /// May be large.
        large: bool,
        /// Nothing follows.
        last: bool,
    },
    /// Source: all images have been sent but memory, which is to be asked for.
    Dumped {
        /// Of [`crate::ends::Leaving::dump`].
        dumped: Value,
        /// Names and sizes.
        memory: Vec<(String, u64)>,
    },
    /// Destination, on a data connection: this range of memory is wanted.
    Get {
        /// Index in the lists of `Round` and `Dumped`, one after the other.
        image: u32,
        /// Where it begins.
        offset: u64,
        /// At most a chunk.
        length: u32,
    },
    /// Source: the payload is the chunk that was asked for.
    Chunk {
        /// As asked for.
        image: u32,
        /// As asked for.
        offset: u64,
    },
    /// Destination: restored and held.
    Held,
    /// Source: let it live.
    Commit,
    /// Destination: it is decided, and, if nothing is said of it, it runs.
    Committed {
        /// Why it does not run yet.
        trouble: Option<String>,
    },
    /// Destination: still at it, and so much of what was owed is here.
    Filling {
        /// Bytes.
        bytes: u64,
        /// How often the application had to wait.
        faults: u64,
    },
    /// Destination: all that was owed is here.
    Here {
        /// Bytes.
        bytes: u64,
        /// How often the application had to wait.
        faults: u64,
        /// Since its release.
        milliseconds: u64,
    },
    /// Destination: what was owed did not come, and the application is killed.
    Lost {
        /// Why.
        reason: String,
    },
    /// Destination, in answer to [`Purpose::Ask`].
    Decided(Verdict),
    /// Destination: its part of the report.
    Finished {
        /// Phases.
        took: Vec<Took>,
        /// What went wrong without changing the outcome.
        warnings: Vec<String>,
    },
    /// Source: its part is done, the record may go.
    Settled,
}

impl Message {
    /// Reads one.
    ///
    /// # Errors
    /// When it is none, or says what no version that we speak has.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        serde_json::from_slice(bytes).map_err(|error| WireError::Malformed(error.to_string()))
    }

    /// The versions that a first message's sender speaks, whatever else it says.
    pub(crate) fn versions(bytes: &[u8]) -> Result<Versions, WireError> {
        #[derive(Deserialize)]
        struct AnyFirst {
            hello: AnyHello,
        }
        #[derive(Deserialize)]
        struct AnyHello {
            speaks: Versions,
        }
        let first: AnyFirst =
            serde_json::from_slice(bytes).map_err(|error| WireError::Malformed(error.to_string()))?;
        Ok(first.hello.speaks)
    }

    pub(crate) fn bytes(&self) -> Result<Vec<u8>, WireError> {
        serde_json::to_vec(self).map_err(|error| WireError::Malformed(error.to_string()))
    }

    /// Its kind, for error messages.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Hello(_) => "hello",
            Self::Welcome { .. } => "welcome",
            Self::Refused { .. } => "refused",
            Self::Working => "working",
            Self::Bytes => "bytes",
            Self::BytesEnd => "bytes-end",
            Self::Passport { .. } => "passport",
            Self::Files { .. } => "files",
            Self::Ready { .. } => "ready",
            Self::Round { .. } => "round",
            Self::RoundDone { .. } => "round-done",
            Self::Verify => "verify",
            Self::Verified { .. } => "verified",
            Self::Done => "done",
            Self::FilesDone { .. } => "files-done",
            Self::Image { .. } => "image",
            Self::Dumped { .. } => "dumped",
            Self::Get { .. } => "get",
            Self::Chunk { .. } => "chunk",
            Self::Held => "held",
            Self::Commit => "commit",
            Self::Committed { .. } => "committed",
            Self::Filling { .. } => "filling",
            Self::Here { .. } => "here",
            Self::Lost { .. } => "lost",
            Self::Decided(_) => "decided",
            Self::Finished { .. } => "finished",
            Self::Settled => "settled",
        }
    }
}
