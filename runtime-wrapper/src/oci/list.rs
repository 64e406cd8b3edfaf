//! `list`: runc's own, unless one of its containers is ours; then its answer is mended.

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use fastmig_engine::{oci_list, Error};
use serde_json::Value;

use super::Runtime;

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Table,
    Json,
}

#[derive(Debug, Parser)]
struct Arguments {
    #[arg(long, short, value_enum, default_value = "table")]
    format: Format,
    /// Only the ids
    #[arg(long, short)]
    quiet: bool,
}

pub(crate) fn run(runtime: &Runtime, raw: &[OsString]) -> ExitCode {
    let arguments: Arguments = match runtime.parse("list", raw) {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    if arguments.quiet || !runtime.may_do_more() {
        return runtime.hand_over("list", raw);
    }
    runtime.conclude(print(runtime, arguments.format))
}

fn print(runtime: &Runtime, format: Format) -> Result<ExitCode, Error> {
    let entries = oci_list(&runtime.config, &runtime.options(), runtime.voice())?;
    let text = match format {
        Format::Table => table(&entries),
        Format::Json if entries.is_empty() => "null\n".into(),
        Format::Json => format!("{}\n", Value::Array(entries)),
    };
    std::io::stdout().write_all(text.as_bytes()).map_err(|e| Error::stdio("print", e))?;
    Ok(ExitCode::SUCCESS)
}

/// The columns of runc, which come from Go's tabwriter: at least 12 wide, 3 apart.
fn table(entries: &[Value]) -> String {
    let titles = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned);
    let row = |entry: &Value| {
        ["id", "pid", "status", "bundle", "created", "owner"].map(|field| match &entry[field] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        })
    };
    let rows: Vec<[String; 6]> = std::iter::once(titles).chain(entries.iter().map(row)).collect();
    let width = |column: usize| {
        let longest = rows.iter().map(|row| row[column].chars().count()).max();
        (longest.unwrap_or(0) + 3).max(12)
    };
    let mut text = String::new();
    for row in &rows {
        for (column, cell) in row[..5].iter().enumerate() {
            text.push_str(&format!("{cell:<width$}", width = width(column)));
        }
        text.push_str(&row[5]);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_table_is_as_wide_as_runcs() {
        assert_eq!(table(&[]), "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n");
        let entry = json!({ "id": "a-name-of-fourteen", "pid": 7, "status": "running", "bundle": "/b",
                            "created": "now", "owner": "root" });
        assert!(table(&[entry])
            .lines()
            .nth(1)
            .unwrap()
            .starts_with("a-name-of-fourteen   7           running     /b"));
    }
}
