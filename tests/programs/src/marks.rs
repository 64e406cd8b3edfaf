//! What a process has besides memory, which must be as it was whatever befalls it: timers, and signals that it holds back.

use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{SigEvent, SigSet, SigevNotify, Signal};
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::ClockId;

/// They never expire in a test.
const FAR: Duration = Duration::from_secs(100_000);
/// None of these is sent.
const HELD_BACK: [Signal; 2] = [Signal::SIGUSR2, Signal::SIGWINCH];

/// Sets timers for the process, and has this thread, with those that it starts, hold signals back.
pub(crate) fn set() -> Result<()> {
    for (signal, clock) in HELD_BACK.into_iter().zip([ClockId::CLOCK_MONOTONIC, ClockId::CLOCK_REALTIME]) {
        let event = SigEvent::new(SigevNotify::SigevSignal { signal, si_value: 7 });
        let mut timer = Timer::new(clock, event).context("cannot make a timer")?;
        timer.set(Expiration::Interval(FAR.into()), TimerSetTimeFlags::empty())?;
        // It is to live as long as the process.
        std::mem::forget(timer);
    }
    Ok(HELD_BACK.into_iter().collect::<SigSet>().thread_block()?)
}
