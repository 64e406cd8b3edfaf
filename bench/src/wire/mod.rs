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
use clap::Args;
use fastmig_tests::apps::memory::{image, Pair};
use fastmig_tests::apps::migrating;
use fastmig_tests::framework::Host;

use crate::hosts;

/// What is measured.
#[derive(Args, Debug)]
pub struct Options {
    /// MiB that travel
    #[arg(long, default_value_t = 1024)]
    mib: usize,
    /// Streams, with commas between them
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 4])]
    streams: Vec<usize>,
    /// Measurements of each kind
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

/// One measurement.
#[derive(Debug, Clone, Copy)]
struct Speed {
    /// Bytes per second.
    rate: f64,
    /// Processor seconds for each GB.
    processor: f64,
}

/// Measures, and prints a table.
///
/// # Errors
/// When the hosts cannot be made, or nothing travels.
pub fn run(options: &Options) -> Result<()> {
    let [a, b] = hosts::up(&[image()])?;
    println!("| streams | fastmig | processor s per GB | tcp | processor s per GB | ratio |");
    println!("|---|---|---|---|---|---|");
    for &streams in &options.streams {
        let (mut ours, mut plain) = (Vec::new(), Vec::new());
        for _ in 0..options.rounds {
            plain.push(plain::measure([&a, &b], streams, (options.mib as u64) << 20)?);
            ours.push(moved([&a, &b], streams, options.mib)?);
        }
        let (ours, plain) = (best(&ours).context("no measurement")?, best(&plain).context("no measurement")?);
        let cells = |speed: Speed| format!("{:.0} MB/s | {:.2}", speed.rate / 1e6, speed.processor);
        println!("| {streams} | {} | {} | {:.2} |", cells(ours), cells(plain), ours.rate / plain.rate);
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

/// The machine is never quiet: the fastest says most of what it can do.
fn best(speeds: &[Speed]) -> Option<Speed> {
    speeds.iter().copied().max_by(|one, other| one.rate.total_cmp(&other.rate))
}
