//! All migrations, side by side.

use fastmig_api::MigrationReport;
use fastmig_charts::{Axis, Error, Lines, Page, Series, Table};

use crate::figures::{as_float, bytes, milliseconds};

/// Adds a table of them, and how long each stood still.
pub(crate) fn add(page: &mut Page, migrations: &[MigrationReport]) -> Result<(), Error> {
    page.table(&table(migrations));
    let chart = stood_still(migrations);
    if chart.series.iter().any(|series| series.points.len() > 1) {
        page.chart(&chart.svg()?);
    }
    Ok(())
}

fn table(migrations: &[MigrationReport]) -> Table {
    let heads =
        ["began (UTC)", "container", "from", "to", "outcome", "strategy", "stood still", "took", "sent"];
    let row = |report: &MigrationReport| {
        vec![
            report.started_at.get(..19).unwrap_or(&report.started_at).replace('T', " "),
            report.container.clone(),
            report.from.clone(),
            report.to.clone(),
            report.outcome.to_string(),
            report.strategy.to_string(),
            report.frozen_ms.map(milliseconds).unwrap_or_default(),
            milliseconds(report.total_ms),
            bytes(report.bytes.wire),
        ]
    };
    Table { heads: heads.map(str::to_owned).to_vec(), rows: migrations.iter().rev().map(row).collect() }
}

fn stood_still(migrations: &[MigrationReport]) -> Lines {
    let of = |value: fn(&MigrationReport) -> Option<u64>| -> Vec<(f64, f64)> {
        let values = (1_u64..).zip(migrations);
        values.filter_map(|(number, report)| Some((as_float(number), as_float(value(report)?)))).collect()
    };
    let real = Series { name: "real".into(), points: of(|report| report.frozen_ms) };
    let predicted = Series {
        name: "predicted".into(),
        points: of(|report| report.frozen_ms.and(report.predicted_freeze_ms)),
    };
    Lines {
        title: "How long the application stood still".into(),
        x: Axis { label: "migration, in order".into(), powers: false },
        y: Axis { label: "ms".into(), powers: false },
        series: [real, predicted].into_iter().filter(|series| !series.points.is_empty()).collect(),
        dots: true,
        ..Lines::default()
    }
}
