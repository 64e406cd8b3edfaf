//! What it would cost now to move an application's memory while it runs: looked at for a moment, with nothing sent.

use std::thread;
use std::time::{Duration, Instant};

use fastmig_memory::{probe, Pages, Process, Round, Tracker};

use crate::migration::{processes, trackable};
use crate::state::ApplicationState;
use crate::{Container, Error};

/// What was seen of an application's memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cost {
    /// How this host sees what is written.
    pub tracker: String,
    /// Processes of the application.
    pub processes: usize,
    /// Of them, those that cannot be tracked: their memory travels while they stand still.
    pub untracked: usize,
    /// Bytes of addresses that are looked through.
    pub tracked: u64,
    /// Bytes that a first round would send.
    pub first_round: u64,
    /// Of them, memory that processes share. What is written of it is not seen here.
    pub shared: u64,
    /// Bytes that were written within the window, page by page.
    pub dirty: u64,
    /// How long they were looked at.
    pub window: Duration,
    /// Bytes per second of that.
    pub dirty_rate: u64,
    /// How long it took to look through all memory.
    pub scan: Duration,
    /// The longest that any process was stopped for it.
    pub stopped: Duration,
}

impl Container {
    /// Looks at what the application writes during `window`. It runs on meanwhile; each process is stopped for a moment, as
    /// [`Cost::stopped`] tells, and the container is locked.
    ///
    /// # Errors
    /// When the application does not run, or this host cannot track what it writes.
    pub fn cost(&self, window: Duration) -> Result<Cost, Error> {
        let operation = self.begin_warm("measure")?;
        if operation.record.paused {
            return Err(Error::Paused { id: self.key().id().into(), action: "measure" });
        }
        let state = self.application()?;
        if state != ApplicationState::Running {
            return Err(self.wrong_state("measure", state));
        }
        let cgroup = self.application_cgroup()?;
        measure(&|| processes(&cgroup.pids()), window)
            .map_err(|source| Error::Untracked { id: self.key().id().into(), source })
    }
}

/// Two rounds, and the window between them.
fn measure(
    processes: &dyn Fn() -> Vec<Process>,
    window: Duration,
) -> Result<Cost, Box<dyn std::error::Error + Send + Sync>> {
    let tracker_name = trackable()?;
    let mut tracker = Tracker::new(probe()?);
    let first = tracker.round(&processes())?;
    let begun = Instant::now();
    thread::sleep(window);
    let all = processes();
    let window = begun.elapsed();
    let second = tracker.round(&all)?;
    // The application goes on here: its huge pages are joined again.
    tracker.end(true);
    let dirty = bytes(&second.pages);
    let shared = fastmig_memory::shared_length(&all);
    Ok(Cost {
        tracker: tracker_name.to_owned(),
        processes: all.len(),
        untracked: second.cost.untracked,
        tracked: length(&second) + shared,
        first_round: bytes(&first.pages) + shared,
        shared,
        dirty,
        window,
        dirty_rate: per_second(dirty, window),
        scan: second.cost.scan,
        stopped: first.cost.stop.max(second.cost.stop),
    })
}

fn per_second(bytes: u64, window: Duration) -> u64 {
    let rate = u128::from(bytes) * 1_000_000 / window.as_micros().max(100);
    u64::try_from(rate).unwrap_or(u64::MAX)
}

fn bytes(pages: &[Pages]) -> u64 {
    pages.iter().flat_map(|pages| &pages.spans).map(|span| span.end - span.start).sum()
}

fn length(round: &Round) -> u64 {
    round.areas.iter().map(|area| area.end - area.start).sum()
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Child, Command, Stdio};

    use super::*;

    const MIB: u64 = 1 << 20;

    /// 32 MiB of which each page of 8 MiB is written again and again. Killed when dropped.
    struct Writer(Child);

    impl Writer {
        fn start() -> Option<Self> {
            let program = r#"$s = "x" x (32 << 20); $| = 1; print "ready\n";
                while (1) { for ($i = 0; $i < 8 << 20; $i += 4096) { substr($s, $i, 1) = "y" } select(undef, undef, undef, 0.01) }"#;
            let child = Command::new("perl").args(["-e", program]).stdout(Stdio::piped()).spawn();
            let mut writer = Self(child.ok()?);
            let mut line = String::new();
            BufReader::new(writer.0.stdout.as_mut()?).read_line(&mut line).ok()?;
            Some(writer)
        }

        fn processes(&self) -> Vec<Process> {
            processes(&[i32::try_from(self.0.id()).unwrap()].into())
        }
    }

    impl Drop for Writer {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn what_is_there_and_what_is_written_is_seen() {
        if let Err(reason) = trackable() {
            return eprintln!("skipped: {reason}");
        }
        let Some(mut writer) = Writer::start() else { return eprintln!("skipped: there is no perl") };
        let cost = measure(&|| writer.processes(), Duration::from_millis(300)).unwrap();
        assert_eq!((cost.processes, cost.untracked), (1, 0));
        assert!(cost.first_round >= 32 * MIB && cost.first_round <= cost.tracked, "{cost:?}");
        assert!((7 * MIB..20 * MIB).contains(&cost.dirty), "{cost:?}");
        assert!(cost.window >= Duration::from_millis(300) && cost.dirty_rate > cost.dirty, "{cost:?}");
        assert!(cost.stopped < Duration::from_secs(1), "{cost:?}");
        assert!(writer.0.try_wait().unwrap().is_none(), "it does not live on");
    }

    #[test]
    fn nobody_writes_nothing() {
        if let Err(reason) = trackable() {
            return eprintln!("skipped: {reason}");
        }
        let cost = measure(&Vec::new, Duration::ZERO).unwrap();
        assert_eq!((cost.processes, cost.first_round, cost.dirty_rate), (0, 0, 0));
    }
}
