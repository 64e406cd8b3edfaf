//! What becomes of an application that has ended: rules are held against the facts of its end, and the first that fits
//! decides. No containers, no processes, and no I/O but the end of one log file.
//!
//! | file | what it is |
//! |---|---|
//! | [`facts`] | what is known of an end: how, when, in which phase, and what was said last |
//! | [`rules`] | rules as a TOML file has them, checked; what is wrong is named with its line |
//! | `condition` | what one rule asks of the facts |
//! | [`decision`] | the answer, with its reason and the time to wait |
//! | `backoff` | how long a restart waits after how many failures |
//! | [`output`] | the last lines of a log, bounded, in the formats of docker, Kubernetes and podman |
//! | [`question`] | facts and answer as JSON, for a program that decides instead |
//! | `named` | the policies that come with FastMig: `default` and `paper` |
//! | `duration`, `signals` | how times and signals are spelt |
//!
//! ```
//! use fastmig_policy::{Action, Facts, Rules};
//!
//! let rules = Rules::named("default").expect("it comes with FastMig");
//! let facts = Facts::exited(137).after(std::time::Duration::from_secs(5)).failed(1);
//! let decision = rules.decide(&facts);
//! assert_eq!(decision.action, Action::Scratch);
//! ```
#![forbid(unsafe_code)]

mod backoff;
mod condition;
pub mod decision;
mod duration;
pub mod facts;
mod named;
pub mod output;
pub mod question;
pub mod rules;
mod signals;

pub use backoff::Backoff;
pub use decision::{Action, Decision, Wanted};
pub use duration::parse as parse_duration;
pub use facts::{Facts, Phase};
pub use named::NAMES;
pub use output::Output;
pub use rules::{Decider, Rules, RulesError};
pub use signals::number as signal_number;
