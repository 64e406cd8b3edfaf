//! The table of figures in README: kept by a run, put there by `cargo xtask table`.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use fastmig_tests::framework::dist::{repository, target_dir};

use crate::figures::{verdicts, Figure, Report};

/// Between these two lines README has the table.
const BEGIN: &str = "<!-- figures: written by `cargo xtask table` -->";
const END: &str = "<!-- end of the figures -->";

/// What README tells of a migration.
const WORKS: &[&str] = &["m16", "m128", "m1024", "m4096", "m1024-write", "p16", "redis", "postgres"];
const TOOLS: &[&str] =
    &["fastmig-pre-copy", "fastmig-stop-copy", "runc-tar", "criu-page-server", "podman", "docker", "ctr"];

/// Keeps the table of a run, unless it has no migrations.
///
/// # Errors
/// When the file cannot be written.
pub fn keep(report: &Report) -> Result<()> {
    let gaps: Vec<&Figure> = report.results.iter().filter(|figure| is_told(figure)).collect();
    if gaps.is_empty() {
        return Ok(());
    }
    let text = format!("{}\n\n{}\n\n{}", gap_table(&gaps), verdicts(report).trim(), report.machine.line());
    fs::write(kept(), text).with_context(|| format!("cannot write {}", kept().display()))
}

/// Puts the table of the last run into README; answers whether there was one.
///
/// # Errors
/// When README has no place for it, or cannot be written.
pub fn put() -> Result<bool> {
    let Ok(table) = fs::read_to_string(kept()) else { return Ok(false) };
    let readme = repository().join("README.md");
    let text = fs::read_to_string(&readme).context("cannot read README.md")?;
    fs::write(&readme, with_table(&text, &table)?)?;
    Ok(true)
}

fn kept() -> PathBuf {
    target_dir().join("figures.md")
}

fn is_told(figure: &Figure) -> bool {
    let subject = figure.subject();
    subject.suite == "migration" && subject.metric == "gap"
}

/// Gaps in milliseconds: works down, tools across.
fn gap_table(gaps: &[&Figure]) -> String {
    let find = |work: &str, tool: &str| {
        gaps.iter().find(|gap| gap.subject().work == work && gap.subject().tool == tool)
    };
    let tools: Vec<&str> =
        TOOLS.iter().copied().filter(|tool| gaps.iter().any(|gap| gap.subject().tool == *tool)).collect();
    let mut text = format!("| gap | {} |\n|---|{}", tools.join(" | "), "---|".repeat(tools.len()));
    for work in WORKS.iter().filter(|work| gaps.iter().any(|gap| gap.subject().work == **work)) {
        let cell = |tool: &&str| find(work, tool).map_or_else(|| "-".to_owned(), |gap| time(gap.median()));
        let cells: Vec<String> = tools.iter().map(cell).collect();
        text += &format!("\n| {work} | {} |", cells.join(" | "));
    }
    text
}

fn time(milliseconds: f64) -> String {
    if milliseconds < 1000.0 {
        format!("{milliseconds:.0} ms")
    } else {
        format!("{:.1} s", milliseconds / 1000.0)
    }
}

fn with_table(readme: &str, table: &str) -> Result<String> {
    let (before, rest) = readme.split_once(BEGIN).context("README.md has no place for the figures")?;
    let (_, after) = rest.split_once(END).context("the place for figures in README.md has no end")?;
    Ok(format!("{before}{BEGIN}\n{}\n{END}{after}", table.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::{Book, Subject};

    #[test]
    fn the_table_takes_its_place() {
        let text = with_table(&format!("a\n{BEGIN}\nold\n{END}\nb\n"), "new\n").unwrap();
        assert_eq!(text, format!("a\n{BEGIN}\nnew\n{END}\nb\n"));
        assert!(with_table("a", "new").is_err());
    }

    #[test]
    fn works_and_tools_that_were_measured_are_told() {
        let mut book = Book::default();
        for (work, tool, value) in
            [("m128", "runc-tar", 1500.0), ("m128", "fastmig-pre-copy", 60.0), ("m7", "x", 1.0)]
        {
            let subject = Subject {
                suite: "migration",
                work: work.into(),
                tool: tool.into(),
                metric: "gap",
                unit: "ms",
            };
            book.add(subject, value);
        }
        let figures = book.figures();
        let gaps: Vec<&Figure> = figures.iter().collect();
        let wanted = "| gap | fastmig-pre-copy | runc-tar |\n|---|---|---|\n| m128 | 60 ms | 1.5 s |";
        assert_eq!(gap_table(&gaps), wanted);
    }
}
