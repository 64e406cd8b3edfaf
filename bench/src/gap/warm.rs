//! By `fastmig migrate`, into a container that waits.

use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;
use fastmig_tests::apps::memory::{Pair, MIGRATE};
use fastmig_tests::apps::migrating;

use super::{Stage, LIFE};

/// Moves the program once; how long it stood still.
pub(super) fn measure(stage: &Stage, words: &[&str], migrate: &[String]) -> Result<Duration> {
    let mut pair = Pair::start(&stage.a, &stage.b, words)?;
    sleep(LIFE);
    let life = pair.program().life()?;
    pair.program().reset()?;
    let [source, destination] = pair.containers();
    let options: Vec<&str> = MIGRATE.iter().copied().chain(migrate.iter().map(String::as_str)).collect();
    migrating::migrate(source, destination, &options)?;
    pair.has_moved();
    let (gap, _) = pair.require_alive(&life)?;
    pair.remove()?;
    Ok(gap)
}
