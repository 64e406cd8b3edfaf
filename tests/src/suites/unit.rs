//! The tests that lie beside the code, run by cargo and counted here.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::framework::dist::{cargo, repository};
use crate::framework::{Cmd, Ctx, Tally};

/// A cold build of the workspace is part of it.
const LIMIT: Duration = Duration::from_secs(1800);

pub(super) fn run(ctx: &Ctx) -> Result<Tally> {
    let mut tally = attempt()?;
    for _ in 0..ctx.retries() {
        if tally.failed == 0 {
            break;
        }
        println!("unit: {tally}, trying again");
        tally = attempt()?;
    }
    Ok(tally)
}

fn attempt() -> Result<Tally> {
    let root = repository();
    let root = root.to_str().context("a path that is not UTF-8")?;
    let output =
        Cmd::new([&cargo(), "test", "--workspace", "--no-fail-fast"]).dir(root).timeout(LIMIT).output()?;
    let text = output.out();
    let mut tally = count(&text);
    if !output.status.success() {
        print!("{text}{}", output.err());
        // A build that fails runs no test.
        tally.failed = tally.failed.max(1);
    }
    for line in text.lines().filter(|line| line.contains("... ignored")) {
        println!("{line}");
    }
    Ok(tally)
}

/// Adds up lines such as `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out`.
fn count(text: &str) -> Tally {
    let mut tally = Tally::default();
    for line in text.lines().filter_map(|line| line.strip_prefix("test result: ")) {
        for part in line.split(['.', ';']).map(str::trim) {
            let Some((number, what)) = part.split_once(' ') else { continue };
            let Ok(number) = number.parse::<usize>() else { continue };
            match what {
                "passed" => tally.passed += number,
                "failed" => tally.failed += number,
                "ignored" => tally.skipped += number,
                _ => {}
            }
        }
    }
    tally
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_several_binaries_add_up() {
        let text = "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.10s\n\
                    noise: 7 passed\n\
                    test result: FAILED. 2 passed; 4 failed; 0 ignored; 9 measured; 0 filtered out; finished in 1.00s\n";
        assert_eq!(count(text), Tally { passed: 5, failed: 4, skipped: 1 });
    }
}
