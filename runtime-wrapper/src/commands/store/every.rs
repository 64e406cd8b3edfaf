//! One checkpoint after the other, each at its time, until a signal comes.

use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Does `one` now and then each `interval`. One that takes longer makes the next ones fail to come, and not run late.
/// A signal ends it, after the one under way.
pub(super) fn run(interval: Duration, one: impl FnMut()) -> ExitCode {
    let (tell, stop) = mpsc::channel();
    let signals = Signals::new([SIGINT, SIGTERM, SIGHUP]);
    match signals {
        Ok(mut signals) => drop(thread::spawn(move || {
            signals.forever().take_while(|_| tell.send(()).is_ok()).for_each(drop);
        })),
        Err(e) => {
            eprintln!("fastmig: could not wait for signals: {e}");
            return ExitCode::FAILURE;
        }
    }
    repeat(interval, &stop, one);
    ExitCode::SUCCESS
}

fn repeat(interval: Duration, stop: &Receiver<()>, mut one: impl FnMut()) {
    let begun = Instant::now();
    loop {
        one();
        if stop.recv_timeout(until_next(begun.elapsed(), interval)) != Err(RecvTimeoutError::Timeout) {
            return;
        }
    }
}

/// From now to the next multiple of `interval`.
fn until_next(elapsed: Duration, interval: Duration) -> Duration {
    let into = elapsed.as_nanos() % interval.as_nanos();
    interval - Duration::from_nanos(u64::try_from(into).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_one_does_not_move_the_next() {
        let seconds = Duration::from_secs;
        assert_eq!(until_next(seconds(0), seconds(60)), seconds(60));
        assert_eq!(until_next(seconds(59), seconds(60)), seconds(1));
        assert_eq!(until_next(seconds(130), seconds(60)), seconds(50));
    }

    #[test]
    fn they_come_at_their_times_until_it_is_over() {
        let (tell, stop) = mpsc::channel();
        let mut times = Vec::new();
        let begun = Instant::now();
        repeat(Duration::from_millis(50), &stop, || {
            times.push(begun.elapsed());
            if times.len() == 3 {
                tell.send(()).unwrap();
            }
        });
        assert_eq!(times.len(), 3);
        assert!(times[2] >= Duration::from_millis(100), "{times:?}");
    }
}
