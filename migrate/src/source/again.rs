//! What is owed is served on by a daemon that has started anew: the application still stands still, with all of its memory.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::ask::{ask_once, rest};
use super::counter::{Counter, Desk};
use crate::cancel::Cancel;
use crate::chunk::Chooser;
use crate::ends::Memory;
use crate::error::{chain, Error};
use crate::images::{MemoryServer, Meter};
use crate::journal::{Record, Serving};
use crate::options::{Compression, Limits};
use crate::progress::Progress;
use crate::transport::Dialer;
use crate::wire::Verdict;

/// Pauses between questions whether all of it is there.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// The most data connections: no more than a destination takes.
const MOST_STREAMS: u32 = 64;
/// A link that is slow is not silent: a chunk may take so many times as long to be taken.
const SLOW: u32 = 3;

/// Serves until the destination says that it needs nothing more, or, without an answer, until this daemon ends.
#[allow(clippy::too_many_arguments, reason = "what a recovery works with")]
pub(crate) fn serve(
    dialer: &dyn Dialer,
    record: &Record,
    serving: &Serving,
    memory: &Arc<dyn Memory>,
    limits: &Limits,
    progress: &dyn Progress,
    cancel: &Cancel,
    counter: &Counter,
) -> Option<Verdict> {
    let (chooser, meter) = (Chooser::new(Compression::default()), Meter::new(progress));
    let server = MemoryServer::new(&chooser, &meter, limits.silence * SLOW);
    let open = counter.open(record.id, &record.peer, &serving.token);
    let desk = open.desk();
    server.show_again(serving.image, memory);
    server.owe();
    thread::scope(|scope| {
        for _ in 0..serving.streams.clamp(1, MOST_STREAMS) {
            scope.spawn(|| desk.serve_on(&server));
        }
        let verdict = until_it_needs_no_more(dialer, record, limits, cancel, |_| {}, Some(desk));
        server.stop();
        verdict
    })
}

/// Asks until the destination needs nothing more; `owing` is called whenever it does. Nothing when this daemon ends.
pub(crate) fn until_it_needs_no_more(
    dialer: &dyn Dialer,
    record: &Record,
    limits: &Limits,
    cancel: &Cancel,
    owing: impl Fn(&dyn Dialer),
    desk: Option<&Arc<Desk>>,
) -> Option<Verdict> {
    let mut heard = true;
    loop {
        if desk.and_then(|desk| desk.here()).is_some() {
            return Some(Verdict::Committed);
        }
        match ask_once(dialer, record.id, limits) {
            Ok(Verdict::Owing) => {
                heard = true;
                owing(dialer);
            }
            Ok(verdict) => return Some(verdict),
            Err(error) => {
                tell(record, &error, &mut heard);
            }
        }
        if !rest(ASK_AGAIN, cancel) {
            return None;
        }
    }
}

/// Once for each time that it falls silent.
fn tell(record: &Record, error: &Error, heard: &mut bool) {
    if std::mem::take(heard) {
        tracing::warn!(migration = %record.id, reason = chain(error), "asking again whether memory is still owed");
    }
}
