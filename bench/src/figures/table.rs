//! Figures side by side: a row for each work, a column for each tool, and how they compare.

use super::{each_once, Figure};

/// A table of one metric, in Markdown. The first tool is the one that the others are compared with.
pub fn markdown(figures: &[Figure], metric: &str) -> String {
    let of_metric: Vec<&Figure> = figures.iter().filter(|figure| figure.subject().metric == metric).collect();
    let works = each_once(of_metric.iter().map(|figure| figure.subject().work.as_str()));
    let tools = each_once(of_metric.iter().map(|figure| figure.subject().tool.as_str()));
    let Some(unit) = of_metric.first().map(|figure| figure.subject().unit) else { return String::new() };
    let find = |work: &str, tool: &str| {
        let is_it = |figure: &&&Figure| figure.subject().work == work && figure.subject().tool == tool;
        of_metric.iter().find(is_it).copied()
    };
    let mut text =
        format!("| {metric} ({unit}) | {} |\n|---|{}\n", tools.join(" | "), "---|".repeat(tools.len()));
    for work in works {
        let ours = find(work, tools[0]);
        let cells =
            tools.iter().map(|tool| find(work, tool).map_or_else(|| "-".to_owned(), |it| cell(it, ours)));
        text += &format!("| {work} | {} |\n", cells.collect::<Vec<_>>().join(" | "));
    }
    text
}

/// How many times as much one is as the other.
pub fn ratio(figure: &Figure, to: &Figure) -> f64 {
    figure.median() / to.median()
}

fn cell(figure: &Figure, ours: Option<&Figure>) -> String {
    let (min, max) = figure.spread();
    let value = format!("{} ({} to {})", number(figure.median()), number(min), number(max));
    match ours.filter(|ours| *ours != figure) {
        Some(ours) => format!("{value}, {:.2} x", ratio(figure, ours)),
        None => value,
    }
}

/// As exact as it needs to be.
pub(super) fn number(value: f64) -> String {
    if value.abs() >= 100.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.1}")
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Samples, Subject};
    use super::*;

    fn figure(work: &str, tool: &str, value: f64) -> Figure {
        let subject = Subject { suite: "s", work: work.into(), tool: tool.into(), metric: "gap", unit: "ms" };
        let mut samples = Samples::of(subject);
        samples.add(value);
        samples.figure().unwrap()
    }

    #[test]
    fn tools_stand_side_by_side_with_their_ratio() {
        let figures =
            [figure("m16", "fastmig", 50.0), figure("m16", "runc", 500.0), figure("m128", "fastmig", 51.0)];
        assert_eq!(
            markdown(&figures, "gap"),
            "| gap (ms) | fastmig | runc |\n|---|---|---|\n\
             | m16 | 50.0 (50.0 to 50.0) | 500 (500 to 500), 10.00 x |\n\
             | m128 | 51.0 (51.0 to 51.0) | - |\n"
        );
        assert_eq!(markdown(&figures, "total"), "");
    }
}
