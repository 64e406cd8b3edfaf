//! What moves a program: FastMig, and what a user would take instead.

use std::fmt;
use std::sync::Arc;

use anyhow::Result;
use fastmig_tests::framework::Host;

use super::work::Work;

/// The hosts that a program is moved between.
pub(super) type Hosts = [Arc<Host>; 2];

/// One way to move a program from the first host to the second.
pub(super) trait Tool: fmt::Debug {
    /// As the report calls it.
    fn name(&self) -> &'static str;

    /// Why it cannot be tried here; nothing when it can.
    fn missing(&self, _hosts: &Hosts) -> Option<String> {
        None
    }

    /// Prepares both hosts, once.
    fn prepare(&self, _hosts: &Hosts) -> Result<()> {
        Ok(())
    }

    /// Whether a run has time for this work by it.
    fn takes(&self, work: &Work, quick: bool) -> bool {
        !quick || work.is_plain()
    }

    /// Rounds in a run: in a quick one, in a thorough one.
    fn rounds(&self) -> [usize; 2] {
        [3, 5]
    }

    /// Starts the program with these arguments on the first host, and what waits for it on the second.
    fn start(&self, hosts: &Hosts, words: &[&str]) -> Result<Box<dyn Started>>;

    /// The programs that do it, as the kernel names them: their memory is told.
    fn programs(&self) -> &'static [&'static str];
}

/// A program that runs on the first host. What is left of it on either goes with this value.
pub(super) trait Started {
    /// Moves it; over when nothing depends on the first host any more. What is known of its phases, in milliseconds.
    fn go(&mut self) -> Result<Vec<(&'static str, f64)>>;
}
