//! Commands that run before and after a move: JSON on stdin, a time limit, and a decision on what a failure means.
//!
//! The settings say which (`[[hook]]`, [`fastmig_engine::config::hooks`]); the engine knows nothing of them. Who drives an
//! operation calls here: [`checkpoint`] and [`restore`] in place of the engine's own, [`MigrationHooks`] in a migration.
//! The program `fastmig-hook` has two hooks that come with FastMig.
//!
//! The files, in the order of the flow:
//!
//! | file | what it does |
//! |---|---|
//! | `operations` | a checkpoint and a restore with the hooks around them, and those of a migration |
//! | `runner` | the hooks of one stage: which ones, in which order, what a failure means |
//! | `patterns` | which containers a hook is for |
//! | [`facts`] | what a hook is told |
//! | `netns` | the addresses of a container, seen from inside its network |
//! | `process` | one command: its input, its output, its end |

#![forbid(unsafe_code)]

pub mod facts;
mod netns;
mod operations;
mod patterns;
mod process;
mod runner;

pub use fastmig_engine::config::hooks::{Operation, Stage};

pub use facts::{ContainerFacts, Direction, Facts};
pub use netns::inside as in_network_of;
pub use operations::{checkpoint, restore, MigrationHooks};
pub use process::ProcessError;
pub use runner::{HookError, Runner};
