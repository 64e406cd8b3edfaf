//! runc's commands, for whoever calls an OCI runtime: a shim, conmon, a person.
//!
//! Each is one file, but for the four that take only a container (`plain`). A command takes runc's options. What it
//! concerns is one of three:
//!
//! - a container with FastMig's init: the engine does it, and runc its part of it;
//! - a container that was left to runc, or that runc made without us: handed over untouched;
//! - none, as for `spec` and `features`: handed over.
//!
//! Whoever is not root on the host has every command handed over: neither CRIU nor the namespaces are his.

pub(crate) mod attend;
pub(crate) mod checkpoint;
pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod exec;
mod go_flags;
mod ignored;
pub(crate) mod kill;
pub(crate) mod list;
pub(crate) mod plain;
pub(crate) mod report;
pub(crate) mod restore;
pub(crate) mod run;
mod runtime;
pub(crate) mod version;

pub(crate) use create::Making;
pub(crate) use runtime::{absolute, Runtime};
