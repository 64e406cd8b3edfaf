//! What a move costs both hosts: processor time, bytes on the network, memory of the programs that do it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread::{sleep, JoinHandle};
use std::time::Duration;

use anyhow::{anyhow, Result};
use fastmig_tests::framework::Host;

/// Between two looks at the memory: rare enough to cost nothing that counts.
const LOOK: Duration = Duration::from_millis(40);
const MIB: f64 = 1048576.0;

/// A measurement under way.
pub(crate) struct Usage {
    hosts: [Arc<Host>; 2],
    processor: Duration,
    received: u64,
    stopped: Arc<AtomicBool>,
    looker: JoinHandle<BTreeMap<String, u64>>,
}

/// What was used.
#[derive(Debug)]
pub(crate) struct Used {
    /// Seconds of processor time on both hosts, the application's own among them.
    pub(crate) processor: f64,
    /// MiB that went over the network.
    pub(crate) sent: f64,
    /// The most MiB that each program held at once, on both hosts together.
    pub(crate) peaks: BTreeMap<String, f64>,
}

impl Usage {
    /// Begins now.
    pub(crate) fn start(hosts: &[Arc<Host>; 2]) -> Result<Self> {
        let (processor, received) = (processor(hosts)?, received(hosts)?);
        let stopped = Arc::new(AtomicBool::new(false));
        let (until, looked_at) = (Arc::clone(&stopped), hosts.clone());
        let looker = std::thread::spawn(move || look(&looked_at, &until));
        Ok(Self { hosts: hosts.clone(), processor, received, stopped, looker })
    }

    /// Ends now.
    pub(crate) fn stop(self) -> Result<Used> {
        let processor = processor(&self.hosts)?.saturating_sub(self.processor);
        let sent = received(&self.hosts)?.saturating_sub(self.received);
        self.stopped.store(true, Ordering::Relaxed);
        let peaks = self.looker.join().map_err(|_| anyhow!("the thread that looks at memory panicked"))?;
        let peaks = peaks.into_iter().map(|(name, bytes)| (name, bytes as f64 / MIB)).collect();
        Ok(Used { processor: processor.as_secs_f64(), sent: sent as f64 / MIB, peaks })
    }
}

fn processor(hosts: &[Arc<Host>; 2]) -> Result<Duration> {
    Ok(hosts[0].processor_time()? + hosts[1].processor_time()?)
}

fn received(hosts: &[Arc<Host>; 2]) -> Result<u64> {
    Ok(hosts[0].received_bytes()? + hosts[1].received_bytes()?)
}

fn look(hosts: &[Arc<Host>; 2], stopped: &AtomicBool) -> BTreeMap<String, u64> {
    let mut peaks: BTreeMap<String, u64> = BTreeMap::new();
    while !stopped.load(Ordering::Relaxed) {
        let mut now: BTreeMap<String, u64> = BTreeMap::new();
        for (name, bytes) in hosts.iter().flat_map(|host| host.resident_bytes()) {
            *now.entry(name).or_default() += bytes;
        }
        for (name, bytes) in now {
            let peak = peaks.entry(name).or_default();
            *peak = bytes.max(*peak);
        }
        sleep(LOOK);
    }
    peaks
}
