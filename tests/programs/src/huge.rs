//! Huge pages, and how fast words of them are read at random: what it costs when they are split.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use nix::sys::mman::MmapAdvise;
use serde_json::{json, Value};

use crate::filled::Filled;
use crate::pattern::{Random, PAGES_PER_MIB};
use crate::pauses::Pauses;
use crate::server::{serve, Answer};
use crate::speed::Speed;
use crate::sys::{Mapping, Source};

/// Reads between two additions to the count.
const BATCH: usize = 4096;

#[derive(Args)]
pub(crate) struct Options {
    /// Where it listens
    #[arg(long, default_value_t = 7900)]
    port: u16,
    /// Its memory
    #[arg(long, default_value_t = 256)]
    mib: usize,
    /// Pages that it writes each second
    #[arg(long, default_value_t = 0)]
    writes: u64,
    /// Pages that were set aside, in place of what the kernel makes huge by itself
    #[arg(long)]
    hugetlb: bool,
}

struct Huge {
    memory: Arc<Filled>,
    speed: Arc<Speed>,
    /// What was read, so that the reading is not optimised away.
    sum: Arc<AtomicU64>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let pages = options.mib * PAGES_PER_MIB;
    let source = if options.hugetlb { Source::Hugetlb } else { Source::Private };
    let mapping = Mapping::new(source, pages).context("no huge pages")?;
    if !options.hugetlb {
        mapping.advise(&(0..pages), MmapAdvise::MADV_HUGEPAGE).context("the kernel has no huge pages")?;
    }
    let memory = Arc::new(Filled::of(mapping, 0));
    let huge = Huge { memory: Arc::clone(&memory), speed: Speed::watch(), sum: Arc::default() };
    let (speed, sum) = (Arc::clone(&huge.speed), Arc::clone(&huge.sum));
    let reader = Arc::clone(&memory);
    std::thread::spawn(move || read(&reader, &speed, &sum));
    if options.writes > 0 {
        let pause = Duration::from_secs(1) / u32::try_from(options.writes).unwrap_or(u32::MAX);
        std::thread::spawn(move || write(&memory, pause));
    }
    serve(options.port, huge, Pauses::watch())
}

fn read(memory: &Filled, speed: &Speed, sum: &AtomicU64) {
    let mut random = Random::new(0);
    loop {
        let read = (0..BATCH).fold(0, |sum: u64, _| {
            let number = random.next();
            let page = usize::try_from(number >> 16).unwrap_or(0) % memory.pages();
            sum.wrapping_add(memory.glance(page, (number & 0x1ff) as usize))
        });
        sum.fetch_add(read, Ordering::Relaxed);
        speed.add(BATCH as u64);
    }
}

fn write(memory: &Filled, pause: Duration) {
    let mut random = Random::new(1);
    loop {
        std::thread::sleep(pause);
        memory.write(std::iter::once(random.below(memory.pages())));
    }
}

/// Kibibytes of this process that are in huge pages.
fn huge_kib() -> u64 {
    let smaps = fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let line = smaps.lines().find_map(|line| line.strip_prefix("AnonHugePages:"));
    line.and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse().ok()).unwrap_or(0)
}

impl Answer for Huge {
    fn answer(&self, request: &str) -> Value {
        match request {
            "check" => self.memory.check(),
            "stat" => {
                let mut told = self.speed.tell();
                told["program"] = json!("huge");
                told["huge_kib"] = json!(huge_kib());
                told["sum"] = json!(self.sum.load(Ordering::Relaxed));
                told
            }
            _ => Value::Null,
        }
    }
}
