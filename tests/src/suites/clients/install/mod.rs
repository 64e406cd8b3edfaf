//! FastMig put into hosts and taken out again: what it finds there runs under it, and what it leaves is what it found.

mod deb;
mod failures;
mod lifecycle;
mod settings;
mod shipped;
mod stage;

use crate::framework::Case;

pub(super) fn cases() -> Vec<Case> {
    [shipped::CASES, lifecycle::CASES, settings::CASES, failures::CASES, deb::CASES].concat()
}
