//! The daemon, as the commands that need it see it.

use std::process::ExitCode;

use fastmig_api::client::ClientError;
use fastmig_api::{Client, Code, ErrorInfo};
use serde_json::{json, Value};

use super::figures::plain;
use super::Context;

/// The exit code where the daemon refused what was asked, and nothing was changed.
pub(crate) const REFUSED: u8 = 2;

impl Context {
    /// This host's daemon; not asked anything yet.
    pub(crate) fn daemon(&self) -> Client {
        Client::unix(&self.config.daemon.socket).within(self.namespace.clone())
    }

    /// Says why there is no good answer; the exit code for that.
    pub(crate) fn daemon_failed(&self, error: &ClientError) -> ExitCode {
        if self.output.json {
            println!("{}", as_json(error));
        } else {
            eprintln!("fastmig: {}", as_text(error));
        }
        exit_code(error)
    }
}

/// With a line for each cause where there are several, as when a host lacks more than one thing.
pub(crate) fn as_text(error: &ClientError) -> String {
    let ClientError::Refused(info) = error else { return plain(&chain(error)) };
    if info.cause.len() < 2 {
        return plain(&info.to_string());
    }
    let causes = info.cause.iter().map(|cause| format!("\n  - {cause}"));
    let remedy = info.remedy.iter().map(|remedy| format!("\n{remedy}"));
    plain(&std::iter::once(info.message.clone()).chain(causes).chain(remedy).collect::<String>())
}

/// As other commands say it, with what the daemon told in addition.
pub(crate) fn as_json(error: &ClientError) -> Value {
    let mut answer = json!({ "error": chain(error), "kind": error.code().map_or_else(kind, name) });
    if let ClientError::Refused(info) = error {
        let ErrorInfo { message, cause, remedy, operation, .. } = &**info;
        answer["message"] = json!(message);
        answer["cause"] = json!(cause);
        answer["remedy"] = json!(remedy);
        answer["operation"] = json!(operation);
    }
    answer
}

fn kind() -> String {
    "Unavailable".into()
}

fn name(code: Code) -> String {
    format!("{code:?}")
}

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |e| e.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

pub(crate) fn exit_code(error: &ClientError) -> ExitCode {
    match error.code() {
        Some(Code::Refused | Code::BadRequest | Code::Forbidden) => ExitCode::from(REFUSED),
        _ => ExitCode::FAILURE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(causes: &[&str]) -> ClientError {
        let info = ErrorInfo {
            cause: causes.iter().map(ToString::to_string).collect(),
            ..ErrorInfo::new(Code::Refused, "web cannot move to host-b")
        };
        ClientError::Refused(Box::new(info.with_remedy("choose another host")))
    }

    #[test]
    fn several_reasons_have_a_line_each() {
        assert_eq!(
            as_text(&refused(&["no avx2"])),
            "web cannot move to host-b: no avx2; choose another host"
        );
        assert_eq!(
            as_text(&refused(&["no avx2", "port 80 is taken"])),
            "web cannot move to host-b\n  - no avx2\n  - port 80 is taken\nchoose another host"
        );
    }

    #[test]
    fn programs_are_told_each_part() {
        let answer = as_json(&refused(&["no avx2"]));
        assert_eq!(answer["kind"], "Refused");
        assert_eq!(answer["cause"], json!(["no avx2"]));
        assert_eq!(answer["remedy"], "choose another host");
    }
}
