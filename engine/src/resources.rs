//! What an operation takes of the host: CRIU's processes, and this one while it is at it.

use std::sync::Arc;

use fastmig_criu::{meter, Meter};
use serde::Serialize;

/// What an operation took.
///
/// Of this process all that it took meanwhile, so that in a daemon operations at the same time count each other's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Resources {
    /// Time on processors, in milliseconds.
    pub cpu_ms: u64,
    /// The most memory that a process of CRIU's had at a time, in bytes.
    pub memory_peak_bytes: u64,
    /// Bytes read from disks.
    pub read_bytes: u64,
    /// Bytes written to disks.
    pub written_bytes: u64,
}

/// Counts from when it was made.
#[derive(Debug, Clone)]
pub struct Measured {
    criu: Arc<Meter>,
    /// Of both, before.
    before: Resources,
}

impl Measured {
    /// From now on; `criu` is told of every CRIU of the operation's.
    pub(crate) fn begin(criu: &Arc<Meter>) -> Self {
        Self { criu: Arc::clone(criu), before: so_far(criu) }
    }

    /// What was taken since.
    #[must_use]
    pub fn so_far(&self) -> Resources {
        let now = so_far(&self.criu);
        Resources {
            cpu_ms: now.cpu_ms.saturating_sub(self.before.cpu_ms),
            memory_peak_bytes: now.memory_peak_bytes,
            read_bytes: now.read_bytes.saturating_sub(self.before.read_bytes),
            written_bytes: now.written_bytes.saturating_sub(self.before.written_bytes),
        }
    }
}

fn so_far(criu: &Meter) -> Resources {
    let (criu, ours) = (criu.total(), meter::ourselves());
    Resources {
        cpu_ms: u64::try_from((criu.cpu + ours.cpu).as_millis()).unwrap_or(u64::MAX),
        memory_peak_bytes: criu.memory_peak,
        read_bytes: criu.read + ours.read,
        written_bytes: criu.written + ours.written,
    }
}
