//! Shim, daemon and containerd are killed.

use std::time::Duration;

use anyhow::{ensure, Context, Result};

use super::phases::{Operation, Phase};
use super::seen::Fate;
use super::subject::Subject;
use crate::framework::Background;

pub(super) const SHIM: &str = "shim killed";
pub(super) const DAEMON: &str = "daemon killed";
pub(super) const CONTAINERD: &str = "containerd killed";

const LIMIT: Duration = Duration::from_secs(120);

const KILL_PARENT: &str = "kill -9 $(sed -n 's/^PPid:[[:space:]]*//p' /proc/$1/status)";

/// A container goes with its shim, as runc's does.
pub(super) fn shim(subject: &mut Subject, phase: Phase, number: u32) -> Result<()> {
    subject.mark()?;
    subject.keep()?;
    if phase == Phase::Restoring {
        subject.stand_by()?;
    }
    subject.during(phase, number, |subject| {
        let pid = subject.source().status()?.pid.to_string();
        subject.source().host.cmd(["sh", "-ec", KILL_PARENT, "sh", &pid]).ok().map(drop)
    })?;
    if phase == Phase::Migrating && subject.follow()? {
        subject.start_other_again()?;
        subject.arrived()?;
        subject.note(Fate::Moved, "");
        return Ok(());
    }
    subject.start_again()?;
    subject.note(Fate::Again, "as on runc");
    Ok(())
}

pub(super) fn containerd(subject: &mut Subject, phase: Phase, number: u32) -> Result<()> {
    subject.ready(phase)?;
    let host = subject.source().host.clone();
    let operation = subject.during(phase, number, |_| host.kill_containerd());
    host.start_containerd()?;
    let operation = operation?;
    unharmed(subject, phase, &operation)
}

/// Whoever does not need what has died does not notice.
fn unharmed(subject: &mut Subject, phase: Phase, operation: &Operation) -> Result<()> {
    ensure!(matches!(operation, Operation::None | Operation::Done), "{operation:?}");
    if phase == Phase::Migrating {
        subject.has_moved();
        subject.arrived()?;
        subject.note(Fate::Moved, "");
        return Ok(());
    }
    let fate = subject.settled()?;
    ensure!(matches!(fate, Fate::RunsOn | Fate::Restored), "{fate:?}");
    subject.note(fate, operation.word(phase));
    Ok(())
}

/// The operation is the daemon's: it is cut short.
pub(super) fn daemon(subject: &mut Subject, phase: Phase, _number: u32) -> Result<()> {
    subject.ready(phase)?;
    if phase == Phase::Restoring {
        // One of its own.
        subject.source().restore(&subject.image())?;
        subject.keep()?;
        subject.source().operate("standby", &[])?;
        subject.take_for_past()?;
    }
    let host = subject.source().host.clone();
    let died = match phase {
        Phase::Normal => host.kill_fastmigd(),
        _ => amid(subject, phase),
    };
    host.start_fastmigd()?;
    died?;
    if phase == Phase::Migrating && subject.follow()? {
        subject.arrived()?;
        subject.note(Fate::Moved, "");
        return Ok(());
    }
    let fate = subject.settled()?;
    let expected = if phase == Phase::Restoring { Fate::Standby } else { Fate::RunsOn };
    ensure!(fate == expected, "{fate:?}");
    let reason = match phase {
        Phase::Normal => "",
        _ => "the operation is cut short, and told to have failed",
    };
    subject.note(fate, reason);
    Ok(())
}

fn amid(subject: &Subject, phase: Phase) -> Result<()> {
    let gate = subject.gate_of(phase)?;
    gate.close()?;
    let mut running = asked(subject, phase)?;
    let killed = gate.wait(&mut running).and_then(|()| subject.source().host.kill_fastmigd());
    gate.open()?;
    if phase != Phase::Migrating {
        running.wait(LIMIT).context("whoever asked waits for ever")?;
    } else {
        // It asks what became of it, once there is a daemon again.
        drop(running);
    }
    killed
}

fn asked(subject: &Subject, phase: Phase) -> Result<Background> {
    let (verb, body) = match phase {
        Phase::Checkpointing => {
            ("checkpoint", format!("{{\"name\":\"{}\",\"replace\":true}}", subject.name()))
        }
        Phase::Restoring => ("restore", format!("{{\"checkpoint\":\"{}\"}}", subject.name())),
        _ => return subject.operation(phase),
    };
    subject.call(verb, &body).spawn()
}
