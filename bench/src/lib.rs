//! Benchmarks: each against what a user would take instead, both sides in one run and interleaved, for the machine is never
//! quiet. Trust the ratios. No test depends on a number from here.
//!
//! - [`run`]: one run of some [`suites`], what went wrong in it, and where its figures go.
//! - [`mod@bench`]: what the suites measure with: hosts, time left, and the book that they write into.
//! - [`suites`]: what is measured, a file or directory for each.
//! - [`figures`]: medians with their spread, the targets, the report as JSON and as tables; `plots`: the same as charts.
//! - `outside`, `usage`: what a client and the machine see of whatever runs on the hosts.
//! - [`readme`]: the table in README.

pub mod bench;
pub mod figures;
mod network;
mod outside;
mod plots;
pub mod readme;
pub mod run;
pub mod suites;
mod usage;
