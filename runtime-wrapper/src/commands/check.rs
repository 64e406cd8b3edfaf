//! `fastmig check [CONTAINER]`: exit code 0 when nothing stands in the way, 2 when something does.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use fastmig_engine::check::{self, Finding, Severity};
use fastmig_engine::passport::{self, Passport, Reasons};
use fastmig_engine::start_options::Volumes;
use fastmig_engine::{Container, Error};

use super::Context;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The container's id, or what it begins with; only the host when left out
    container: Option<String>,
    /// Print what another host must know before the application can move there
    #[arg(long, requires = "container", conflicts_with = "against")]
    passport: bool,
    /// Volumes that are to travel: all, none, or paths in the container with commas between them
    #[arg(long, value_name = "LIST", requires = "passport")]
    volumes: Option<Volumes>,
    /// Say what keeps the application that this passport describes from moving into the container, which is in standby
    #[arg(long, value_name = "FILE", requires = "container")]
    against: Option<PathBuf>,
}

/// The exit code when something stands in the way.
const BLOCKED: u8 = 2;

impl Arguments {
    pub(crate) fn run(&self, context: &Context) -> Result<ExitCode, Error> {
        let container = self.container.as_deref().map(|id| context.container(id)).transpose()?;
        match (container, &self.against) {
            (Some(container), Some(file)) => compare(context, &container, file),
            (Some(container), None) if self.passport => self.describe(context, &container),
            (container, _) => judge(context, container.as_ref()),
        }
    }

    fn describe(&self, context: &Context, container: &Container) -> Result<ExitCode, Error> {
        let request = passport::Request { volumes: self.volumes.clone(), ..passport::Request::default() };
        let passport = container.passport(&request)?;
        context.output.value(&passport, |passport| format!("{:#}", passport.to_value()));
        Ok(ExitCode::SUCCESS)
    }
}

fn compare(context: &Context, container: &Container, file: &Path) -> Result<ExitCode, Error> {
    let passport = Passport::parse(&read(file)?)?;
    let reasons = container.check_passport(&passport).err().unwrap_or_default();
    let answer = serde_json::json!({ "ok": reasons.0.is_empty(), "reasons": reasons.0 });
    context.output.value(&answer, |_| reasons_text(&reasons));
    Ok(if reasons.0.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(BLOCKED) })
}

/// No more of it than a passport may have.
fn read(file: &Path) -> Result<Vec<u8>, Error> {
    let mut text = Vec::new();
    let limit = passport::LONGEST as u64 + 1;
    let read = File::open(file).and_then(|open| open.take(limit).read_to_end(&mut text));
    read.map_err(|source| Error::Io { action: "read", path: file.into(), source })?;
    Ok(text)
}

fn reasons_text(reasons: &Reasons) -> String {
    if reasons.0.is_empty() {
        return "nothing stands in the way of a migration".into();
    }
    let lines = reasons.0.iter().map(|reason| format!("blocked: {}; {}", reason.cause, reason.remedy));
    lines.collect::<Vec<_>>().join("\n")
}

fn judge(context: &Context, container: Option<&Container>) -> Result<ExitCode, Error> {
    let report = check::host(&context.config);
    let mut findings = report.findings.clone();
    if let Some(container) = container {
        findings.extend(container.check()?);
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
