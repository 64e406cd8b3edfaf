//! CRIU is killed, and CRIU's own injected faults.

use std::time::Duration;

use anyhow::{ensure, Context, Result};

use super::gate::Gate;
use super::phases::{chance, Operation, Phase};
use super::seen::Fate;
use super::subject::Subject;

pub(super) const KILLED: &str = "CRIU killed";
pub(super) const FAULTS: &str = "CRIU's own faults (`CRIU_FAULT`)";

const LIMIT: Duration = Duration::from_secs(120);

/// Before CRIU has done anything, and in the middle.
pub(super) fn killed(subject: &mut Subject, phase: Phase, _number: u32) -> Result<()> {
    if phase == Phase::Normal {
        return Ok(());
    }
    for held in [true, false] {
        subject.ready(phase)?;
        let operation = kill(subject, phase, held)?;
        let fate = came_of_it(subject, phase, &operation).with_context(|| format!("{operation:?}"))?;
        subject.note(fate, operation.word(phase));
        subject.recover()?;
    }
    Ok(())
}

fn kill(subject: &Subject, phase: Phase, held: bool) -> Result<Operation> {
    // Held, it is a migration's destination's.
    let gate = if held { subject.gate_of(phase)? } else { Gate::of(subject.source())? };
    if held {
        gate.close()?;
    }
    let mut running = subject.operation(phase)?;
    if !held {
        std::thread::sleep(chance(Duration::from_millis(100)));
    }
    let killed = gate.kill(&mut running);
    gate.open()?;
    let ended = running.wait(LIMIT).context("the operation does not end")?;
    if held {
        killed?;
    }
    Ok(Operation::of(&ended))
}

/// An operation that failed has changed nothing, but that what was to be restored waits.
pub(super) fn came_of_it(subject: &mut Subject, phase: Phase, operation: &Operation) -> Result<Fate> {
    let done = *operation == Operation::Done;
    if phase == Phase::Migrating && done {
        subject.has_moved();
        subject.arrived()?;
        return Ok(Fate::Moved);
    }
    let fate = subject.settled()?;
    let expected = match (phase, done) {
        (Phase::Restoring, true) => Fate::Restored,
        (Phase::Restoring, false) => Fate::Standby,
        _ => Fate::RunsOn,
    };
    ensure!(fate == expected, "{fate:?}, not {expected:?}");
    Ok(fate)
}

/// Fatal ones, and those that CRIU takes another way for; 138 wants a GPU's plug-in and finds none.
const ALL: [u32; 18] = [1, 2, 3, 4, 5, 6, 127, 128, 129, 130, 131, 132, 133, 134, 135, 136, 137, 138];

pub(super) fn faults(subject: &mut Subject, phase: Phase, _number: u32) -> Result<()> {
    if phase == Phase::Normal {
        return Ok(());
    }
    for fault in ALL {
        subject.ready(phase)?;
        let operation = with_fault(subject, phase, fault)?;
        let fate =
            came_of_it(subject, phase, &operation).with_context(|| format!("{fault}: {operation:?}"))?;
        println!("        CRIU_FAULT {fault}, {phase}: {fate:?}");
        subject.note(fate, operation.word(phase));
        subject.recover().with_context(|| format!("after {fault}"))?;
    }
    Ok(())
}

/// Both ends of a migration have it.
fn with_fault(subject: &Subject, phase: Phase, fault: u32) -> Result<Operation> {
    let gates = [Gate::of(subject.source())?, Gate::of(subject.destination())?];
    gates.iter().try_for_each(|gate| gate.inject(Some(fault)))?;
    let operation = subject.performed(phase);
    gates.iter().try_for_each(|gate| gate.inject(None))?;
    operation
}
