//! The figures of a run as charts, with the machine on each.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use fastmig_charts::{Axis, Bar, Lines, Series, Stacked};

use crate::figures::Report;

/// Where the gap goes, in its order.
pub(crate) const PHASES: &[&str] = &["freeze", "transfer", "dump", "restore", "thaw"];

/// So many bars have room in a chart.
const BARS: usize = 12;

/// Writes all charts that have something to show, and answers where they are.
///
/// # Errors
/// When one cannot be drawn or written.
pub(crate) fn write(report: &Report, to: &Path) -> Result<Vec<PathBuf>> {
    let mut written = Vec::new();
    let charts = [
        ("gap-by-memory.svg", along(report, &GAP_BY_MEMORY)?),
        ("gap-by-processes.svg", along(report, &GAP_BY_PROCESSES)?),
        ("total-by-ports.svg", along(report, &TOTAL_BY_PORTS)?),
        ("decision-by-lines.svg", along(report, &DECISION_BY_LINES)?),
        ("phases.svg", phases(report)?),
        ("start.svg", start(report)?),
    ];
    for (name, chart) in charts {
        let Some(svg) = chart else { continue };
        let path = to.join(name);
        fs::write(&path, svg).with_context(|| format!("cannot write {}", path.display()))?;
        written.push(path);
    }
    Ok(written)
}

/// A chart of one metric along a number that is in the names of works.
struct Along {
    title: &'static str,
    suite: &'static str,
    metric: &'static str,
    /// What stands before the number in a work's name, and after it.
    around: [&'static str; 2],
    /// The axes, and whether they are in powers.
    x: (&'static str, bool),
    y: (&'static str, bool),
}

const GAP_BY_MEMORY: Along = Along {
    title: "how long a program stands still when it moves",
    suite: "migration",
    metric: "gap",
    around: ["m", ""],
    x: ("MiB of memory in one process", true),
    y: ("gap in ms", true),
};
const GAP_BY_PROCESSES: Along =
    Along { around: ["p", ""], x: ("processes of 128 MiB", true), ..GAP_BY_MEMORY };
const TOTAL_BY_PORTS: Along = Along {
    title: "a move into a container that waits, and into one that is made for it",
    suite: "warm",
    metric: "total",
    around: ["", "-ports"],
    x: ("published ports", false),
    y: ("ms in all", false),
};
const DECISION_BY_LINES: Along = Along {
    title: "a decision about an application that has ended",
    suite: "policy",
    metric: "decision",
    around: ["", "-lines"],
    x: ("lines of its log", false),
    y: ("ms", false),
};

/// The number in a work's name when nothing else is in it.
fn number(work: &str, [before, after]: [&str; 2]) -> Option<f64> {
    work.strip_prefix(before)?.strip_suffix(after)?.parse().ok()
}

/// Nothing when no tool has two points.
fn along(report: &Report, what: &Along) -> Result<Option<String>> {
    let mut series: Vec<Series> = Vec::new();
    for figure in &report.results {
        let subject = figure.subject();
        let Some(x) = number(&subject.work, what.around) else { continue };
        if subject.suite != what.suite || subject.metric != what.metric {
            continue;
        }
        let (point, name) = ((x, figure.median()), &subject.tool);
        match series.iter_mut().find(|one| one.name == *name) {
            Some(one) => one.points.push(point),
            None => series.push(Series { name: name.clone(), points: vec![point] }),
        }
    }
    if series.iter().all(|one| one.points.len() < 2) {
        return Ok(None);
    }
    series.iter_mut().for_each(|one| one.points.sort_by(|a, b| a.0.total_cmp(&b.0)));
    let axis = |(label, powers): (&str, bool)| Axis { label: label.to_owned(), powers };
    let chart = Lines {
        title: what.title.to_owned(),
        x: axis(what.x),
        y: axis(what.y),
        series,
        dots: true,
        note: report.machine.line(),
        ..Lines::default()
    };
    Ok(Some(chart.svg()?))
}

/// A bar for each shim.
fn start(report: &Report) -> Result<Option<String>> {
    let tools = ["stock-shim", "fastmig-shim", "fastmig-wrapper"];
    let bars = tools.iter().filter_map(|tool| {
        let part = |metric: &&str| {
            Some(((*metric).to_owned(), report.find(["start", "one", tool, metric])?.median()))
        };
        let parts: Vec<(String, f64)> =
            ["first-output", "exec", "stop", "delete"].iter().filter_map(part).collect();
        (!parts.is_empty()).then(|| Bar { name: (*tool).to_owned(), parts })
    });
    stacked(report, "the life of a container", bars.collect())
}

fn stacked(report: &Report, title: &str, bars: Vec<Bar>) -> Result<Option<String>> {
    if bars.is_empty() {
        return Ok(None);
    }
    let chart = Stacked { title: title.to_owned(), unit: "ms".to_owned(), bars, note: report.machine.line() };
    Ok(Some(chart.svg()?))
}

/// A bar for each work and strategy of ours.
fn phases(report: &Report) -> Result<Option<String>> {
    let mut bars: Vec<Bar> = Vec::new();
    for gap in &report.results {
        let subject = gap.subject();
        if subject.metric != "gap" || subject.suite != "migration" || !subject.tool.starts_with("fastmig") {
            continue;
        }
        let of = |phase: &&'static str| {
            let figure = report.find(["migration", &subject.work, &subject.tool, phase])?;
            Some(((*phase).to_owned(), figure.median()))
        };
        let parts: Vec<(String, f64)> = PHASES.iter().filter_map(of).collect();
        let known: f64 = parts.iter().map(|(_, length)| length).sum();
        if !parts.is_empty() {
            let rest = ("what no phase has".to_owned(), (gap.median() - known).max(0.0));
            let name = format!("{} {}", subject.work, subject.tool.trim_start_matches("fastmig-"));
            bars.push(Bar { name, parts: [parts, vec![rest]].concat() });
        }
    }
    // The first strategy's alone, where there is no room for all.
    if bars.len() > BARS {
        bars.retain(|bar| bar.name.ends_with("pre-copy"));
    }
    stacked(report, "where the gap goes", bars)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::{Book, Subject};

    fn report(entries: &[(&str, &str, &'static str, f64)]) -> Report {
        let mut book = Book::default();
        for (work, tool, metric, value) in entries {
            let subject = Subject {
                suite: "migration",
                work: (*work).into(),
                tool: (*tool).into(),
                metric,
                unit: "ms",
            };
            book.add(subject, *value);
        }
        book.report()
    }

    #[test]
    fn gaps_are_drawn_where_there_are_at_least_two() {
        let two =
            report(&[("m16", "fastmig-pre-copy", "gap", 50.0), ("m128", "fastmig-pre-copy", "gap", 55.0)]);
        let svg = along(&two, &GAP_BY_MEMORY).unwrap().unwrap();
        assert!(svg.contains("fastmig-pre-copy") && svg.contains(&two.machine.kernel), "{svg}");
        assert!(along(&two, &GAP_BY_PROCESSES).unwrap().is_none());
        let write = report(&[("m128-write", "x", "gap", 1.0), ("m16", "x", "gap", 1.0)]);
        assert!(along(&write, &GAP_BY_MEMORY).unwrap().is_none(), "m128-write is no size");
    }

    #[test]
    fn what_no_phase_has_is_shown_too() {
        let told = report(&[
            ("m16", "fastmig-pre-copy", "gap", 50.0),
            ("m16", "fastmig-pre-copy", "freeze", 10.0),
            ("m16", "fastmig-pre-copy", "dump", 20.0),
        ]);
        let svg = phases(&told).unwrap().unwrap();
        assert!(svg.contains("freeze") && svg.contains("what no phase has"), "{svg}");
        assert!(phases(&report(&[("m16", "runc-tar", "gap", 50.0)])).unwrap().is_none());
    }
}
