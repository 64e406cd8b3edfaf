//! The table in the documentation, made of what was seen.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use anyhow::{ensure, Context, Result};

use super::phases::Phase;
use super::{seen, times, OF_ALL, OF_ONE_CONTAINER};
use crate::framework::dist::{repository, target_dir};

/// Between these two lines it stands.
const BEGIN: &str = "<!-- the fault table: written by `cargo xtask table` -->";
const END: &str = "<!-- end of the fault table -->";

/// Between the lines of a cell.
const BREAK: &str = "<br>";

/// Where nothing can be tried.
const NOTHING: &str = "–";

fn docs() -> PathBuf {
    repository().join("docs/faults.md")
}

fn file() -> PathBuf {
    target_dir().join("faults.md")
}

/// Writes the table of what is told there and what was seen. An application that came to an end of which the documentation does
/// not tell is told, and a failure for whoever strikes often. What is told there and was not seen this time stays: not each run comes to each moment.
pub(super) fn compare() -> Result<()> {
    let text = fs::read_to_string(docs()).context("cannot read docs/faults.md")?;
    let old = between(&text)?;
    let new = table(old);
    println!("    {} faults have struck", seen::count());
    fs::write(file(), &new).with_context(|| format!("cannot write {}", file().display()))?;
    let untold = untold(old);
    if untold.is_empty() {
        return Ok(());
    }
    let text = format!(
        "docs/faults.md does not tell of {untold:?}: is that as it should be, then `cargo xtask table` puts it there"
    );
    // Each cell has looked whether the end is one that may be. A busy machine comes to other moments than a quiet one.
    ensure!(times() == 1, "{text}");
    println!("    {text}");
    Ok(())
}

/// What became of an application that a cell has no word of. Reasons may differ by the moment.
fn untold(old: &str) -> Vec<String> {
    let fate = |line: &str| line.split(": ").next().unwrap_or(line).to_owned();
    let cells = OF_ONE_CONTAINER.iter().chain(OF_ALL).flat_map(|(fault, _)| {
        Phase::ALL.into_iter().enumerate().map(move |(column, phase)| (*fault, column, phase))
    });
    let untold = cells.flat_map(|(fault, column, phase)| {
        let told: Vec<String> =
            cell(old, fault, column).into_iter().flat_map(lines_of).map(|line| fate(&line)).collect();
        let seen = seen::lines(fault, phase).into_iter();
        let new = seen.filter(move |line| !told.contains(&fate(line)));
        new.map(move |line| format!("{fault}, {phase}: {line}")).collect::<Vec<_>>()
    });
    untold.collect()
}

/// Puts the table of the last run into the documentation.
pub(in crate::suites) fn put_into_docs() -> Result<()> {
    let table = fs::read_to_string(file())
        .with_context(|| format!("no table in {}: cargo xtask test faults", file().display()))?;
    let text = fs::read_to_string(docs())?;
    let old = between(&text)?;
    let place = |table: &str| format!("{BEGIN}{table}{END}");
    fs::write(docs(), text.replacen(&place(old), &place(&format!("\n{}\n", table.trim())), 1))?;
    Ok(())
}

fn between(text: &str) -> Result<&str> {
    let found = text.split_once(BEGIN).and_then(|(_, rest)| Some(rest.split_once(END)?.0));
    found.context("docs/faults.md has no place for the table")
}

fn table(old: &str) -> String {
    let mut text = String::from("| fault |");
    for phase in Phase::ALL {
        text += &format!(" {phase} |");
    }
    text += &format!("\n|{}\n", "---|".repeat(Phase::ALL.len() + 1));
    for (fault, _) in OF_ONE_CONTAINER.iter().chain(OF_ALL) {
        text += &format!("| {fault} |");
        for (column, phase) in Phase::ALL.into_iter().enumerate() {
            let told = cell(old, fault, column).into_iter().flat_map(lines_of);
            let all: BTreeSet<String> = told.chain(seen::lines(fault, phase)).collect();
            let all: Vec<String> = all.into_iter().collect();
            text += &format!(" {} |", if all.is_empty() { NOTHING.to_owned() } else { all.join(BREAK) });
        }
        text += "\n";
    }
    text
}

/// A cell of a table that is there.
fn cell(table: &str, fault: &str, column: usize) -> Option<String> {
    let row = table.lines().find(|line| line.starts_with(&format!("| {fault} |")))?;
    row.trim_matches('|').split('|').nth(column + 1).map(|cell| cell.trim().to_owned())
}

fn lines_of(cell: String) -> Vec<String> {
    cell.split(BREAK).filter(|line| *line != NOTHING).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_tried_stays_as_it_was() {
        let old = format!("| {} | a | b | c | d |\n", OF_ALL[0].0);
        let new = table(&old);
        assert!(new.contains(old.trim()), "{new}");
        assert_eq!(table(&new), new);
    }
}
