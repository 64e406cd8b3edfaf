//! `fastmig check [CONTAINER]`: exit code 0 when nothing stands in the way, 2 when something does.

use std::process::ExitCode;

use clap::Args;
use fastmig_engine::check::{self, Finding, Severity};
use fastmig_engine::Error;

use super::Context;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The container's id, or what it begins with; only the host when left out
    container: Option<String>,
}

/// The exit code when a checkpoint would fail.
const BLOCKED: u8 = 2;

impl Arguments {
    pub(crate) fn run(&self, context: &Context) -> Result<ExitCode, Error> {
        let report = check::host(&context.config);
        let mut findings = report.findings.clone();
        if let Some(id) = &self.container {
            findings.extend(context.container(id)?.check()?);
        }
        let blocked = findings.iter().any(|f| f.severity == Severity::Blocker);
        let answer = serde_json::json!({
            "ok": !blocked,
            "criu": report.criu,
            "features": report.features,
            "findings": findings,
        });
        context.output.value(&answer, |_| text(report.criu.as_deref(), &findings));
        Ok(if blocked { ExitCode::from(BLOCKED) } else { ExitCode::SUCCESS })
    }
}

fn text(criu: Option<&str>, findings: &[Finding]) -> String {
    let mut lines = vec![format!("CRIU {}", criu.unwrap_or("is missing"))];
    for finding in findings {
        let word = match finding.severity {
            Severity::Blocker => "blocked",
            Severity::Warning => "warning",
        };
        lines.push(format!("{word}: {}; {}", finding.cause, finding.remedy));
    }
    if findings.is_empty() {
        lines.push("nothing stands in the way of a checkpoint".into());
    }
    lines.join("\n")
}
