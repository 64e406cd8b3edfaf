//! Makes a host what it should be, or leaves it as it was.

use crate::journal::{checksum, Entry, Journal};
use crate::plan::{plan, Change, Plan};
use crate::site::Site;
use crate::things::apparmor::{tell_kernel, Wish};
use crate::things::Source;
use crate::undo::{take_back, INTERRUPTED};
use crate::{Error, Outcome};

/// What an installation would change.
///
/// # Errors
/// When a file of the operator's cannot be read or understood.
pub fn preview(site: &Site, source: &Source) -> Result<Plan, Error> {
    plan(site, source)
}

/// Installs what is missing. `watch` is told of each change twice: when it is in the journal, and when it is made.
///
/// # Errors
/// When a file cannot be read, understood or written, or the program it is for refuses it; nothing is changed then.
pub fn install(site: &Site, source: &Source, watch: &mut dyn FnMut(&Change)) -> Result<Outcome, Error> {
    let mut journal = Journal::open(site)?;
    let result = install_with(site, source, &mut journal, watch);
    // The first error is the one to tell.
    let closed = journal.close();
    let outcome = result?;
    closed?;
    Ok(outcome)
}

fn install_with(
    site: &Site,
    source: &Source,
    journal: &mut Journal,
    watch: &mut dyn FnMut(&Change),
) -> Result<Outcome, Error> {
    let mut outcome = Outcome::default();
    if !journal.pending().is_empty() {
        take_back(site, journal)?;
        outcome.notes.push(INTERRUPTED.into());
    }
    let plan = plan(site, source)?;
    for change in &plan.changes {
        if let Err(cause) = make(site, journal, change, watch) {
            let cause = Box::new(cause);
            return Err(match take_back(site, journal) {
                Ok(()) => Error::Undone { cause },
                Err(undo) => Error::HalfDone { cause, undo: Box::new(undo) },
            });
        }
        outcome.changes.push(change.line());
    }
    if !plan.changes.is_empty() {
        journal.settle()?;
    }
    outcome.notes.extend(plan.notes);
    outcome.notes.extend(tell_kernel(site, Wish::Load));
    outcome.restart = plan.restart;
    Ok(outcome)
}

fn make(
    site: &Site,
    journal: &mut Journal,
    change: &Change,
    watch: &mut dyn FnMut(&Change),
) -> Result<(), Error> {
    let path = &change.path;
    let before = match &change.content {
        Some(_) => journal.keep(path)?,
        None => None,
    };
    let after = change.content.as_deref().map(checksum);
    journal.begin(Entry { path: path.clone(), thing: change.thing, before, after, mixed: false })?;
    watch(change);
    match &change.content {
        None => site.make_directory(path)?,
        Some(content) => {
            let staged = site.stage(path, content, change.attributes)?;
            if let Some(consumer) = change.consumer {
                consumer.check(site, &staged, path)?;
            }
            site.commit(path)?;
        }
    }
    watch(change);
    Ok(())
}
