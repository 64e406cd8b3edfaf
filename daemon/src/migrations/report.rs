//! The protocol's report, in the words of the HTTP interface.

use std::time::Duration;

use fastmig_api::migration::{
    Bytes, Chunks, Forecast, MigrationReport, Outcome, PhaseTime, Round, RoundsEnd, Side,
};
use fastmig_api::request::{Compression, MigrateRequest, OnTimeout, Strategy};
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
            | Phase::LastRound
            | Phase::Dump
            | Phase::PostCheckpoint
            | Phase::PreRestore
            | Phase::Restore
            | Phase::Verify
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
        strategy: Strategy::Auto,
        why: String::new(),
        rounds: Vec::new(),
        rounds_end: None,
        throttled: 0,
        forecasts: Vec::new(),
        last_round_bytes: 0,
        owed_bytes: 0,
        owed_faults: 0,
        filled_ms: None,
        predicted_freeze_ms: None,
        verified_pages: None,
        iterations: 0,
        streams: 0,
        compression: Compression::Auto,
        chunks: Chunks::default(),
        bytes: Bytes::default(),
        files: 0,
        resources: None,
        phases: Vec::new(),
        warnings: Vec::new(),
        left_to_criu: Vec::new(),
        outcome,
        reason: None,
    }
}

fn outcome_of(state: State) -> Outcome {
    match state {
        State::Preparing | State::Frozen | State::Held => Outcome::Running,
        State::Deciding => Outcome::Undecided,
        State::Resuming | State::Aborted | State::Abandoning | State::Abandoned => Outcome::Stayed,
        State::Committed | State::Serving | State::Filling | State::Done | State::Released => Outcome::Moved,
        State::Lost => Outcome::Lost,
    }
}

/// Adds what the protocol reports of its end.
pub(super) fn ended(mut begun: MigrationReport, report: &report::Report) -> MigrationReport {
    begun.total_ms = report.total_ms;
    begun.frozen_ms = report.frozen_ms;
    begun.strategy = strategy(report.strategy);
    begun.why.clone_from(&report.why);
    begun.rounds = report.rounds.iter().map(round).collect();
    begun.rounds_end = report.rounds_end.map(|end| match end {
        report::RoundsEnd::Converged => RoundsEnd::Converged,
        report::RoundsEnd::Forced => RoundsEnd::Forced,
        report::RoundsEnd::Owed => RoundsEnd::Owed,
    });
    begun.throttled = report.throttled;
    begun.forecasts = report.forecasts.iter().map(forecast).collect();
    begun.last_round_bytes = report.last_round;
    begun.owed_bytes = report.owed;
    begun.owed_faults = report.faults;
    begun.filled_ms = report.filled_ms;
    begun.predicted_freeze_ms = report.predicted_freeze_ms;
    begun.verified_pages = report.verified_pages;
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
        report::Outcome::Lost => Outcome::Lost,
    };
    begun.warnings.clone_from(&report.warnings);
    begun.reason.clone_from(&report.reason);
    begun
}

pub(super) fn strategy(chosen: options::Strategy) -> Strategy {
    match chosen {
        options::Strategy::StopCopy => Strategy::StopCopy,
        options::Strategy::PreCopy => Strategy::PreCopy,
        options::Strategy::PostCopy => Strategy::PostCopy,
        options::Strategy::Hybrid => Strategy::Hybrid,
        // The protocol may learn others before we do.
        _ => Strategy::Auto,
    }
}

pub(super) fn round(round: &report::Round) -> Round {
    Round {
        round: round.round,
        bytes: round.bytes,
        scan_ms: round.scan_ms,
        ms: round.milliseconds,
        rate: round.rate,
        dirty_rate: round.dirty_rate,
        predicted_freeze_ms: round.predicted_freeze_ms,
    }
}

fn forecast(forecast: &report::Forecast) -> Forecast {
    let report::Forecast { strategy: way, freeze_ms, total_ms } = *forecast;
    Forecast { strategy: strategy(way), freeze_ms, total_ms }
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
pub(super) fn options(request: &MigrateRequest) -> Options {
    let mut options = Options::default();
    options.strategy = match request.strategy {
        Strategy::Auto => options::Strategy::Auto,
        Strategy::StopCopy => options::Strategy::StopCopy,
        Strategy::PreCopy => options::Strategy::PreCopy,
        Strategy::PostCopy => options::Strategy::PostCopy,
        Strategy::Hybrid => options::Strategy::Hybrid,
    };
    options.rounds = rounds(request);
    options.limits.apart = Duration::from_secs(request.post_copy_timeout_s);
    options.verify = request.verify;
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
        options.limits.frozen = Duration::from_secs(seconds);
    }
    options
}

/// When rounds of memory are to end, in the protocol's words.
fn rounds(request: &MigrateRequest) -> options::Rounds {
    options::Rounds {
        max_downtime: Duration::from_millis(request.max_downtime_ms),
        most: request.max_rounds,
        timeout: Duration::from_secs(request.rounds_timeout_s),
        on_timeout: match request.on_timeout {
            OnTimeout::Force => options::OnTimeout::Force,
            OnTimeout::Abort => options::OnTimeout::Abort,
            OnTimeout::Throttle => options::OnTimeout::Throttle,
            OnTimeout::PostCopy => options::OnTimeout::PostCopy,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_have_the_same_defaults() {
        let ours = options(&MigrateRequest::new("b"));
        let theirs = Options::default();
        assert_eq!(
            (ours.strategy, ours.rounds, ours.verify, ours.limits),
            (theirs.strategy, theirs.rounds, theirs.verify, theirs.limits)
        );
    }

    #[test]
    fn a_wish_reaches_the_protocol() {
        let request = MigrateRequest {
            strategy: Strategy::PreCopy,
            max_downtime_ms: 50,
            max_rounds: 7,
            rounds_timeout_s: 9,
            on_timeout: OnTimeout::Throttle,
            verify: true,
            ..MigrateRequest::new("b")
        };
        let options = options(&request);
        assert!(options.verify && options.strategy == options::Strategy::PreCopy);
        let rounds = options::Rounds {
            max_downtime: Duration::from_millis(50),
            most: 7,
            timeout: Duration::from_secs(9),
            on_timeout: options::OnTimeout::Throttle,
        };
        assert_eq!(options.rounds, rounds);
    }

    #[test]
    fn the_last_round_and_the_comparison_are_part_of_the_freeze() {
        assert!([Phase::Freeze, Phase::LastRound, Phase::Verify, Phase::Commit].into_iter().all(is_frozen));
        assert!(!is_frozen(Phase::Rounds) && !is_frozen(Phase::Release));
    }
}
