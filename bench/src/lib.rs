//! Benchmarks: each against what a user would take instead, both sides in one run and interleaved, for the machine is never
//! quiet. Trust the ratios. No test depends on a number from here.

pub mod brownout;
pub mod checkpoint;
pub mod figures;
pub mod gap;
mod hosts;
pub mod pids;
pub mod policy;
pub mod wire;
pub mod wrapper;
