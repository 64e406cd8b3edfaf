//! A whole run as Markdown.

use super::{each_once, markdown, Figure, Report};

/// All of it: a table for each metric of each suite, the targets, what was left out and what went wrong.
pub fn summary(report: &Report) -> String {
    let mut text = format!("{}\n", report.machine.line());
    for suite in each_once(report.results.iter().map(|figure| figure.subject().suite)) {
        let of_suite: Vec<Figure> =
            report.results.iter().filter(|figure| figure.subject().suite == suite).cloned().collect();
        text += &format!("\n## {suite}\n");
        for metric in each_once(of_suite.iter().map(|figure| figure.subject().metric)) {
            text += &format!("\n{}", markdown(&of_suite, metric));
        }
    }
    text += &format!("\n## targets\n\n{}", verdicts(report));
    for left_out in &report.left_out {
        let reason = left_out.reason.lines().next().unwrap_or_default();
        text += &format!("\n- {} without {}: {reason}", left_out.suite, left_out.tool);
    }
    for failure in &report.failures {
        let error = failure.error.lines().next().unwrap_or_default();
        text += &format!("\n- FAILED: {} {}: {error}", failure.suite, failure.part);
    }
    text
}

/// The targets, as far as anything was measured of them.
pub fn verdicts(report: &Report) -> String {
    let mut text = "| target | at most | is | |\n|---|---|---|---|\n".to_owned();
    for verdict in &report.targets {
        text += &format!("{}\n", verdict.line());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::{Book, Subject};
    use super::*;

    #[test]
    fn every_figure_and_every_failure_is_told() {
        let mut book = Book::default();
        for (metric, tool) in [("gap", "fastmig"), ("gap", "runc"), ("total", "runc")] {
            book.add(
                Subject { suite: "migration", work: "m16".into(), tool: tool.into(), metric, unit: "ms" },
                5.0,
            );
        }
        book.leave_out("migration", "docker", "no daemon");
        book.fail("start", "one stock-shim", "no output\nmore");
        let text = summary(&book.report());
        for part in [
            "## migration",
            "| gap (ms) | fastmig | runc |",
            "| total (ms) | runc |",
            "without docker: no daemon",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(text.ends_with("FAILED: start one stock-shim: no output"), "{text}");
    }
}
