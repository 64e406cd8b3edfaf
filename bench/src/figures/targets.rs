//! What should be reached: ratios of two figures of one run.

use serde::Serialize;

use super::report::find;
use super::{ratio, Figure};

/// The strategy that `auto` takes.
const OURS: &str = "fastmig-pre-copy";

/// A ratio that is to be no larger than this.
struct Target {
    name: &'static str,
    one: [&'static str; 4],
    /// Nothing when the first is a ratio itself.
    to: Option<[&'static str; 4]>,
    at_most: f64,
}

const fn gap(work: &'static str, tool: &'static str) -> [&'static str; 4] {
    ["migration", work, tool, "gap"]
}

const fn target(name: &'static str, one: [&'static str; 4], to: [&'static str; 4], at_most: f64) -> Target {
    Target { name, one, to: Some(to), at_most }
}

/// What is done in a second by runc, against what is done by FastMig.
const fn steady(name: &'static str, work: &'static str) -> Target {
    Target { name, one: ["steady", work, "fastmig", "slowdown"], to: None, at_most: 1.01 }
}

const TARGETS: &[Target] = &[
    target("gap at 128 MiB, against runc and tar", gap("m128", OURS), gap("m128", "runc-tar"), 1.0 / 8.0),
    target("gap at 128 MiB, against docker", gap("m128", OURS), gap("m128", "docker"), 1.0 / 50.0),
    target("gap at 128 MiB, against ctr", gap("m128", OURS), gap("m128", "ctr"), 1.0 / 50.0),
    target("gap at 1 GiB, against runc and tar", gap("m1024", OURS), gap("m1024", "runc-tar"), 1.0 / 60.0),
    target("gap at 1 GiB, against 16 MiB", gap("m1024", OURS), gap("m16", OURS), 1.3),
    target("gap at 4 GiB, against 16 MiB", gap("m4096", OURS), gap("m16", OURS), 1.7),
    target("gap of 16 processes, against one", gap("p16", OURS), gap("m128", OURS), 2.0),
    target(
        "restore of 16 processes, against one with the same memory",
        ["pids", "p16", "fastmig", "total"],
        ["pids", "p1", "fastmig", "total"],
        1.3,
    ),
    target(
        "start to first output, against the stock shim",
        ["start", "one", "fastmig-shim", "first-output"],
        ["start", "one", "stock-shim", "first-output"],
        1.05,
    ),
    target(
        "memory of shim and init, against the stock shim",
        ["start", "many", "fastmig-shim", "pss"],
        ["start", "many", "stock-shim", "pss"],
        0.5,
    ),
    steady("steady state, processor: slowdown", "cpu"),
    steady("steady state, memory: slowdown", "memory"),
    steady("steady state, files: slowdown", "files"),
    steady("steady state, network: slowdown", "network"),
    steady("steady state, redis: slowdown", "redis"),
];

/// Whether a target is reached.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verdict {
    /// What it is about.
    pub name: &'static str,
    /// What it is to be at most.
    pub at_most: f64,
    /// What it is; nothing when one side was not measured.
    pub ratio: Option<f64>,
    /// Whether it is that.
    pub reached: Option<bool>,
}

/// All targets, as far as these figures tell.
pub fn judge(figures: &[Figure]) -> Vec<Verdict> {
    TARGETS.iter().map(|target| verdict(target, figures)).collect()
}

fn verdict(target: &Target, figures: &[Figure]) -> Verdict {
    let ratio = find(figures, target.one).and_then(|one| match target.to {
        Some(to) => find(figures, to).map(|to| ratio(one, to)),
        None => Some(one.median()),
    });
    let ratio = ratio.filter(|ratio| ratio.is_finite());
    Verdict {
        name: target.name,
        at_most: target.at_most,
        ratio,
        reached: ratio.map(|ratio| ratio <= target.at_most),
    }
}

impl Verdict {
    /// A line of a Markdown table: what, wanted, found, verdict.
    pub fn line(&self) -> String {
        let found = self.ratio.map_or_else(|| "-".to_owned(), fraction);
        let reached = match self.reached {
            Some(true) => "reached",
            Some(false) => "not reached",
            None => "not measured",
        };
        format!("| {} | {} | {found} | {reached} |", self.name, fraction(self.at_most))
    }
}

/// Small ones as one part of many.
fn fraction(ratio: f64) -> String {
    if ratio < 0.4 {
        format!("1/{:.1}", 1.0 / ratio)
    } else {
        format!("{ratio:.3}")
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Samples, Subject};
    use super::*;

    fn figure(work: &str, tool: &str, value: f64) -> Figure {
        let subject =
            Subject { suite: "migration", work: work.into(), tool: tool.into(), metric: "gap", unit: "ms" };
        let mut samples = Samples::of(subject);
        samples.add(value);
        samples.figure().unwrap()
    }

    #[test]
    fn a_target_is_a_ratio_of_two_medians() {
        let figures =
            [figure("m128", OURS, 50.0), figure("m128", "runc-tar", 401.0), figure("m128", "ctr", 2000.0)];
        let verdicts = judge(&figures);
        assert_eq!(verdicts.len(), TARGETS.len());
        assert_eq!(
            (verdicts[0].reached, verdicts[1].reached, verdicts[2].reached),
            (Some(true), None, Some(false))
        );
        assert_eq!(verdicts[0].line(), "| gap at 128 MiB, against runc and tar | 1/8.0 | 1/8.0 | reached |");
        assert!(verdicts[1].line().ends_with("| - | not measured |"));
    }
}
