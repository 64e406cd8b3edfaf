//! One migration: its rounds, where its time went, where its freeze went.

use fastmig_api::migration::{Round, Side};
use fastmig_api::resources::Resources;
use fastmig_api::MigrationReport;
use fastmig_charts::{Axis, Bar, Error, Lines, Mark, Page, Series, Stacked, Table};

use crate::figures::{as_float, bytes, mebibytes, milliseconds};

/// Adds all that is known of it.
pub(crate) fn add(page: &mut Page, report: &MigrationReport) -> Result<(), Error> {
    page.heading(&format!("{}: {} to {}", report.container, report.from, report.to));
    let reason = report.reason.as_deref().map(|reason| format!(" ({reason})")).unwrap_or_default();
    page.note(&format!("{}, {}; {}{reason}", report.id, report.started_at, report.outcome));
    page.table(&facts(report));
    for warning in &report.warnings {
        page.note(&format!("warning: {warning}"));
    }
    if !report.rounds.is_empty() {
        page.chart(&rounds(report).svg()?);
    }
    let time = bars(report, false, "Where the time went, the freeze as one");
    if has_parts(&time) {
        page.chart(&time.svg()?);
    }
    let freeze = bars(report, true, "Where the freeze went, each host by its own clock");
    if has_parts(&freeze) {
        page.chart(&freeze.svg()?);
    }
    if let Some(taken) = &report.resources {
        let chart = resources(report, taken);
        if has_parts(&chart) {
            page.chart(&chart.svg()?);
        }
    }
    Ok(())
}

fn facts(report: &MigrationReport) -> Table {
    let mut rows = vec![
        ("strategy", format!("{} ({})", report.strategy, report.why)),
        ("took", milliseconds(report.total_ms)),
        ("sent", bytes(report.bytes.wire)),
        ("state, of it memory, of that zeros", {
            let sizes = [report.bytes.raw, report.bytes.memory, report.bytes.zero];
            sizes.map(bytes).join(", ")
        }),
        ("files", format!("{} ({})", report.files, bytes(report.bytes.files))),
        ("streams", report.streams.to_string()),
    ];
    rows.extend(report.frozen_ms.map(|ms| ("stood still", milliseconds(ms))));
    rows.extend(report.predicted_freeze_ms.map(|ms| ("predicted", milliseconds(ms))));
    rows.extend(report.verified_pages.map(|pages| ("pages compared, all the same", pages.to_string())));
    if report.throttled > 0 {
        rows.push(("slowed down by", format!("{}%", report.throttled)));
    }
    Table {
        heads: vec!["what".into(), "how much".into()],
        rows: rows.into_iter().map(|(what, value)| vec![what.to_owned(), value]).collect(),
    }
}

/// What each round sent, and what a freeze would have cost after it.
fn rounds(report: &MigrationReport) -> Lines {
    let mut end = 0;
    let ends: Vec<(f64, &Round)> = report
        .rounds
        .iter()
        .map(|round| {
            end += round.ms;
            (as_float(end) / 1000.0, round)
        })
        .collect();
    let points = |value: fn(&Round) -> Option<f64>| -> Vec<(f64, f64)> {
        ends.iter().filter_map(|(at, round)| Some((*at, value(round)?))).collect()
    };
    let series = [
        ("sent, MiB", points(|round| Some(mebibytes(round.bytes)))),
        ("written, MiB/s", points(|round| round.dirty_rate.map(mebibytes))),
        ("predicted freeze, ms", points(|round| round.predicted_freeze_ms.map(as_float))),
    ];
    let above_zero = |points: Vec<(f64, f64)>| points.into_iter().filter(|(_, value)| *value > 0.0).collect();
    let series = series.map(|(name, points)| Series { name: name.into(), points: above_zero(points) });
    let freeze = ends.last().map(|(at, _)| Mark { at: *at, name: "freeze".into() });
    Lines {
        title: "Memory in rounds, while the application ran".into(),
        x: Axis { label: "seconds since the first round began".into(), powers: false },
        y: Axis { label: "at the end of each round".into(), powers: true },
        series: series.into_iter().filter(|series| !series.points.is_empty()).collect(),
        marks: freeze.into_iter().collect(),
        dots: true,
        ..Lines::default()
    }
}

/// A bar for each host: its phases outside the freeze, or those in it.
fn bars(report: &MigrationReport, frozen: bool, title: &str) -> Stacked {
    let of = |side: Side, host: &str| {
        let mut parts: Vec<(String, f64)> = Vec::new();
        for phase in report.phases.iter().filter(|phase| phase.side == side && phase.ms > 0) {
            // Outside of it, all of the freeze is one part.
            let name = if phase.frozen && !frozen { "frozen" } else { &phase.phase };
            if frozen && !phase.frozen {
                continue;
            }
            match parts.last_mut().filter(|(last, _)| last == name) {
                Some((_, length)) => *length += as_float(phase.ms),
                None => parts.push((name.to_owned(), as_float(phase.ms))),
            }
        }
        Bar { name: host.to_owned(), parts }
    };
    let bars = vec![of(Side::Source, &report.from), of(Side::Destination, &report.to)];
    Stacked {
        title: title.to_owned(),
        unit: "ms".into(),
        bars: bars.into_iter().filter(|bar| !bar.parts.is_empty()).collect(),
        ..Stacked::default()
    }
}

/// What it took of the source, beside how long it was and how much it moved.
fn resources(report: &MigrationReport, taken: &Resources) -> Stacked {
    let bar = |name: &str, part: &str, length: f64| Bar {
        name: name.into(),
        parts: if length > 0.0 { vec![(part.into(), length)] } else { Vec::new() },
    };
    let bars = vec![
        bar("processor, in 10 ms", "processor", as_float(taken.cpu_ms) / 10.0),
        bar("stood still, in 10 ms", "pause", as_float(report.frozen_ms.unwrap_or(0)) / 10.0),
        bar("CRIU's memory, MiB", "memory", mebibytes(taken.memory_peak_bytes)),
        bar("read from disks, MiB", "read", mebibytes(taken.read_bytes)),
        bar("written to disks, MiB", "written", mebibytes(taken.written_bytes)),
    ];
    Stacked {
        title: format!("What it took of {}", report.from),
        unit: "as each bar says".into(),
        note: String::new(),
        bars: bars.into_iter().filter(|bar| !bar.parts.is_empty()).collect(),
    }
}

fn has_parts(chart: &Stacked) -> bool {
    !chart.bars.is_empty()
}

#[cfg(test)]
mod tests {
    use crate::input::tests::one;
    use crate::{page, Input};

    #[test]
    fn a_page_tells_of_rounds_and_of_the_freeze() {
        let page = page(&Input::read(one().to_string().as_bytes()).unwrap()).unwrap();
        assert_eq!(page.matches("<svg").count(), 4, "rounds, time, freeze, resources");
        for words in [
            "predicted freeze, ms",
            "Where the freeze went",
            "What it took of host-a",
            "host-b",
            "87 ms",
            "web&lt;",
        ] {
            assert!(page.contains(words), "{words}");
        }
        assert!(!page.contains("<script") && !page.contains("web<"), "others' words are not markup");
    }

    #[test]
    fn one_that_was_refused_has_a_page_too() {
        let mut refused = one();
        for gone in ["resources", "rounds", "frozen_ms", "predicted_freeze_ms"] {
            refused.as_object_mut().unwrap().remove(gone);
        }
        refused["phases"] = serde_json::json!([]);
        refused["reason"] = "host-b is silent".into();
        let page = page(&Input::read(refused.to_string().as_bytes()).unwrap()).unwrap();
        assert!(page.contains("host-b is silent") && !page.contains("<svg"), "{page}");
    }
}
