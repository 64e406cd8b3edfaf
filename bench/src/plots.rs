//! The figures of a run as charts, with the machine on each.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use fastmig_charts::{Axis, Bar, Lines, Series, Stacked};

use crate::figures::{Figure, Report};

/// Where the gap goes, in its order.
pub(crate) const PHASES: &[&str] = &["freeze", "transfer", "dump", "restore", "thaw"];

/// Writes all charts that have something to show, and answers where they are.
///
/// # Errors
/// When one cannot be drawn or written.
pub(crate) fn write(report: &Report, to: &Path) -> Result<Vec<PathBuf>> {
    let mut written = Vec::new();
    let charts = [
        ("gap-by-memory.svg", by_number(report, 'm', "MiB of memory in one process")?),
        ("gap-by-processes.svg", by_number(report, 'p', "processes of 128 MiB")?),
        ("phases.svg", phases(report)?),
    ];
    for (name, chart) in charts {
        let Some(svg) = chart else { continue };
        let path = to.join(name);
        fs::write(&path, svg).with_context(|| format!("cannot write {}", path.display()))?;
        written.push(path);
    }
    Ok(written)
}

fn gaps(report: &Report) -> impl Iterator<Item = &Figure> {
    let is_gap = |figure: &&Figure| figure.subject().suite == "migration" && figure.subject().metric == "gap";
    report.results.iter().filter(is_gap)
}

/// The number in a work's name, `m128`, when it is of this kind and nothing else is in it.
fn number(figure: &Figure, kind: char) -> Option<f64> {
    figure.subject().work.strip_prefix(kind)?.parse().ok()
}

fn by_number(report: &Report, kind: char, label: &str) -> Result<Option<String>> {
    let mut series: Vec<Series> = Vec::new();
    for gap in gaps(report) {
        let Some(x) = number(gap, kind) else { continue };
        let (point, name) = ((x, gap.median()), &gap.subject().tool);
        match series.iter_mut().find(|one| one.name == *name) {
            Some(one) => one.points.push(point),
            None => series.push(Series { name: name.clone(), points: vec![point] }),
        }
    }
    if series.iter().all(|one| one.points.len() < 2) {
        return Ok(None);
    }
    series.iter_mut().for_each(|one| one.points.sort_by(|a, b| a.0.total_cmp(&b.0)));
    let title = format!("how long it stands still ({})", report.machine.line());
    let (x, y) = (label.to_owned(), "gap in ms".to_owned());
    let chart = Lines {
        title,
        x: Axis { label: x, powers: true },
        y: Axis { label: y, powers: true },
        series,
        marks: Vec::new(),
        dots: true,
    };
    Ok(Some(chart.svg()?))
}

/// A bar for each work and strategy of ours.
fn phases(report: &Report) -> Result<Option<String>> {
    let mut bars: Vec<Bar> = Vec::new();
    for gap in gaps(report).filter(|gap| gap.subject().tool.starts_with("fastmig")) {
        let subject = gap.subject();
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
    if bars.is_empty() {
        return Ok(None);
    }
    bars.truncate(16);
    let title = format!("where the gap goes ({})", report.machine.line());
    Ok(Some(Stacked { title, unit: "ms".into(), bars }.svg()?))
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
        let svg = by_number(&two, 'm', "MiB").unwrap().unwrap();
        assert!(svg.contains("fastmig-pre-copy") && svg.contains(&two.machine.kernel), "{svg}");
        assert!(by_number(&two, 'p', "processes").unwrap().is_none());
        let write = report(&[("m128-write", "x", "gap", 1.0), ("m16", "x", "gap", 1.0)]);
        assert!(by_number(&write, 'm', "MiB").unwrap().is_none(), "m128-write is no size");
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
