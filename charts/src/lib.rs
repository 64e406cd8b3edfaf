//! Charts as SVG, and pages of them that open without a network.
//!
//! - [`Lines`]: values along an axis, linear or in powers, with moments marked.
//! - [`Stacked`]: bars made of parts: where the time goes.
//! - [`Page`]: one HTML file with charts and tables in it; nothing is fetched, nothing runs.

mod error;
mod lines;
mod page;
mod stacked;
mod style;

pub use error::Error;
pub use lines::{Axis, Lines, Mark, Series};
pub use page::{Page, Table};
pub use stacked::{Bar, Stacked};
