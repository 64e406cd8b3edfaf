//! What can be asked of a container. What is left out of a request has the default that stands here; what is not
//! known is refused, so that a misspelt wish is never silently forgotten.

mod migrate;

use std::str::FromStr;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Code, ErrorInfo};
use crate::MAX_REQUEST;

pub use migrate::{Binds, Compression, MigrateRequest, OnTimeout, Strategy, MAX_ROUNDS, MAX_STREAMS};

/// The longest time limit, in seconds.
pub const MAX_SECONDS: u64 = 24 * 3600;

/// The longest name of a container, host, checkpoint or path, in bytes.
pub const MAX_NAME: usize = 1024;

/// The most volumes and bind mounts that one request may name.
pub const MAX_MOUNTS: usize = 256;

/// What becomes of established TCP connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Tcp {
    /// They are closed in the application; it sees an error on its next read or write.
    Close,
    /// They live on; the address must move along.
    Keep,
    /// Where there is one, the operation is refused.
    Refuse,
}

/// What becomes of the application after a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum After {
    /// It runs on.
    #[default]
    Run,
    /// It ends, and the container waits in standby.
    Standby,
    /// It ends, and the container with it.
    Exit,
}

/// How memory comes into a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CheckpointStrategy {
    /// In rounds while the application runs, only what has changed since the checkpoint before; where the host cannot, as
    /// with `stop-copy`.
    #[default]
    Auto,
    /// In rounds, or not at all.
    PreCopy,
    /// While it stands still, into files that CRIU alone can restore.
    StopCopy,
}

/// `POST /v1/containers/{id}/run`: the application comes up in a container in standby, from scratch or from a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunRequest {
    /// The checkpoint that it comes up from; the image's command from scratch when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<String>,
    /// What becomes of the connections in the checkpoint; the container's annotation decides when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<Tcp>,
    /// Whether the configured hooks run.
    #[serde(default = "yes")]
    pub hooks: bool,
}

/// `POST /v1/containers/{id}/checkpoint`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckpointRequest {
    /// What it is to be called, among the daemon's checkpoints; made of the container and the time when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whether one of that name gives way to it, once it is whole.
    #[serde(default)]
    pub replace: bool,
    /// What becomes of the application.
    #[serde(default)]
    pub after: After,
    /// What becomes of established TCP connections; the container's annotation decides when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<Tcp>,
    /// Whether what it wrote in its root file system travels along.
    #[serde(default)]
    pub files: bool,
    /// Mount points of volumes that travel along with the files, or the one word `all`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<String>,
    /// Whether unix sockets connected to the outside are allowed; restored, their peer is gone.
    #[serde(default = "yes")]
    pub external_unix_sockets: bool,
    /// Whether file locks are allowed, and restored.
    #[serde(default = "yes")]
    pub file_locks: bool,
    /// How memory comes into it.
    #[serde(default)]
    pub strategy: CheckpointStrategy,
    /// Whether each page that was written in rounds is compared with what the application had, which stands still meanwhile.
    #[serde(default)]
    pub verify: bool,
    /// Whether the configured hooks run.
    #[serde(default = "yes")]
    pub hooks: bool,
}

/// `POST /v1/containers/{id}/standby`: the application ends, the container stays up.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StandbyRequest {}

/// `POST /v1/containers/{id}/restore`: into a container that is in standby.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RestoreRequest {
    /// One of the daemon's checkpoints.
    pub checkpoint: String,
    /// What becomes of the connections in it; the container's annotation decides when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<Tcp>,
    /// Whether the application runs before all of its memory is read; only of a checkpoint that was taken in rounds. A damaged
    /// page is found then when the application runs already, and ends it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lazy_pages: bool,
    /// Whether the configured hooks run.
    #[serde(default = "yes")]
    pub hooks: bool,
}

fn yes() -> bool {
    true
}

impl Default for RunRequest {
    fn default() -> Self {
        Self { checkpoint: None, tcp: None, hooks: true }
    }
}

impl Default for CheckpointRequest {
    fn default() -> Self {
        Self {
            name: None,
            replace: false,
            after: After::Run,
            tcp: None,
            files: false,
            volumes: Vec::new(),
            external_unix_sockets: true,
            file_locks: true,
            strategy: CheckpointStrategy::default(),
            verify: false,
            hooks: true,
        }
    }
}

/// A request whose values must be within bounds that its type does not hold.
pub trait Checked {
    /// # Errors
    /// [`Code::BadRequest`], naming the field that is out of bounds and the bounds.
    fn check(&self) -> Result<(), ErrorInfo>;
}

impl Checked for RunRequest {
    fn check(&self) -> Result<(), ErrorInfo> {
        self.checkpoint.as_deref().map_or(Ok(()), |name| checkpoint_name("checkpoint", name))
    }
}

impl Checked for CheckpointRequest {
    fn check(&self) -> Result<(), ErrorInfo> {
        if let Some(name) = &self.name {
            checkpoint_name("name", name)?;
        }
        mounts("volumes", self.volumes.iter())
    }
}

impl Checked for StandbyRequest {
    fn check(&self) -> Result<(), ErrorInfo> {
        Ok(())
    }
}

impl Checked for RestoreRequest {
    fn check(&self) -> Result<(), ErrorInfo> {
        checkpoint_name("checkpoint", &self.checkpoint)
    }
}

/// Reads a request's body. None at all is one that wishes for nothing in particular.
///
/// # Errors
/// [`Code::TooLarge`] or [`Code::BadRequest`], saying what is wrong with it.
pub fn parse<T: DeserializeOwned + Checked>(body: &[u8]) -> Result<T, ErrorInfo> {
    if body.len() > MAX_REQUEST {
        let most = format!("the request has {} bytes, more than {MAX_REQUEST}", body.len());
        return Err(ErrorInfo::new(Code::TooLarge, most));
    }
    let body = if body.trim_ascii().is_empty() { b"{}" } else { body };
    let request: T = serde_json::from_slice(body).map_err(|e| {
        ErrorInfo::new(Code::BadRequest, format!("the request is not understood: {e}"))
            .with_remedy("GET /v1/openapi.json describes it")
    })?;
    request.check()?;
    Ok(request)
}

/// What a checkpoint may be called: letters, digits, `.`, `_` and `-`, not beginning with a dot or dash, so that the
/// name is one of a directory and of nothing else.
///
/// # Errors
/// [`Code::BadRequest`], naming `field`.
pub fn checkpoint_name(field: &str, text: &str) -> Result<(), ErrorInfo> {
    let begins_well = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    let all_allowed = text.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    if begins_well && all_allowed && text.len() <= 200 {
        return Ok(());
    }
    Err(ErrorInfo::new(Code::BadRequest, format!("{field}: {text:?} is no name of a checkpoint"))
        .with_remedy("use up to 200 letters, digits, '.', '_' and '-', and begin with a letter or digit"))
}

fn name(field: &str, text: &str) -> Result<(), ErrorInfo> {
    if text.is_empty() || text.len() > MAX_NAME || text.chars().any(char::is_control) {
        return Err(ErrorInfo::new(Code::BadRequest, format!("{field}: {text:?} is no name"))
            .with_remedy(format!("use 1 to {MAX_NAME} bytes without control characters")));
    }
    Ok(())
}

fn mounts<'a>(field: &str, paths: impl Iterator<Item = &'a String>) -> Result<(), ErrorInfo> {
    for (index, path) in paths.enumerate() {
        if index >= MAX_MOUNTS {
            return Err(ErrorInfo::new(Code::BadRequest, format!("{field}: more than {MAX_MOUNTS} mounts")));
        }
        name(field, path)?;
    }
    Ok(())
}

fn within(field: &str, value: u64, most: u64) -> Result<(), ErrorInfo> {
    if (1..=most).contains(&value) {
        return Ok(());
    }
    Err(ErrorInfo::new(Code::BadRequest, format!("{field}: {value} is not from 1 to {most}")))
}

/// The words of the enums above, for command lines: each is what its JSON is.
macro_rules! words {
    ($($type:ty: $($word:literal)*),*) => {$(
        impl $type {
            /// All that it can be.
            pub const WORDS: &[&str] = &[$($word),*];
        }

        impl FromStr for $type {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                serde_json::from_value(text.into()).map_err(|e| e.to_string())
            }
        }
    )*};
}
words!(
    Tcp: "close" "keep" "refuse",
    After: "run" "standby" "exit",
    Compression: "auto" "none" "lz4" "zstd",
    Strategy: "auto" "stop-copy" "pre-copy" "post-copy" "hybrid",
    OnTimeout: "force" "abort" "throttle" "post-copy",
    Binds: "refuse" "same"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_request_has_the_defaults() {
        assert_eq!(serde_json::from_str::<CheckpointRequest>("{}").unwrap(), CheckpointRequest::default());
        assert_eq!(serde_json::from_str::<RunRequest>("{}").unwrap(), RunRequest::default());
    }

    #[test]
    fn a_misspelt_wish_is_refused() {
        let error = serde_json::from_str::<MigrateRequest>(r#"{"to":"b","crate":true}"#).unwrap_err();
        assert!(error.to_string().contains("crate"), "{error}");
        assert!(serde_json::from_str::<StandbyRequest>(r#"{"x":1}"#).is_err());
    }

    #[test]
    fn a_body_may_be_empty_where_nothing_must_be_said() {
        assert_eq!(parse::<CheckpointRequest>(b" ").unwrap(), CheckpointRequest::default());
        assert_eq!(parse::<MigrateRequest>(b"").unwrap_err().code, Code::BadRequest);
        assert_eq!(parse::<RunRequest>(&[b' '; MAX_REQUEST + 1]).unwrap_err().code, Code::TooLarge);
        assert_eq!(parse::<RunRequest>(br#"{"checkpoint":"../x"}"#).unwrap_err().code, Code::BadRequest);
    }

    #[test]
    fn a_checkpoint_has_no_path_for_a_name() {
        for bad in ["", ".", "..", "../x", "a/b", ".hidden", "-x", "a b", "a\0"] {
            assert!(checkpoint_name("name", bad).is_err(), "{bad:?}");
        }
        for good in ["web-2026-11-21T10.00.00", "a", "A_1.tar"] {
            checkpoint_name("name", good).unwrap();
        }
    }

    #[test]
    fn words_are_those_of_the_json() {
        fn all_are_read<T: FromStr<Err = String>>(words: &[&str]) {
            words.iter().for_each(|word| assert!(word.parse::<T>().is_ok(), "{word}"));
        }
        all_are_read::<Tcp>(Tcp::WORDS);
        all_are_read::<After>(After::WORDS);
        all_are_read::<Compression>(Compression::WORDS);
        all_are_read::<Strategy>(Strategy::WORDS);
        all_are_read::<OnTimeout>(OnTimeout::WORDS);
        all_are_read::<Binds>(Binds::WORDS);
        assert_eq!("keep".parse(), Ok(Tcp::Keep));
        assert!("fast".parse::<Compression>().unwrap_err().contains("zstd"));
    }
}
