//! What came of a fault: gathered while cells are tried, for the table and for whoever looks at one.

use std::collections::{BTreeMap, BTreeSet};
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
            Self::Again => "container ends as on runc; started again: from the last checkpoint",
        }
    }
}

/// A cell: each fate with the reasons that were given, and how often.
type Cell = BTreeMap<(Fate, String), u32>;

static CELLS: Mutex<BTreeMap<(String, Phase), Cell>> = Mutex::new(BTreeMap::new());

/// Notes what came of a fault, and the reason that was given.
pub(super) fn note(fault: &str, phase: Phase, fate: Fate, reason: &str) {
    let mut cells = CELLS.lock().unwrap_or_else(PoisonError::into_inner);
    let cell = cells.entry((fault.to_owned(), phase)).or_default();
    *cell.entry((fate, reason.to_owned())).or_insert(0) += 1;
}

/// The text of a cell: nothing where nothing was tried.
pub(super) fn text(fault: &str, phase: Phase) -> Option<String> {
    let cells = CELLS.lock().unwrap_or_else(PoisonError::into_inner);
    let cell = cells.get(&(fault.to_owned(), phase))?;
    let fates: BTreeSet<Fate> = cell.keys().map(|(fate, _)| *fate).collect();
    let texts = fates.into_iter().map(|fate| {
        let reasons: Vec<&str> = cell
            .keys()
            .filter(|(of, why)| *of == fate && !why.is_empty())
            .map(|(_, why)| why.as_str())
            .collect();
        if reasons.is_empty() {
            return fate.words().to_owned();
        }
        format!("{}: {}", fate.words(), reasons.join("; "))
    });
    Some(texts.collect::<Vec<_>>().join("<br>"))
}

/// How often anything was tried.
pub(super) fn count() -> u32 {
    let cells = CELLS.lock().unwrap_or_else(PoisonError::into_inner);
    cells.values().flat_map(BTreeMap::values).sum()
}
