//! Suites side by side: each in a process and a realm of its own, for much of their time is waiting.

use std::collections::VecDeque;
use std::env;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{anyhow, Context, Result};
use fastmig_tests::framework::failures;
use fastmig_tests::framework::realm::{Realm, OF_TESTS};

/// What takes longest goes first, so that the lanes end together.
const LONGEST: &[&str] = &["clients", "migration", "memory", "shim"];

/// Runs these suites in so many lanes, and those that go `apart` in one more, each with these options; answers the names of
/// those that failed, in the order in which they did. Each prints its own results, and hands its failures to a file.
pub(crate) fn run<'a>(
    suites: &[&'a str],
    apart: &[&'a str],
    lanes: u8,
    options: &[String],
    failures: &Path,
) -> Result<Vec<&'a str>> {
    let realms = (1..=lanes).map(realm).collect::<Result<Vec<_>>>()?;
    let own = realm(lanes + 1)?;
    let (waiting, apart) = (Mutex::new(longest_first(suites)), Mutex::new(longest_first(apart)));
    let failed = Mutex::new(Vec::new());
    thread::scope(|scope| {
        let work = |realm, waiting| lane(realm, waiting, &failed, (options, failures));
        let lanes = realms.iter().map(|realm| (realm, &waiting)).chain([(&own, &apart)]);
        let lanes: Vec<_> = lanes.map(|(realm, suites)| scope.spawn(move || work(realm, suites))).collect();
        lanes.into_iter().try_for_each(|lane| lane.join().map_err(|_| anyhow!("a lane panicked"))?)
    })?;
    Ok(failed.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn lane<'a>(
    realm: &Realm,
    waiting: &Mutex<VecDeque<&'a str>>,
    failed: &Mutex<Vec<&'a str>>,
    (options, failures): (&[String], &Path),
) -> Result<()> {
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    while let Some(suite) = next() {
        let program = env::current_exe().context("cannot find this program")?;
        let mut command = Command::new(program);
        command.args(["test", suite]).args(options).env("FASTMIG_REALM", realm.name());
        command.env(failures::FILE, failures);
        let status = command.status().with_context(|| format!("cannot run the suite {suite}"))?;
        if !status.success() {
            failed.lock().unwrap_or_else(PoisonError::into_inner).push(suite);
        }
    }
    Ok(())
}

/// A realm of its own for a lane, beside the run's.
fn realm(lane: u8) -> Result<Realm> {
    let run = Realm::or_from_environment(OF_TESTS)?;
    Realm::named(&format!("{}-{lane}", run.name()))
}

fn longest_first<'a>(suites: &[&'a str]) -> VecDeque<&'a str> {
    let mut sorted = suites.to_vec();
    sorted.sort_by_key(|suite| LONGEST.iter().position(|long| long == suite).unwrap_or(LONGEST.len()));
    sorted.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_go_first_and_none_is_forgotten() {
        let order = longest_first(&["hosts", "shim", "clients", "new"]);
        assert_eq!(order, ["clients", "shim", "hosts", "new"]);
    }
}
