//! A moment at which a test can strike: a daemon started with `FASTMIGD_STOP_AT=ROLE:POINT` in its environment stops itself
//! (SIGSTOP) when a migration comes there, once, until somebody lets it go on. The points are those of
//! [`fastmig_migrate::faults`]. Who can set it could as well stop the process.

use std::sync::atomic::{AtomicBool, Ordering};

use fastmig_migrate::faults::{Fault, Faults};
use fastmig_migrate::journal::Role;
use nix::sys::signal::{raise, Signal};

const VARIABLE: &str = "FASTMIGD_STOP_AT";

/// Where to stop, if anywhere.
#[derive(Debug, Default)]
pub(super) struct StopAt {
    place: Option<String>,
    done: AtomicBool,
}

impl StopAt {
    pub(super) fn from_environment() -> Self {
        let place = std::env::var(VARIABLE).ok();
        if let Some(place) = &place {
            tracing::warn!(place, "this daemon will stop itself there");
        }
        Self { place, done: AtomicBool::new(false) }
    }
}

impl Faults for StopAt {
    fn at(&self, role: Role, point: &str) -> Fault {
        let here = format!("{}:{point}", role.name());
        if self.place.as_ref() == Some(&here) && !self.done.swap(true, Ordering::SeqCst) {
            // To this thread: sent to the process, another one may take it while we go on.
            if let Err(e) = raise(Signal::SIGSTOP) {
                tracing::error!(error = %e, "it cannot stop");
            }
        }
        Fault::None
    }
}
