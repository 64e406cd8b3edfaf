//! Test hosts, the framework around them, and the test suites of FastMig.
//!
//! `framework` knows how to make two Debian machines out of namespaces, what to put on them and how to run commands there;
//! `apps` moves real applications between them, `demo` shows it, `suites` holds what is tested. `cargo xtask` is the command
//! line of all.

pub mod apps;
pub mod demo;
pub mod framework;
pub mod suites;
