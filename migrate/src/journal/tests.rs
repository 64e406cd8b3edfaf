//! What a journal keeps through crashes, full disks and strangers' files.

use std::fs::{self, OpenOptions};
use std::io::Write;

use serde_json::Value;
use tempfile::TempDir;

use super::*;
use crate::options::Wanted;

const ROLE: Role = Role::Destination;

fn begin(journal: &Journal, role: Role) -> MigrationId {
    let id = MigrationId::random().unwrap();
    let wanted = Wanted { container: "web".to_owned(), ..Wanted::default() };
    journal.begin(Record::new(id, role, "a", wanted, Value::Null)).unwrap();
    id
}

fn step(journal: &Journal, id: MigrationId, role: Role, steps: &[State]) {
    steps.iter().for_each(|to| journal.step(id, role, *to, None).unwrap());
}

fn path(directory: &TempDir, id: MigrationId) -> PathBuf {
    directory.path().join(name_of((id, ROLE)))
}

#[test]
fn is_read_again_as_it_was() {
    let directory = TempDir::new().unwrap();
    let journal = Journal::open(directory.path()).unwrap();
    let id = begin(&journal, ROLE);
    journal.locate(id, ROLE, serde_json::json!({"key": "k"})).unwrap();
    step(&journal, id, ROLE, &[State::Held, State::Committed]);
    let before = journal.record(id, ROLE).unwrap();
    drop(journal);
    let again = Journal::open(directory.path()).unwrap();
    assert_eq!(again.record(id, ROLE).unwrap(), before);
    assert_eq!(again.open_records(), [before]);
}

#[test]
fn a_torn_line_was_never_written() {
    let directory = TempDir::new().unwrap();
    let journal = Journal::open(directory.path()).unwrap();
    let id = begin(&journal, ROLE);
    step(&journal, id, ROLE, &[State::Held]);
    drop(journal);
    let mut file = OpenOptions::new().append(true).open(path(&directory, id)).unwrap();
    file.write_all(br#"{"at":"2026-11-21T00:00:00Z","state":"commi"#).unwrap();
    let again = Journal::open(directory.path()).unwrap();
    assert_eq!(again.record(id, ROLE).unwrap().state, State::Held);
    // And what is written next is whole.
    step(&again, id, ROLE, &[State::Abandoning]);
    drop(again);
    assert_eq!(Journal::open(directory.path()).unwrap().record(id, ROLE).unwrap().state, State::Abandoning);
}

#[test]
fn a_file_without_its_first_line_was_never_begun() {
    let directory = TempDir::new().unwrap();
    let id = MigrationId::random().unwrap();
    fs::write(path(&directory, id), b"{\"id\":").unwrap();
    let journal = Journal::open(directory.path()).unwrap();
    assert!(matches!(journal.record(id, ROLE), Err(JournalError::Unknown(_))));
    assert!(!path(&directory, id).exists());
}

#[test]
fn a_damaged_record_decides_nothing() {
    let directory = TempDir::new().unwrap();
    let journal = Journal::open(directory.path()).unwrap();
    let id = begin(&journal, ROLE);
    drop(journal);
    let mut file = OpenOptions::new().append(true).open(path(&directory, id)).unwrap();
    file.write_all(b"garbage\n").unwrap();
    let again = Journal::open(directory.path()).unwrap();
    assert_eq!(again.damaged().len(), 1);
    assert!(matches!(again.decide(id, "a"), Err(JournalError::Damaged { .. })));
    assert!(again.step(id, ROLE, State::Held, None).is_err());
}

#[test]
fn a_step_that_must_not_be_is_refused_and_not_written() {
    let directory = TempDir::new().unwrap();
    let journal = Journal::open(directory.path()).unwrap();
    let id = begin(&journal, ROLE);
    step(&journal, id, ROLE, &[State::Abandoning]);
    assert!(matches!(journal.step(id, ROLE, State::Committed, None), Err(JournalError::Illegal(_))));
    drop(journal);
    assert_eq!(Journal::open(directory.path()).unwrap().record(id, ROLE).unwrap().state, State::Abandoning);
}

#[test]
fn who_asks_before_the_commit_decides_against_it() {
    let directory = TempDir::new().unwrap();
    let journal = Journal::open(directory.path()).unwrap();
    let id = begin(&journal, ROLE);
    step(&journal, id, ROLE, &[State::Held]);
    assert_eq!(journal.decide(id, "a").unwrap(), State::Abandoning);
    assert!(journal.step(id, ROLE, State::Committed, None).is_err());
    // Also when nothing of it has ever arrived.
    let unknown = MigrationId::random().unwrap();
    assert_eq!(journal.decide(unknown, "a").unwrap(), State::Abandoned);
    let late = Record::new(unknown, ROLE, "a", Wanted::default(), Value::Null);
    assert!(matches!(journal.begin(late), Err(JournalError::Known(_))));
}

#[test]
fn who_asks_after_the_commit_hears_of_it() {
    let directory = TempDir::new().unwrap();
    let journal = Journal::open(directory.path()).unwrap();
    let id = begin(&journal, ROLE);
    step(&journal, id, ROLE, &[State::Held, State::Committed]);
    assert_eq!(journal.decide(id, "a").unwrap(), State::Committed);
    step(&journal, id, ROLE, &[State::Released]);
    assert_eq!(journal.decide(id, "a").unwrap(), State::Released);
    assert!(matches!(journal.decide(id, "stranger"), Err(JournalError::Unknown(_))));
}

#[test]
fn old_ones_are_forgotten_but_no_commit_that_may_be_asked_for() {
    let directory = TempDir::new().unwrap();
    let journal = Journal::open(directory.path()).unwrap();
    let committed = begin(&journal, ROLE);
    step(&journal, committed, ROLE, &[State::Held, State::Committed, State::Released]);
    for _ in 0..HISTORY + 20 {
        let id = begin(&journal, Role::Source);
        step(&journal, id, Role::Source, &[State::Aborted]);
    }
    assert_eq!(journal.history().len(), HISTORY + 1);
    assert_eq!(journal.decide(committed, "a").unwrap(), State::Released);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), HISTORY + 1);
}

/// A device that is full on every write stands in for a full disk.
#[test]
fn a_full_disk_takes_no_step() {
    let directory = TempDir::new().unwrap();
    let journal = Journal::open(directory.path()).unwrap();
    let id = begin(&journal, ROLE);
    {
        let mut records = journal.lock();
        let Some(Kept::Whole { lines, .. }) = records.get_mut(&(id, ROLE)) else { panic!("no record") };
        lines.fill_up();
    }
    assert!(matches!(journal.step(id, ROLE, State::Held, None), Err(JournalError::Io { .. })));
    // A device cannot be cut back: what is on it is not known any more.
    assert!(matches!(journal.decide(id, "a"), Err(JournalError::Damaged { .. })));
}
