//! `fastmig-report`: JSON of migrations in, a page of HTML out. `fastmig report` calls it.

#![forbid(unsafe_code)]

use std::io::Write;
use std::process::ExitCode;

use fastmig_report::{page, Input};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fastmig-report: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let id = arguments.next();
    if arguments.next().is_some() || id.as_ref().is_some_and(|id| id.starts_with('-')) {
        return Err(
            "it reads JSON of migrations, and takes the id of one at most; use `fastmig report`".into()
        );
    }
    let mut input = Input::read(std::io::stdin().lock())?;
    if let Some(id) = id {
        input = input.only(&id)?;
    }
    Ok(std::io::stdout().lock().write_all(page(&input)?.as_bytes())?)
}
