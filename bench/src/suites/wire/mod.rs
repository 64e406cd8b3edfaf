//! How fast memory travels between two hosts as migrations send it, beside plain TCP in the same run.
//!
//! | side | what |
//! |---|---|
//! | fastmig | the first round of a move: read from the process, checked, encrypted (TLS 1.3), sent, and put in its place |
//! | tcp | bytes from one thread to another, and nothing else |
//!
//! Processor time is that of both ends: both daemons', or both threads' of each connection.

mod plain;

use std::sync::Arc;

use anyhow::{Context, Result};
use fastmig_tests::apps::memory::{image, Pair};
use fastmig_tests::apps::migrating;
use fastmig_tests::framework::Host;

use crate::bench::Bench;
use crate::figures::Metric;

/// MiB that travel, in a quick run and in a thorough one.
const MIB: [usize; 2] = [512, 1024];
/// Streams.
const STREAMS: [usize; 3] = [1, 2, 4];

const RATE: Metric = Metric::new("rate", "MB/s");
const PROCESSOR: Metric = Metric::new("cpu-per-gb", "s");

/// One measurement.
#[derive(Debug, Clone, Copy)]
struct Speed {
    /// Bytes per second.
    rate: f64,
    /// Processor seconds for each GB.
    processor: f64,
}

/// Measures.
pub(super) fn run(bench: &mut Bench) -> Result<()> {
    let [a, b] = bench.hosts(&[image()])?;
    let mib = MIB[usize::from(!bench.how.quick)];
    for round in 0..bench.rounds(2, 5) {
        for streams in STREAMS {
            if round > 0 && !bench.has_time() {
                return Ok(());
            }
            let plain = plain::measure([&a, &b], streams, (mib as u64) << 20)?;
            let ours = moved([&a, &b], streams, mib)?;
            for (tool, speed) in [("fastmig", ours), ("tcp", plain)] {
                let work = format!("{streams}-streams");
                bench.add(&work, tool, RATE, speed.rate / 1e6);
                bench.note(&work, tool, PROCESSOR, speed.processor);
            }
        }
    }
    Ok(())
}

/// The first round of a move of memory that is full of what cannot be compressed.
fn moved([a, b]: [&Arc<Host>; 2], streams: usize, mib: usize) -> Result<Speed> {
    let pair = Pair::start(a, b, &["tick", "--mib", &mib.to_string()])?;
    let [source, destination] = pair.containers();
    let before = processor(a)? + processor(b)?;
    let streams = streams.to_string();
    let options = ["--strategy", "pre-copy", "--compression", "none", "--streams", &streams];
    let report = migrating::migrate(source, destination, &options)?;
    let used = processor(a)? + processor(b)? - before;
    pair.remove()?;
    let first = &report["rounds"][0];
    let number = |name: &str| first[name].as_f64().with_context(|| format!("no {name}: {report}"));
    let bytes = number("bytes")?;
    Ok(Speed { rate: number("rate")?, processor: used / bytes * 1e9 })
}

/// Processor seconds of a host's daemon so far.
fn processor(host: &Host) -> Result<f64> {
    const TICKS: f64 = 100.0;
    let stat = host.read_file(&format!("/proc/{}/stat", host.fastmigd_pid()?))?;
    let stat = String::from_utf8_lossy(&stat).into_owned();
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().skip(11).take(2));
    let ticks = fields.into_iter().flatten().filter_map(|field| field.parse::<f64>().ok());
    Ok(ticks.sum::<f64>() / TICKS)
}
