//! The table: seven images under seven ways to call FastMig. Each cell is a container's whole life.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{anyhow, bail, ensure, Context, Result};

use super::client::{Client, Setup, CTR, DOCKER, NERDCTL, PODMAN};
use super::container::Container;
use super::row::{row, Row, IMAGES};
use super::stage;
use crate::framework::clients::{DOCKER_SHIM, RUNTIME};
use crate::framework::dist::{repository, target_dir};
use crate::framework::{Case, Ctx, Generation, Host, Outcome};

/// One way to call FastMig.
pub(super) struct Column {
    /// Its head in the table.
    head: &'static str,
    client: &'static dyn Client,
    /// The runtime in the client's words.
    runtime: &'static str,
}

const SHIM: &str = "io.containerd.fastmig.v1";

static COLUMNS: [Column; 7] = [
    Column { head: "nerdctl, wrapper", client: &NERDCTL, runtime: "fastmig" },
    Column { head: "nerdctl, shim", client: &NERDCTL, runtime: SHIM },
    Column { head: "docker, wrapper", client: &DOCKER, runtime: "fastmig" },
    Column { head: "docker, shim", client: &DOCKER, runtime: DOCKER_SHIM },
    Column { head: "podman, wrapper", client: &PODMAN, runtime: "fastmig" },
    Column { head: "ctr, wrapper", client: &CTR, runtime: RUNTIME },
    Column { head: "ctr, shim", client: &CTR, runtime: SHIM },
];

macro_rules! columns {
    ($($number:literal $name:literal),* $(,)?) => {
        &[$(
            Case { name: concat!("table: ", $name, " (trixie)"), run: |ctx| all_rows(ctx, &COLUMNS[$number]) },
            Case { name: concat!("table: ", $name, " (forky)"), run: |ctx| one_row(ctx, &COLUMNS[$number]) },
        )*
        Case { name: "table: README says what was shown", run: |_| compare().into() },
        ]
    };
}

pub(super) const CASES: &[Case] = columns![
    0 "nerdctl with --runtime fastmig",
    1 "nerdctl with --runtime io.containerd.fastmig.v1",
    2 "docker with --runtime fastmig",
    3 "docker with the shim as its runtime",
    4 "podman with --runtime fastmig",
    5 "ctr with the stock shim and fastmig in place of runc",
    6 "ctr with --runtime io.containerd.fastmig.v1",
];

/// The cells that were shown: head of the column, image.
static SHOWN: Mutex<BTreeMap<(&'static str, &'static str), ()>> = Mutex::new(BTreeMap::new());

/// All rows of one column, at the same time.
fn all_rows(ctx: &Ctx, column: &'static Column) -> Outcome {
    rows(ctx, column, Generation::Trixie, IMAGES)
}

/// The other generation has other versions of the clients: one row tells whether they are called rightly.
fn one_row(ctx: &Ctx, column: &'static Column) -> Outcome {
    rows(ctx, column, Generation::Forky, &["busybox", "redis"])
}

fn rows(ctx: &Ctx, column: &'static Column, generation: Generation, images: &[&'static str]) -> Outcome {
    if let Some(reason) = column.client.missing() {
        return Outcome::Skipped(reason);
    }
    shown(ctx, column, generation, images).into()
}

fn shown(ctx: &Ctx, column: &'static Column, generation: Generation, images: &[&'static str]) -> Result<()> {
    let host = stage::host(ctx, generation)?;
    let errors: Vec<String> = std::thread::scope(|scope| {
        let cells = images.iter().map(|image| (*image, scope.spawn(|| cell(&host, column, image))));
        let cells: Vec<_> = cells.collect();
        let results = cells.into_iter().map(|(image, cell)| (image, join(cell)));
        results.filter_map(|(image, result)| note(column, generation, image, &result)).collect()
    });
    if !errors.is_empty() {
        bail!("{}", errors.join("\n"));
    }
    Ok(())
}

fn join(cell: std::thread::ScopedJoinHandle<'_, Result<()>>) -> Result<()> {
    cell.join().unwrap_or_else(|_| Err(anyhow!("the cell's thread panicked")))
}

/// Remembers a cell of the table, or answers what went wrong with it.
fn note(
    column: &'static Column,
    generation: Generation,
    image: &'static str,
    result: &Result<()>,
) -> Option<String> {
    match result {
        Err(error) => Some(format!("{image}: {error:#}")),
        Ok(()) => {
            if generation == Generation::Trixie {
                SHOWN.lock().unwrap_or_else(PoisonError::into_inner).insert((column.head, image), ());
            }
            None
        }
    }
}

/// A container's life: run, exec, logs, standby, run, checkpoint, restore, stop.
fn cell(host: &Arc<Host>, column: &Column, image: &str) -> Result<()> {
    let mut row = row(image)?;
    let name = format!("{}-{image}", column.head.replace(", ", "-"));
    let mut setup = Setup::of(image, &name, column.runtime);
    row.shape(&mut setup);
    let container = Container::run(host, column.client, &setup).context("run")?;
    live(&container, row.as_mut())
        .with_context(|| format!("its log ends:\n{}", end_of(&container.logs().unwrap_or_default())))?;
    let code = container.stop().context("stop")?;
    ensure!(code == row.exit_code(), "it ended with {code}, not {}", row.exit_code());
    container.remove().context("remove")
}

fn live(container: &Container, row: &mut dyn Row) -> Result<()> {
    container.wait_for_log(row.says()).context("logs")?;
    try_exec(container).context("exec")?;
    container.fastmig("standby", &[])?;
    container.expect("standby")?;
    container.fastmig("run", &[])?;
    container.expect("running")?;
    row.fill(container).context("in the application")?;
    let path = container.fresh_checkpoint()?;
    container.checkpoint(&path)?;
    try_exec(container).context("exec in standby")?;
    container.restore(&path)?;
    row.verify(container).context("in the restored application")
}

fn try_exec(container: &Container) -> Result<()> {
    let output = container.exec(&["sh", "-c", "echo six times seven is $((6*7)); exit 5"]).output()?;
    let is_right =
        output.out().trim() == "six times seven is 42" && container.client.exec_code(&output) == Some(5);
    ensure!(is_right, "{} {:?} {:?}", output.status, output.out(), output.err());
    Ok(())
}

fn end_of(logs: &str) -> String {
    let lines: Vec<&str> = logs.lines().collect();
    lines[lines.len().saturating_sub(8)..].join("\n")
}

/// Between these two lines README has the table.
const BEGIN: &str = "<!-- table of clients: written by `cargo xtask table` -->";
const END: &str = "<!-- end of the table of clients -->";
const YES: &str = "yes";

/// Writes the table of what was shown, and fails when README has another. A cell that this run left out, for want of a client or
/// by `--only`, is as README has it.
fn compare() -> Result<()> {
    let readme = fs::read_to_string(readme()).context("cannot read README.md")?;
    let old = between(&readme)?;
    let shown = SHOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let new = table(|head, image| shown.keys().any(|cell| *cell == (head, image)) || has(old, head, image));
    let file = target_dir().join("clients.md");
    fs::write(&file, &new).with_context(|| format!("cannot write {}", file.display()))?;
    ensure!(
        new.trim() == old.trim(),
        "README.md has another table than {}: `cargo xtask table` puts it there",
        file.display()
    );
    Ok(())
}

/// Puts the table of the last run into README.
pub(crate) fn put_into_readme() -> Result<()> {
    let file = target_dir().join("clients.md");
    let table = fs::read_to_string(&file)
        .with_context(|| format!("no table in {}: cargo xtask test clients", file.display()))?;
    fs::write(readme(), with_table(&fs::read_to_string(readme())?, &table)?)?;
    Ok(())
}

/// A README with this table in place of its own.
fn with_table(readme: &str, table: &str) -> Result<String> {
    let old = between(readme)?;
    let place = |table: &str| format!("{BEGIN}{table}{END}");
    Ok(readme.replacen(&place(old), &place(&format!("\n{}\n", table.trim())), 1))
}

fn readme() -> PathBuf {
    repository().join("README.md")
}

fn between(readme: &str) -> Result<&str> {
    let text = readme.split_once(BEGIN).and_then(|(_, rest)| Some(rest.split_once(END)?.0));
    text.context("README.md has no place for the table of clients")
}

fn table(is_shown: impl Fn(&'static str, &'static str) -> bool) -> String {
    let heads: Vec<&str> = COLUMNS.iter().map(|column| column.head).collect();
    let line = |cells: Vec<&str>| format!("| {} |\n", cells.join(" | "));
    let mut text = line([&["image"], heads.as_slice()].concat());
    text += &format!("|{}\n", "---|".repeat(heads.len() + 1));
    for image in IMAGES {
        let cells = heads.iter().map(|head| if is_shown(head, image) { YES } else { "no" });
        text += &line(std::iter::once(*image).chain(cells).collect());
    }
    text
}

/// Whether a table has this cell.
fn has(table: &str, head: &str, image: &str) -> bool {
    let mut rows =
        table.trim().lines().map(|line| line.trim_matches('|').split('|').map(str::trim).collect());
    let Some(heads): Option<Vec<&str>> = rows.next() else { return false };
    let Some(column) = heads.iter().position(|found| *found == head) else { return false };
    rows.any(|row: Vec<&str>| row.first() == Some(&image) && row.get(column) == Some(&YES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_as_it_is_written() {
        let text = table(|head, image| head == "docker, shim" && image == "redis");
        assert!(has(&text, "docker, shim", "redis"));
        assert!(!has(&text, "docker, shim", "nginx") && !has(&text, "ctr, shim", "redis"));
        assert_eq!(text.matches(YES).count(), 1);
        let readme = with_table(&format!("x\n\n{BEGIN}\n{END}\ny"), &text).unwrap();
        assert_eq!(between(&readme).unwrap().trim(), text.trim());
        assert!(readme.starts_with("x\n\n") && readme.ends_with("\ny"));
    }
}
