//! podman: its runtime is an option of the program, not of `run`.

use super::{words, Client};

pub(in crate::suites) static PODMAN: Podman = Podman;

#[derive(Debug)]
pub(in crate::suites) struct Podman;

impl Client for Podman {
    fn program(&self) -> &'static str {
        "podman"
    }

    fn run_with(&self, runtime: &str) -> Vec<String> {
        words(&["podman", "--runtime", runtime, "run"])
    }
}
