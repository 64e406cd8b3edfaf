//! What every suite stands on: test hosts made of namespaces, the images they run, and commands with a time limit.
//!
//! The way down: [`session`] holds a run, [`host`] one machine in it, [`hostns`] the namespaces that machine is made of,
//! [`rootfs`] the Debian tree below it, [`cache`] the place where such trees are kept.

pub mod background;
pub mod bundle;
pub mod cache;
pub mod cgroups;
pub mod clients;
pub mod command;
pub mod containerd;
pub mod daemon;
pub mod deb;
pub mod dist;
pub mod failures;
pub mod filters;
pub mod fixture;
pub mod flip;
pub mod golang;
pub mod host;
pub mod hostns;
pub mod image;
pub mod install;
mod killing;
pub mod leftovers;
pub mod mounts;
pub mod network;
pub mod process;
pub mod progress;
pub mod realm;
pub mod recipe;
pub mod rootfs;
pub mod session;
pub mod settings;
pub mod sharing;
pub mod state;
pub mod suite;
mod sys;
pub mod tools;
pub mod usage;
pub mod vm;

pub use background::Background;
pub use command::{Cmd, Output};
pub use host::Host;
pub use recipe::{Equipment, Generation};
pub use session::Session;
pub use suite::{Case, Ctx, Outcome, Tally};
