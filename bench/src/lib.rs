//! Benchmarks: each against what a user would take instead, both sides in one run and interleaved, for the machine is never
//! quiet. Trust the ratios. No test depends on a number from here.

pub mod figures;
pub mod gap;
pub mod pids;
pub mod policy;
pub mod wrapper;
