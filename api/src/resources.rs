//! What an operation takes of its host.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What an operation took: CRIU's processes, and the daemon while it was at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
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
