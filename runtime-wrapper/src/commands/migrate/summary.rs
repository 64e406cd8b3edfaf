//! What a migration came to, for people.

use fastmig_api::client::ClientError;
use fastmig_api::migration::{Outcome, Side};
use fastmig_api::{Code, MigrationReport};

use super::rounds;
use crate::commands::figures::{bytes, milliseconds, plain, short};

/// Of one that went well.
pub(super) fn of(container: &str, report: &MigrationReport) -> String {
    if report.outcome == Outcome::Possible {
        return format!("{container} could move to {}: nothing stands in the way", report.to);
    }
    let first = format!(
        "{container} lives at {} in {}: it was down for {}, all took {}",
        report.to,
        short(&report.into),
        milliseconds(report.frozen_ms.unwrap_or_default()),
        milliseconds(report.total_ms)
    );
    let warnings = report.warnings.iter().map(|warning| format!("warning: {warning}"));
    let lines = [first, phases(report), freeze(report), rounds::all_together(report), travelled(report)];
    let lines = lines.into_iter().filter(|line| !line.is_empty()).chain(warnings);
    plain(&lines.collect::<Vec<_>>().join("\n"))
}

/// The source's phases that took any time; those in which it was frozen as one, in brackets.
fn phases(report: &MigrationReport) -> String {
    let ours = report.phases.iter().filter(|phase| phase.side == Side::Source && phase.ms > 0);
    let mut text = String::from("phases:");
    let mut frozen = false;
    for phase in ours {
        if !phase.frozen {
            text.push_str(&format!(" {} {}", phase.phase, milliseconds(phase.ms)));
        } else if !frozen {
            text.push_str(&format!(" [ frozen {} ]", milliseconds(report.frozen_ms.unwrap_or_default())));
        }
        frozen = phase.frozen;
    }
    text
}

/// The freeze by its parts, each host's by its own clock: those of the destination lie within those of the source. And
/// what was predicted of it.
fn freeze(report: &MigrationReport) -> String {
    let parts = |side| {
        let frozen = report.phases.iter().filter(|phase| phase.side == side && phase.frozen && phase.ms > 0);
        frozen
            .map(|phase| format!("{} {}", phase.phase, milliseconds(phase.ms)))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let (here, there) = (parts(Side::Source), parts(Side::Destination));
    if here.is_empty() && there.is_empty() {
        return String::new();
    }
    let mut text = format!("frozen: {here}");
    if !there.is_empty() {
        text.push_str(&format!("; meanwhile at {}: {there}", report.to));
    }
    if let (Some(predicted), Some(real)) = (report.predicted_freeze_ms, report.frozen_ms) {
        text.push_str(&format!("; predicted {}, real {}", milliseconds(predicted), milliseconds(real)));
    }
    if let Some(pages) = report.verified_pages {
        text.push_str(&format!("; {pages} pages compared, all the same"));
    }
    text
}

fn travelled(report: &MigrationReport) -> String {
    let (sent, chunks) = (&report.bytes, &report.chunks);
    let ways = [("uncompressed", chunks.none), ("lz4", chunks.lz4), ("zstd", chunks.zstd)];
    let how: Vec<_> = ways.into_iter().filter_map(|(name, count)| (count > 0).then_some(name)).collect();
    let how = if how.is_empty() { String::new() } else { format!(" ({})", how.join(", ")) };
    format!(
        "sent {} in {} streams{how}: {} of state, of it {} of zeros; {} of {} files",
        bytes(sent.wire),
        report.streams,
        bytes(sent.raw),
        bytes(sent.zero),
        bytes(sent.files),
        report.files,
    )
}

/// Of one that did not: where the application is now.
pub(super) fn where_it_is(container: &str, error: &ClientError, report: Option<&MigrationReport>) -> String {
    match (report, error) {
        (Some(report), _) if report.outcome == Outcome::Undecided => format!(
            "{container} is stopped until {} says whether it runs there; `fastmig history` tells",
            report.to
        ),
        (Some(report), _) if report.outcome == Outcome::Moved => {
            format!("{container} lives at {} nevertheless; see `fastmig history`", report.to)
        }
        (Some(report), _) if report.outcome == Outcome::Lost => {
            format!("{container} had moved to {} and ended there; it can be started anew", report.to)
        }
        (Some(report), _) if report.outcome == Outcome::Stopped => format!(
            "{container} is here and stopped, for it could not be thawed; that is tried again when fastmigd starts"
        ),
        (Some(MigrationReport { frozen_ms: Some(frozen), .. }), _) => {
            format!("{container} runs on here; it was frozen for {}", milliseconds(*frozen))
        }
        (_, ClientError::Refused(info)) if info.code != Code::NotFound => {
            format!("{container} is here as it was")
        }
        (_, ClientError::Broken { .. } | ClientError::Silent { .. }) => {
            "what became of it is not known here; `fastmig history` tells once fastmigd runs".into()
        }
        _ => "nothing was changed".into(),
    }
}
