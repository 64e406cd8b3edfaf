//! `fastmig history`: the migrations that this host took part in.

use std::process::ExitCode;

use clap::Args;
use fastmig_api::request::Strategy;
use fastmig_api::MigrationReport;
use serde_json::json;

use super::figures::{bytes, milliseconds, moment, short, table};
use super::Context;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Show at most so many, the latest
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,
}

impl Arguments {
    pub(crate) fn run(&self, context: &Context) -> ExitCode {
        match context.daemon().migrations(self.limit) {
            Ok(migrations) => {
                context.output.value(&json!({ "migrations": migrations }), |_| as_text(&migrations));
                ExitCode::SUCCESS
            }
            Err(e) => context.daemon_failed(&e),
        }
    }
}

fn as_text(migrations: &[MigrationReport]) -> String {
    let rows: Vec<_> = migrations.iter().map(row).collect();
    table(
        ["BEGAN (UTC)", "CONTAINER", "FROM", "TO", "OUTCOME", "STRATEGY", "DOWN", "TOOK", "SENT", "REASON"],
        &rows,
    )
}

fn row(report: &MigrationReport) -> [String; 10] {
    [
        moment(&report.started_at),
        short(&report.container).into(),
        report.from.clone(),
        report.to.clone(),
        report.outcome.to_string(),
        strategy(report),
        report.frozen_ms.map(milliseconds).unwrap_or_default(),
        milliseconds(report.total_ms),
        // Only the source counts.
        if report.bytes.wire > 0 { bytes(report.bytes.wire) } else { String::new() },
        report.reason.as_deref().unwrap_or_default().lines().next().unwrap_or_default().into(),
    ]
}

/// Nothing while it is not chosen: one that was refused.
fn strategy(report: &MigrationReport) -> String {
    if report.strategy == Strategy::Auto {
        return String::new();
    }
    report.strategy.to_string()
}

#[cfg(test)]
mod tests {
    use fastmig_api::migration::Outcome;

    use super::*;
    use crate::commands::migrate::tests::report;

    #[test]
    fn a_migration_is_one_line() {
        let mut moved = report(Outcome::Stayed);
        moved.reason = Some("host-b is silent\nsecond line".into());
        let text = as_text(&[moved]);
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.contains("stayed   pre-copy  87 ms") && text.ends_with("host-b is silent"), "{text}");
    }
}
