//! A checkpoint by rounds, step by step: rounds while the application runs, then the freeze, in which the last round and CRIU's
//! dump of all else go at the same time.

use std::path::Path;
use std::thread;
use std::time::Instant;

use super::capture::Capture;
use super::pace;
use super::verify::Memory;
use crate::checkpoint::{end, After, Memory as Told, Report, Request};
use crate::clock::milliseconds;
use crate::container::{Container, Operation};
use crate::files::open_directory;
use crate::freeze::frozen::{self, Frozen, Held};
use crate::image::{Draft, ImageError, FORMAT_IN_ROUNDS};
use crate::migration::tracked::Tracked;
use crate::root_files::RootFiles;
use crate::start_options::TcpPolicy;
use crate::subject::Subject;
use crate::tree::network_lock;
use crate::{Error, Resources};

/// Takes one, upon the container's last if that is still there.
///
/// # Errors
/// When it cannot be taken: the application runs on as before then, and nothing is left at the path.
/// [`Error::Untracked`] and [`Error::View`] when it cannot be taken in this way.
pub(crate) fn take(
    container: &Container,
    operation: &mut Operation,
    request: &Request,
    subject: &Subject,
) -> Result<Report, Error> {
    let base = operation.record.last_checkpoint.clone();
    match attempt(container, operation, request, subject, base.as_deref()) {
        Err(Error::Image(e @ ImageError::Damaged { .. })) if is_of(&e, base.as_deref()) => {
            tracing::warn!(error = %e, "the checkpoint before is not built upon");
            attempt(container, operation, request, subject, None)
        }
        result => result,
    }
}

fn is_of(error: &ImageError, base: Option<&Path>) -> bool {
    matches!(error, ImageError::Damaged { path, .. } if Some(path.as_path()) == base)
}

fn attempt(
    container: &Container,
    operation: &mut Operation,
    request: &Request,
    subject: &Subject,
    base: Option<&Path>,
) -> Result<Report, Error> {
    let draft = Draft::begin(&request.path, request.replaces)?;
    let volumes = request.volumes.as_ref().unwrap_or(&operation.record.volumes);
    let mut files = RootFiles::begin(container, request.files.then_some(volumes))?;
    files.pack(draft.directory(), &subject.cgroup.pids())?;
    let ends = request.after != After::Run;
    let mut tracked = Tracked::start_in(subject, open_directory(draft.directory())?, ends)?;
    let watchdog = frozen::watchdog(container)?;
    let mut capture = Capture::begin(draft.directory(), base)?;
    let mut rounds = Vec::new();
    while pace::another(&rounds) {
        let round = tracked.round(subject, false)?;
        let bytes = match capture.take(&round) {
            Ok(bytes) => bytes,
            Err(e) => {
                // A CRIU that ended says itself why.
                tracked.require_criu()?;
                return Err(e);
            }
        };
        tracing::debug!(round = rounds.len() + 1, bytes, "a round of memory is written");
        rounds.push(bytes);
    }

    tracked.ready()?;
    let begun = Instant::now();
    // Declared after the tracker, which takes its time to end: thawed first, whatever happens.
    let frozen = Frozen::enter_watched(container, watchdog)?;
    let processes = subject.cgroup.pids();
    subject.require_whole_tree(&processes)?;
    let mut manifest = subject.describe(&operation.record, &processes)?;
    manifest.format = FORMAT_IN_ROUNDS;
    let last = tracked.last(subject, false)?;
    let (dumped, taken) = thread::scope(|scope| {
        let taking = scope.spawn(|| capture.take(&last));
        let dumped = tracked.dump_in_place();
        let panicked =
            |_| Err(Error::io("write", draft.directory(), std::io::Error::other("a thread panicked")));
        (dumped, taking.join().unwrap_or_else(panicked))
    });
    crate::checkpoint::hand_out_logs(subject, tracked.log.written(), request);
    let held = dumped.map(|()| hold(subject, tracked.log.written(), ends))?;
    tracked.check()?;
    rounds.push(taken?);
    tracked.log.forget();
    let memory = request.verify.then(|| Memory::of(&processes)).transpose()?;
    files.pack(draft.directory(), &processes)?;
    fastmig_criu::mend_timers(draft.directory()).map_err(|e| Error::io("mend", draft.directory(), e))?;
    let dump_ms = milliseconds(begun);

    // What is to end must not run again, and what runs on is not kept waiting.
    let ending = if ends {
        Some((frozen, tracked))
    } else {
        frozen.leave(container)?;
        tracked.leave();
        None
    };
    let finished = capture.finish()?;
    let verified = memory.map(|memory| memory.compare(draft.directory())).transpose()?;
    let bytes = draft.publish_knowing(manifest, &finished.known)?;
    if let Some((frozen, tracked)) = ending {
        operation.record.network_lock = held.and_then(Held::keep);
        // Its end is decided: it must not run again, not even for a moment.
        frozen.keep();
        tracked.forget();
        end(container, request.after)?;
    }
    let linked: u64 = finished.known.values().map(|entry| entry.size).sum();
    Ok(Report {
        path: request.path.clone(),
        after: request.after,
        bytes,
        processes: processes.len(),
        files: files.entries(),
        frozen_ms: if ends { milliseconds(begun) } else { dump_ms },
        dump_ms,
        memory: Told {
            rounds: u32::try_from(rounds.len()).unwrap_or(u32::MAX),
            written: bytes.saturating_sub(linked),
            reused: finished.reused,
            last_round: rounds.last().copied().unwrap_or(0),
            verified_pages: verified,
            plain_because: None,
        },
        resources: Resources::default(),
    })
}

/// An application that is to end does not run again: CRIU leaves its connections locked.
fn hold(subject: &Subject, log: &Path, ends: bool) -> Option<Held> {
    let locks = ends && subject.terms.tcp == TcpPolicy::Keep;
    let table = locks.then(|| network_lock::name(log).unwrap_or_default());
    ends.then(|| Held::new(subject.container.pid(), subject.cgroup.clone(), table))
}
