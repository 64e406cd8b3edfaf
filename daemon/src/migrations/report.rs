//! The protocol's report, in the words of the HTTP interface.

use fastmig_api::migration::{Bytes, Chunks, MigrationReport, Outcome, PhaseTime, Side};
use fastmig_api::request::{Compression, Strategy};
use fastmig_migrate::journal::{Record, Role};
use fastmig_migrate::options::{self, Options};
use fastmig_migrate::phase::Phase;
use fastmig_migrate::report::{self, Took};
use fastmig_migrate::source::Plan;
use fastmig_migrate::state::State;

/// Whether the application stands still in a phase.
pub(super) fn is_frozen(phase: Phase) -> bool {
    matches!(
        phase,
        Phase::Freeze
            | Phase::LastFiles
            | Phase::Dump
            | Phase::PostCheckpoint
            | Phase::PreRestore
            | Phase::Restore
            | Phase::Commit
    )
}

pub(super) fn side(role: Role) -> Side {
    match role {
        Role::Source => Side::Source,
        Role::Destination => Side::Destination,
    }
}

/// One that is not in the journal. `host` is this one's name.
pub(super) fn planned(plan: &Plan, host: &str) -> MigrationReport {
    let told = plan.wanted.options["from"].as_str();
    MigrationReport {
        id: plan.id.to_string(),
        container: told.unwrap_or(&plan.wanted.container).to_owned(),
        into: plan.wanted.container.clone(),
        from: host.to_owned(),
        to: plan.peer.clone(),
        started_at: fastmig_engine::now(),
        ..nothing_yet(Side::Source, Outcome::Stayed)
    }
}

/// One that has only begun. `host` is this one's name.
pub(super) fn begun(record: &Record, host: &str) -> MigrationReport {
    let (from, to) = match record.role {
        Role::Source => (host.to_owned(), record.peer.clone()),
        Role::Destination => (record.peer.clone(), host.to_owned()),
    };
    let told = record.wanted.options["from"].as_str();
    MigrationReport {
        id: record.id.to_string(),
        container: told.unwrap_or(&record.container).to_owned(),
        into: record.container.clone(),
        from,
        to,
        started_at: record.begun.clone(),
        reason: record.reason.clone(),
        ..nothing_yet(side(record.role), outcome_of(record.state))
    }
}

fn nothing_yet(side: Side, outcome: Outcome) -> MigrationReport {
    MigrationReport {
        id: String::new(),
        side,
        container: String::new(),
        into: String::new(),
        from: String::new(),
        to: String::new(),
        started_at: String::new(),
        total_ms: 0,
        frozen_ms: None,
        strategy: Strategy::StopCopy,
        iterations: 0,
        streams: 0,
        compression: Compression::Auto,
        chunks: Chunks::default(),
        bytes: Bytes::default(),
        files: 0,
        phases: Vec::new(),
        warnings: Vec::new(),
        outcome,
        reason: None,
    }
}

fn outcome_of(state: State) -> Outcome {
    match state {
        State::Preparing | State::Frozen | State::Held => Outcome::Running,
        State::Deciding => Outcome::Undecided,
        State::Resuming | State::Aborted | State::Abandoning | State::Abandoned => Outcome::Stayed,
        State::Committed | State::Done | State::Released => Outcome::Moved,
    }
}

/// Adds what the protocol reports of its end.
pub(super) fn ended(mut begun: MigrationReport, report: &report::Report) -> MigrationReport {
    begun.total_ms = report.total_ms;
    begun.frozen_ms = report.frozen_ms;
    begun.iterations = report.file_rounds;
    begun.streams = report.streams;
    begun.compression = compression(report);
    let [none, lz4, zstd] = report.chunks;
    begun.chunks = Chunks { none, lz4, zstd };
    begun.bytes = Bytes {
        raw: report.bytes.raw,
        memory: report.bytes.memory,
        zero: report.bytes.zero,
        files: report.bytes.files,
        wire: report.bytes.wire,
    };
    begun.files = report.files;
    begun.phases = phases(&report.source, Side::Source);
    begun.phases.extend(phases(&report.destination, Side::Destination));
    begun.outcome = match report.outcome {
        report::Outcome::Moved => Outcome::Moved,
        report::Outcome::Stayed => Outcome::Stayed,
        report::Outcome::Stopped => Outcome::Stopped,
        report::Outcome::Undecided => Outcome::Undecided,
    };
    begun.warnings.clone_from(&report.warnings);
    begun.reason.clone_from(&report.reason);
    begun
}

fn phases(took: &[Took], side: Side) -> Vec<PhaseTime> {
    let of = |took: &Took| PhaseTime {
        phase: took.phase.name().to_owned(),
        side,
        ms: took.milliseconds,
        frozen: is_frozen(took.phase),
    };
    took.iter().map(of).collect()
}

/// What most chunks were compressed by in the end.
fn compression(report: &report::Report) -> Compression {
    let kinds = [Compression::None, Compression::Lz4, Compression::Zstd];
    let most = report.chunks.iter().zip(kinds).max_by_key(|(chunks, _)| **chunks);
    match (most, report.compression) {
        (Some((chunks, kind)), options::Compression::Auto) if *chunks > 0 => kind,
        (_, options::Compression::Auto) => Compression::Auto,
        (_, options::Compression::None) => Compression::None,
        (_, options::Compression::Lz4) => Compression::Lz4,
        (_, options::Compression::Zstd) => Compression::Zstd,
    }
}

/// What is asked for, in the protocol's words.
pub(super) fn options(request: &fastmig_api::request::MigrateRequest) -> Options {
    let mut options = Options::default();
    options.strategy = match request.strategy {
        Strategy::StopCopy => options::Strategy::StopCopy,
    };
    options.compression = match request.compression {
        Compression::Auto => options::Compression::Auto,
        Compression::None => options::Compression::None,
        Compression::Lz4 => options::Compression::Lz4,
        Compression::Zstd => options::Compression::Zstd,
    };
    if let Some(streams) = request.streams {
        options.streams = streams.into();
    }
    if !request.files || request.dry_run {
        options.file_rounds = 0;
    }
    if let Some(seconds) = request.freeze_timeout_s {
        options.limits.frozen = std::time::Duration::from_secs(seconds);
    }
    options
}
