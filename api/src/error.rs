//! Why a call was not done, and what would make it possible.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The body of every answer whose status is not 2xx.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorBody {
    /// The one error.
    pub error: ErrorInfo,
}

/// An error, for people and programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorInfo {
    /// What kind it is; decides the HTTP status.
    pub code: Code,
    /// What failed.
    pub message: String,
    /// Why, the nearest cause first.
    #[serde(default)]
    pub cause: Vec<String>,
    /// What would make it possible, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// The operation that failed, when one was begun: `GET /v1/operations/{id}` tells more of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
}

/// The kinds of errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// 400: the request cannot be understood.
    BadRequest,
    /// 401: nobody is known by this certificate.
    Unauthenticated,
    /// 403: whoever asks has not the role.
    Forbidden,
    /// 404: there is nothing of that name.
    NotFound,
    /// 405: the path is known, the method is not its.
    MethodNotAllowed,
    /// 409: it could be done in another state.
    WrongState,
    /// 409: it was cancelled before it was done.
    Cancelled,
    /// 413: the request is too large.
    TooLarge,
    /// 422: it cannot be done as asked; nothing was changed.
    Refused,
    /// 422: this idempotency key came with another request before.
    KeyReused,
    /// 429: as many operations run as are allowed at a time.
    Busy,
    /// 500: something below failed.
    Internal,
    /// 502: the other host cannot be reached, or failed.
    Peer,
    /// 503: the daemon is about to stop.
    Unavailable,
    /// 504: a time limit was exceeded.
    TimeLimit,
}

impl Code {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::BadRequest,
        Self::Unauthenticated,
        Self::Forbidden,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::WrongState,
        Self::Cancelled,
        Self::TooLarge,
        Self::Refused,
        Self::KeyReused,
        Self::Busy,
        Self::Internal,
        Self::Peer,
        Self::Unavailable,
        Self::TimeLimit,
    ];

    /// The HTTP status.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Unauthenticated => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::WrongState | Self::Cancelled => 409,
            Self::TooLarge => 413,
            Self::Refused | Self::KeyReused => 422,
            Self::Busy => 429,
            Self::Internal => 500,
            Self::Peer => 502,
            Self::Unavailable => 503,
            Self::TimeLimit => 504,
        }
    }

    /// What it means, in a sentence.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            Self::BadRequest => "the request cannot be understood",
            Self::Unauthenticated => "nobody is known by this certificate",
            Self::Forbidden => "whoever asks has not the role",
            Self::NotFound => "there is nothing of that name",
            Self::MethodNotAllowed => "the path is known, the method is not its",
            Self::WrongState => "it could be done in another state",
            Self::Cancelled => "it was cancelled before it was done",
            Self::TooLarge => "the request is too large",
            Self::Refused => "it cannot be done as asked; nothing was changed",
            Self::KeyReused => "this idempotency key came with another request before",
            Self::Busy => "as many operations run as are allowed at a time",
            Self::Internal => "something below failed",
            Self::Peer => "the other host cannot be reached, or failed",
            Self::Unavailable => "the daemon is about to stop",
            Self::TimeLimit => "a time limit was exceeded",
        }
    }
}

impl ErrorInfo {
    /// One without causes or remedy.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), cause: Vec::new(), remedy: None, operation: None }
    }

    /// One that says as well what would make it possible.
    #[must_use]
    pub fn with_remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// One of an error and all that stands behind it.
    #[must_use]
    pub fn of(code: Code, error: &dyn std::error::Error) -> Self {
        let causes = std::iter::successors(error.source(), |e| e.source());
        Self { cause: causes.map(ToString::to_string).collect(), ..Self::new(code, error.to_string()) }
    }
}

impl fmt::Display for ErrorInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        for cause in &self.cause {
            write!(f, ": {cause}")?;
        }
        if let Some(remedy) = &self.remedy {
            write!(f, "; {remedy}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ErrorInfo {}

impl From<ErrorInfo> for ErrorBody {
    fn from(error: ErrorInfo) -> Self {
        Self { error }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_cause_and_remedy_in_one_line_and_in_json() {
        let io = std::io::Error::other("no route to host");
        let error =
            ErrorInfo { cause: vec![io.to_string()], ..ErrorInfo::new(Code::Peer, "host-b is silent") }
                .with_remedy("start fastmigd there");
        assert_eq!(error.to_string(), "host-b is silent: no route to host; start fastmigd there");
        let json = serde_json::to_value(ErrorBody::from(error)).unwrap();
        assert_eq!(
            json,
            serde_json::json!({"error": {
                "code": "peer", "message": "host-b is silent", "cause": ["no route to host"],
                "remedy": "start fastmigd there"
            }})
        );
    }

    #[test]
    fn every_code_is_listed_once() {
        let names: std::collections::BTreeSet<_> =
            Code::ALL.iter().map(|c| serde_json::to_string(c).unwrap()).collect();
        assert_eq!(names.len(), Code::ALL.len());
    }
}
