//! Test hosts, the framework around them, and the test suites of FastMig.
//!
//! `framework` knows how to make two Debian machines out of namespaces, what to put on them and how to run commands there;
//! `suites` holds what is tested. `cargo xtask` is the command line of both.

pub mod framework;
pub mod suites;
