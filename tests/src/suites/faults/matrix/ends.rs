//! The application ends: for want of memory or disk, by its own code, by any signal.

use std::time::Duration;

use anyhow::{ensure, Context, Result};

use super::criu::came_of_it;
use super::phases::{Operation, Phase};
use super::seen::Fate;
use super::subject::{send, Subject, SOON};
use super::times;
use crate::framework::process::wait_until;
use crate::framework::Host;
use crate::suites::migration::faults::LIMIT_MEMORY;

pub(super) const MEMORY: &str = "memory limit exceeded";
pub(super) const DISK: &str = "the application finds its disk full";
pub(super) const FULL: &str = "the host's disk is full";
pub(super) const CODES: &str = "exit code above 0";
pub(super) const SIGNALS: &str = "each signal";

pub(super) fn memory(subject: &mut Subject, phase: Phase, number: u32) -> Result<()> {
    if phase == Phase::Restoring {
        return restored_without_room(subject);
    }
    subject.ready(phase)?;
    let operation = subject.during(phase, number, |subject| subject.tell("grow"))?;
    ended(subject, &operation, "out of memory")
}

/// The container may hold no more than it does without the application.
fn restored_without_room(subject: &mut Subject) -> Result<()> {
    subject.ready(Phase::Restoring)?;
    let limit = |subject: &Subject, limit: &str| {
        let pid = subject.source().status()?.pid.to_string();
        subject.source().host.cmd(["sh", "-ec", LIMIT_MEMORY, "sh", &pid, limit]).ok().map(drop)
    };
    limit(subject, "tight")?;
    let operation = subject.performed(Phase::Restoring);
    limit(subject, "67108864")?;
    let operation = operation?;
    ensure!(operation != Operation::Done, "it was restored without room");
    let fate = subject.settled()?;
    ensure!(fate == Fate::Standby, "{fate:?} after {operation:?}");
    subject.note(fate, operation.word(Phase::Restoring));
    Ok(())
}

pub(super) fn disk(subject: &mut Subject, phase: Phase, number: u32) -> Result<()> {
    // What it finds when it runs again is its own matter.
    if phase == Phase::Restoring {
        return Ok(());
    }
    subject.ready(phase)?;
    let operation = subject.during(phase, number, |subject| subject.tell("write /dev/full"))?;
    ended(subject, &operation, "exit code 28")
}

pub(super) fn codes(subject: &mut Subject, phase: Phase, number: u32) -> Result<()> {
    for code in [1, 3, 127, 255] {
        subject.ready(phase)?;
        if phase == Phase::Restoring {
            leaves_at_once(subject)?;
            continue;
        }
        let operation = subject.during(phase, number, |subject| subject.tell(&format!("exit {code}")))?;
        ended(subject, &operation, &format!("exit code {code}"))?;
        subject.recover()?;
    }
    Ok(())
}

/// It ends as soon as it runs again.
fn leaves_at_once(subject: &mut Subject) -> Result<()> {
    subject.let_leave(true)?;
    let operation = subject.performed(Phase::Restoring)?;
    let decided =
        wait_until(SOON, || subject.told().is_ok_and(|told| told.decision != subject.before().decision));
    subject.let_leave(false)?;
    decided.with_context(|| format!("nothing was decided: {operation:?}"))?;
    subject.recover()?;
    subject.note(Fate::Scratch, "exit code N");
    Ok(())
}

/// What a process does at a signal that it does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    Ends,
    /// It stands still until SIGCONT comes.
    Stops,
    Nothing,
}

fn effect(signal: i32) -> Effect {
    match signal {
        libc::SIGCHLD | libc::SIGCONT | libc::SIGURG | libc::SIGWINCH => Effect::Nothing,
        libc::SIGSTOP | libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU => Effect::Stops,
        _ => Effect::Ends,
    }
}

/// All that there are: the two between the ordinary and the real-time ones are the C library's own.
fn all_signals() -> Vec<i32> {
    (1..=31).chain([34, 50, 64]).collect()
}

/// Of each kind one: hangup, interrupt, kill, fault, ask to end; stop; nothing; real-time.
const FEW: &[i32] = &[1, 2, 9, 11, 15, 19, 28, 64];

pub(super) fn signals(subject: &mut Subject, phase: Phase, number: u32) -> Result<()> {
    let all = phase == Phase::Normal || times() > 1;
    let chosen = if all { all_signals() } else { FEW.to_vec() };
    for signal in chosen {
        subject.ready(phase)?;
        one_signal(subject, phase, number, signal).with_context(|| format!("signal {signal}"))?;
        subject.recover()?;
    }
    Ok(())
}

fn one_signal(subject: &mut Subject, phase: Phase, number: u32, signal: i32) -> Result<()> {
    let operation = if phase == Phase::Restoring {
        as_it_comes(subject, signal)?
    } else {
        subject.during(phase, number, |subject| subject.signal(signal))?
    };
    match effect(signal) {
        Effect::Ends if phase != Phase::Restoring => ended(subject, &operation, &format!("signal {signal}")),
        Effect::Ends => {
            // It may have come before there was anybody to feel it.
            let fate = subject.settled()?;
            let told = subject.told()?;
            let decided = told.decision != subject.before().decision;
            let reason = told.decision["reason"].as_str().filter(|_| decided).map(short);
            subject.note(fate, reason.as_deref().unwrap_or(operation.word(phase)));
            Ok(())
        }
        Effect::Stops | Effect::Nothing => {
            if phase == Phase::Migrating && operation == Operation::Done {
                subject.has_moved();
                subject.signal(libc::SIGCONT)?;
                subject.arrived()?;
                subject.note(Fate::Moved, "");
                return Ok(());
            }
            subject.signal(libc::SIGCONT)?;
            let fate = subject.settled()?;
            ensure!(fate != Fate::Scratch, "it was started anew after {operation:?}");
            subject.note(fate, operation.word(phase));
            Ok(())
        }
    }
}

/// Each process that the restore brings gets the signal as soon as it is there.
fn as_it_comes(subject: &Subject, signal: i32) -> Result<Operation> {
    let mut running = subject.operation(Phase::Restoring)?;
    while running.is_running() {
        let processes = subject.processes()?;
        if !processes.is_empty() {
            processes.into_iter().for_each(|process| send(process, signal));
            break;
        }
        std::thread::sleep(std::time::Duration::from_micros(200));
    }
    if effect(signal) == Effect::Stops {
        std::thread::sleep(std::time::Duration::from_millis(100));
        subject.signal(libc::SIGCONT)?;
    }
    Ok(Operation::of(&running.wait(std::time::Duration::from_secs(120))?))
}

/// The policy has decided, and its reason has these words.
fn ended(subject: &mut Subject, operation: &Operation, words: &str) -> Result<()> {
    if subject.phase() == Phase::Migrating && *operation == Operation::Done {
        return followed(subject, words);
    }
    let (fate, reason) = subject.decided()?;
    ensure!(reason.contains(words), "the reason does not say {words:?}: {reason}");
    subject.note(fate, &short(&reason));
    Ok(())
}

/// It has moved all the same: the fault came too late, or strikes there.
fn followed(subject: &mut Subject, words: &str) -> Result<()> {
    const SOON_THERE: Duration = Duration::from_secs(1);
    subject.has_moved();
    let past = subject.before().decision.clone();
    if wait_until(SOON_THERE, || subject.told().is_ok_and(|told| told.decision != past)).is_err() {
        subject.forget()?;
        subject.arrived()?;
        subject.note(Fate::Moved, "");
        return Ok(());
    }
    let (fate, reason) = subject.decided()?;
    ensure!(reason.contains(words), "the reason does not say {words:?}: {reason}");
    subject.note(fate, &format!("{}, at the destination", short(&reason)));
    Ok(())
}

pub(super) fn full(subject: &mut Subject, phase: Phase, _number: u32) -> Result<()> {
    subject.ready(phase)?;
    let host = subject.source().host.clone();
    fill(&host, phase)?;
    let struck = match phase {
        Phase::Normal => subject.tell("exit 3").map(|()| Operation::None),
        _ => subject.performed(phase),
    };
    let settled = struck.and_then(|operation| with_full_disk(subject, phase, &operation));
    host.stop_fastmigd()?;
    host.sh(&format!("for place in {}; do umount $place; done", places(phase))).ok()?;
    host.start_fastmigd()?;
    settled
}

/// What would be written.
fn places(phase: Phase) -> &'static str {
    match phase {
        Phase::Normal => "/var/log/fastmig /var/lib/fastmig/journal /var/lib/fastmig/operations",
        Phase::Checkpointing => "/var/log/fastmig /var/tmp/table",
        Phase::Restoring => "/var/log/fastmig",
        Phase::Migrating => "/var/log/fastmig /var/lib/fastmig/journal",
    }
}

fn fill(host: &Host, phase: Phase) -> Result<()> {
    let script = format!(
        "for place in {}; do mkdir -p $place; mount -t tmpfs -o size=64k,mode=700 tmpfs $place; \
         head -c 1048576 /dev/zero >$place/.full 2>/dev/null; done; true",
        places(phase)
    );
    host.sh(&script).ok().map(drop)
}

fn with_full_disk(subject: &mut Subject, phase: Phase, operation: &Operation) -> Result<()> {
    if phase == Phase::Normal {
        return ended(subject, operation, "exit code 3");
    }
    if let Operation::Failed(said) = operation {
        ensure!(said.contains("No space left"), "the reason is not told: {said}");
    }
    let fate = came_of_it(subject, phase, operation)?;
    let failed = *operation != Operation::Done;
    subject.note(fate, if failed { "No space left on device" } else { "" });
    Ok(())
}

/// A reason without what differs from time to time: times, counts, and which signal or code it was.
pub(super) fn short(reason: &str) -> String {
    let reason = reason.split(" (policy").next().unwrap_or(reason);
    let (facts, rule) = reason.split_once(": ").unwrap_or((reason, ""));
    let parts = facts.split(", ").filter(|part| !part.starts_with("failure "));
    let parts: Vec<String> =
        parts.map(|part| nameless(part.split(" after ").next().unwrap_or(part))).collect();
    [&parts.join(", "), rule].join(": ").trim_end_matches(": ").to_owned()
}

/// Whatever number it was.
fn nameless(part: &str) -> String {
    let digits = part.trim_end_matches(|c: char| c.is_ascii_digit());
    if digits.len() == part.len() {
        part.to_owned()
    } else {
        format!("{digits}N")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_the_same_each_time() {
        for (reason, expected) in [
            (
                "killed by signal 9, out of memory after 0.3s, checkpointing, failure 3: a signal has ended it (policy x)",
                "killed by signal N, out of memory, checkpointing: a signal has ended it",
            ),
            ("exit code 28 after 1.0s: it failed (policy x)", "exit code N: it failed"),
            ("it could not be restored: it failed (policy x) (because)", "it could not be restored: it failed"),
        ] {
            assert_eq!(short(reason), expected);
        }
    }
}
