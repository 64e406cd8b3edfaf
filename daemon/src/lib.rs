//! The node daemon.

#![forbid(unsafe_code)]

pub mod ends;
mod files;
pub mod pki;
