//! What migrations were like, as one page of HTML with charts, which opens without a network.
//!
//! The input is what `fastmig migrate --json` and `fastmig history --json` print; the page is all that comes of it. A program of
//! its own (`fastmig-report`), for `fastmig` is started with every container and need not carry what draws.
//!
//! | file | what it does |
//! |---|---|
//! | `input` | one migration, or several |
//! | `overview` | all of them, side by side |
//! | `migration` | one of them: its rounds, where its time went, where its freeze went |
//! | `figures` | numbers as people read them |

#![forbid(unsafe_code)]

mod figures;
mod input;
mod migration;
mod overview;

pub use input::{Input, InputError};

use fastmig_charts::{Error, Page};

/// So many migrations are shown one by one; more would be a page that nobody reads to its end.
const MOST: usize = 50;

/// The page.
///
/// # Errors
/// When a chart cannot be drawn.
pub fn page(input: &Input) -> Result<String, Error> {
    let migrations = input.migrations();
    let mut page = Page::new("FastMig: what moved");
    overview::add(&mut page, migrations)?;
    for report in migrations.iter().rev().take(MOST) {
        migration::add(&mut page, report)?;
    }
    if let Some(more @ 1..) = migrations.len().checked_sub(MOST) {
        page.note(&format!("{more} older ones are in the table only."));
    }
    Ok(page.html())
}
