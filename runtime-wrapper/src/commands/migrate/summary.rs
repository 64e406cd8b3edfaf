//! What a migration came to, for people.

use fastmig_api::client::ClientError;
use fastmig_api::migration::{Outcome, PhaseTime, Side};
use fastmig_api::request::Compression;
use fastmig_api::{Code, MigrationReport};

use crate::commands::figures::{bytes, milliseconds, short};

/// Of one that went well.
pub(super) fn of(container: &str, report: &MigrationReport) -> String {
    if report.outcome == Outcome::Possible {
        return format!("{container} could move to {}: nothing stands in the way", report.to);
    }
    let first = format!(
        "{container} lives at {} in {}: it was down for {}, all took {}",
        report.to,
        short(&report.into),
        milliseconds(report.frozen_ms),
        milliseconds(report.total_ms)
    );
    [first, phases(&report.phases), travelled(report)].join("\n")
}

/// The source's phases, those in which it was frozen in brackets.
fn phases(all: &[PhaseTime]) -> String {
    let ours = all.iter().filter(|phase| phase.side == Side::Source);
    let mut text = String::from("phases:");
    let mut frozen = false;
    for phase in ours {
        if frozen && !phase.frozen {
            text.push_str(" ]");
        } else if !frozen && phase.frozen {
            text.push_str(" [ frozen:");
        }
        frozen = phase.frozen;
        text.push_str(&format!(" {} {}", phase.phase, milliseconds(phase.ms)));
    }
    if frozen {
        text.push_str(" ]");
    }
    text
}

fn travelled(report: &MigrationReport) -> String {
    let sent = &report.bytes;
    let how = match report.compression {
        Compression::None => "uncompressed",
        Compression::Lz4 => "lz4",
        Compression::Zstd => "zstd",
        Compression::Auto => "compressed as the link gave",
    };
    format!(
        "memory: {} as {} in {} streams ({how}), zeros {}; files: {} with {}, {} of it frozen",
        bytes(sent.raw),
        bytes(sent.wire),
        report.streams,
        bytes(sent.zero),
        report.files,
        bytes(sent.files),
        bytes(sent.files_frozen),
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
        (Some(report), _) if report.frozen_ms > 0 => {
            format!("{container} runs on here; it was frozen for {}", milliseconds(report.frozen_ms))
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
