//! What came of a fault: gathered while cells are tried, for the table and for whoever looks at one.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::phases::Phase;

/// What becomes of an application.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fate {
    /// It runs on as it was.
    RunsOn,
    /// It came up from scratch.
    Scratch,
    /// It came up from a checkpoint.
    Restored,
    /// It runs at the destination.
    Moved,
    /// Its container is in standby.
    Standby,
    /// Its container has ended, and was started again.
    Again,
}

impl Fate {
    fn words(self) -> &'static str {
        match self {
            Self::RunsOn => "runs on",
            Self::Scratch => "from scratch",
            Self::Restored => "from the last checkpoint",
            Self::Moved => "runs at the destination",
            Self::Standby => "standby",
            Self::Again => "its container ends, and starts again from the last checkpoint",
        }
    }
}

/// The lines of each cell, and how often each was seen.
type Cell = BTreeMap<(Fate, String), u32>;

static CELLS: Mutex<BTreeMap<(String, Phase), Cell>> = Mutex::new(BTreeMap::new());

/// Notes what came of a fault, and the reason that was given.
pub(super) fn note(fault: &str, phase: Phase, fate: Fate, reason: &str) {
    let mut cells = CELLS.lock().unwrap_or_else(PoisonError::into_inner);
    let cell = cells.entry((fault.to_owned(), phase)).or_default();
    *cell.entry((fate, reason.to_owned())).or_insert(0) += 1;
}

/// The lines of a cell; none where nothing was tried.
pub(super) fn lines(fault: &str, phase: Phase) -> Vec<String> {
    let cells = CELLS.lock().unwrap_or_else(PoisonError::into_inner);
    let cell = cells.get(&(fault.to_owned(), phase)).into_iter().flatten();
    let line = |((fate, reason), _): (&(Fate, String), &u32)| match reason.as_str() {
        "" => fate.words().to_owned(),
        reason => format!("{}: {reason}", fate.words()),
    };
    cell.map(line).collect()
}

/// How often anything was tried.
pub(super) fn count() -> u32 {
    let cells = CELLS.lock().unwrap_or_else(PoisonError::into_inner);
    cells.values().flat_map(BTreeMap::values).sum()
}
