//! docker: its daemon knows runtimes by the names in `daemon.json`.

use super::Client;

pub(in crate::suites) static DOCKER: Docker = Docker;

#[derive(Debug)]
pub(in crate::suites) struct Docker;

impl Client for Docker {
    fn program(&self) -> &'static str {
        "docker"
    }
}
