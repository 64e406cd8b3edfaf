//! Takes back what all installations have done on a host.

use crate::journal::{Entry, Journal};
use crate::site::Site;
use crate::things::apparmor::{tell_kernel, Wish};
use crate::undo::{take_back, Reversal, Told, INTERRUPTED};
use crate::{Error, Outcome};

/// Uninstalls: every file is as it was, but for what others have changed since.
///
/// # Errors
/// When a file that others have changed cannot be understood (nothing is taken back then), or a file cannot be
/// written; a second try goes on where the first one failed.
pub fn uninstall(site: &Site) -> Result<Outcome, Error> {
    if !Journal::exists(site) {
        return Ok(Outcome::default());
    }
    let mut journal = Journal::open(site)?;
    let result = uninstall_with(site, &mut journal);
    let closed = journal.close();
    let outcome = result?;
    closed?;
    Ok(outcome)
}

/// What [`uninstall`] would do.
///
/// # Errors
/// When a file that others have changed cannot be understood.
pub fn preview(site: &Site) -> Result<Outcome, Error> {
    let mut outcome = Outcome::default();
    for entry in Journal::entries(site)?.iter().rev() {
        note(&mut outcome, entry, Reversal::of(site, entry)?.tell(entry));
    }
    Ok(outcome)
}

fn uninstall_with(site: &Site, journal: &mut Journal) -> Result<Outcome, Error> {
    let mut outcome = Outcome::default();
    if !journal.pending().is_empty() {
        take_back(site, journal)?;
        outcome.notes.push(INTERRUPTED.into());
    }
    for entry in journal.done() {
        Reversal::of(site, entry)?;
    }
    outcome.notes.extend(tell_kernel(site, Wish::Unload));
    while let Some(entry) = journal.done().last().cloned() {
        let told = Reversal::of(site, &entry)?.carry_out(site, journal, &entry)?;
        note(&mut outcome, &entry, told);
        journal.undone()?;
    }
    Ok(outcome)
}

fn note(outcome: &mut Outcome, entry: &Entry, told: Told) {
    match told {
        Told::Nothing => {}
        Told::Left(note) => outcome.notes.push(note),
        Told::Done(line) => {
            outcome.changes.push(line);
            let service = entry.thing.service().map(String::from);
            outcome.restart.extend(service.filter(|service| !outcome.restart.contains(service)));
        }
    }
}
