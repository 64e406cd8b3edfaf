//! `fastmig migrate`, encrypted, into a container that waits.

use anyhow::{Context, Result};
use fastmig_tests::apps::memory::Pair;
use fastmig_tests::apps::migrating;
use serde_json::Value;

use super::tool::{Hosts, Started, Tool};
use super::work::Work;

/// How memory travels.
pub(super) const STRATEGIES: [&str; 4] = ["pre-copy", "stop-copy", "post-copy", "hybrid"];

/// By this strategy.
#[derive(Debug)]
pub(super) struct Fastmig(pub(super) &'static str);

struct Moving {
    pair: Pair,
    strategy: &'static str,
}

impl Tool for Fastmig {
    fn name(&self) -> &'static str {
        match self.0 {
            "pre-copy" => "fastmig-pre-copy",
            "stop-copy" => "fastmig-stop-copy",
            "post-copy" => "fastmig-post-copy",
            _ => "fastmig-hybrid",
        }
    }

    fn takes(&self, work: &Work, quick: bool) -> bool {
        !quick || work.is_plain() || self.0 == "pre-copy"
    }

    fn start(&self, [a, b]: &Hosts, words: &[&str]) -> Result<Box<dyn Started>> {
        Ok(Box::new(Moving { pair: Pair::start(a, b, words)?, strategy: self.0 }))
    }

    fn programs(&self) -> &'static [&'static str] {
        &["fastmigd", "fastmig", "criu", "ld-linux", "containerd-shim"]
    }
}

impl Started for Moving {
    fn go(&mut self) -> Result<Vec<(&'static str, f64)>> {
        let [source, destination] = self.pair.containers();
        let output = migrating::command(source, destination, &["--strategy", self.strategy]).ok();
        let answer = output.with_context(|| migrating::logs(source, destination))?;
        let answer: Value = serde_json::from_str(&answer).context("no report")?;
        Ok(phases(&answer["report"]))
    }
}

/// Where the gap goes, by the source's clock: what is left of memory and files travels beside dump and restore.
fn phases(report: &Value) -> Vec<(&'static str, f64)> {
    let took = |names: &[&str]| {
        let all = report["phases"].as_array().into_iter().flatten();
        let source = all.filter(|took| took["side"] == "source");
        let of_these = source.filter(|took| names.iter().any(|name| took["phase"] == **name));
        of_these.filter_map(|took| took["ms"].as_f64()).fold(0.0, |sum, one| sum + one)
    };
    vec![
        ("freeze", took(&["freeze"])),
        ("transfer", took(&["last-files", "last-round"])),
        ("dump", took(&["dump"])),
        ("restore", took(&["restore"])),
        ("thaw", took(&["commit"])),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_of_the_freeze_are_told() {
        let phase =
            |phase: &str, side: &str, ms: u64| serde_json::json!({ "phase": phase, "side": side, "ms": ms });
        let report = serde_json::json!({ "phases": [
            phase("rounds", "source", 900), phase("freeze", "source", 4), phase("last-round", "source", 2),
            phase("last-files", "source", 1), phase("dump", "source", 11), phase("restore", "source", 12),
            phase("commit", "source", 5), phase("restore", "destination", 10),
        ] });
        let wanted = [("freeze", 4.0), ("transfer", 3.0), ("dump", 11.0), ("restore", 12.0), ("thaw", 5.0)];
        assert_eq!(phases(&report), wanted);
    }
}
