//! `fastmig check [CONTAINER]`: exit code 0 when nothing stands in the way, 2 when something does.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use fastmig_engine::check::{self, Finding, Severity};
use fastmig_engine::migration::trackable;
use fastmig_engine::passport::{self, Passport, Reasons};
use fastmig_engine::start_options::Volumes;
use fastmig_engine::{Container, Error};

use super::Context;
use forecast::Forecast;

mod cost;
mod forecast;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The container's id, or what it begins with; only the host when left out
    container: Option<String>,
    /// Print what another host must know before the application can move there
    #[arg(long, requires = "container", conflicts_with = "against")]
    passport: bool,
    /// Look for a second at what the application writes, and say what it would cost now to move it
    #[arg(long, requires = "container", conflicts_with_all = ["passport", "against"])]
    cost: bool,
    /// The rates of links for that, in MB/s, with commas between them
    #[arg(
        long,
        value_name = "MB/s",
        value_delimiter = ',',
        default_values_t = [110, 1000],
        requires = "cost",
        value_parser = clap::value_parser!(u64).range(1..=1_000_000)
    )]
    link: Vec<u64>,
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
            (container, _) => self.judge(context, container.as_ref()),
        }
    }

    fn describe(&self, context: &Context, container: &Container) -> Result<ExitCode, Error> {
        let request = passport::Request { volumes: self.volumes.clone(), ..passport::Request::default() };
        let passport = container.passport(&request)?;
        context.output.value(&passport, |passport| format!("{:#}", passport.to_value()));
        Ok(ExitCode::SUCCESS)
    }

    fn judge(&self, context: &Context, container: Option<&Container>) -> Result<ExitCode, Error> {
        let report = check::host(&context.config);
        let mut findings = report.findings;
        if let Some(container) = container {
            findings.extend(container.check()?);
        }
        let blocked = findings.iter().any(|f| f.severity == Severity::Blocker);
        let tracker = trackable();
        let mut answer = serde_json::json!({
            "ok": !blocked,
            "criu": report.criu,
            "features": report.features,
            "findings": findings,
            "tracker": tracker.as_ref().ok(),
            "untrackable": tracker.as_ref().err(),
        });
        let mut lines = text(report.criu.as_deref(), &findings);
        lines.push(cost::tracker_line(&tracker));
        match container.filter(|_| self.cost) {
            Some(_) if blocked => lines.push("what a move would cost is not measured: see above".into()),
            Some(container) => {
                let cost = container.cost(cost::WINDOW)?;
                let forecasts: Vec<_> =
                    self.link.iter().flat_map(|link| Forecast::each(&cost, *link)).collect();
                answer["cost"] = cost::as_json(&cost, &forecasts);
                lines.push(cost::as_text(&cost, &forecasts));
            }
            None => {}
        }
        context.output.value(&answer, |_| lines.join("\n"));
        Ok(if blocked { ExitCode::from(BLOCKED) } else { ExitCode::SUCCESS })
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

fn text(criu: Option<&str>, findings: &[Finding]) -> Vec<String> {
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
    lines
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn read(words: &str) -> Result<Arguments, clap::Error> {
        Ok(Line::try_parse_from(format!("check {words}").split_whitespace())?.arguments)
    }

    #[test]
    fn links_belong_to_the_cost_and_the_cost_to_a_container() {
        assert_eq!(read("web --cost").unwrap().link, [110, 1000]);
        assert_eq!(read("web --cost --link 50,2500").unwrap().link, [50, 2500]);
        assert!(!read("").unwrap().cost);
        for bad in ["--cost", "web --link 50", "web --cost --link 0", "web --cost --passport"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_was_found_is_a_line_each() {
        assert_eq!(text(Some("4.2.1"), &[]), ["CRIU 4.2.1", "nothing stands in the way of a checkpoint"]);
        assert_eq!(text(None, &[])[0], "CRIU is missing");
    }
}
