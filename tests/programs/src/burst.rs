//! Memory that is written as fast as can be: more than any link carries.

use std::sync::Arc;

use anyhow::{ensure, Result};
use clap::Args;
use serde_json::{json, Value};

use crate::filled::Filled;
use crate::pattern::{Random, PAGE, PAGES_PER_MIB};
use crate::pauses::Pauses;
use crate::server::{serve, Answer};
use crate::speed::Speed;

/// Pages between two looks at whether somebody wants a standstill.
const BATCH: usize = 64;

#[derive(Args)]
pub(crate) struct Options {
    /// Where it listens
    #[arg(long, default_value_t = 7900)]
    port: u16,
    /// Its memory
    #[arg(long, default_value_t = 256)]
    mib: usize,
    /// Threads that write
    #[arg(long, default_value_t = 1)]
    threads: usize,
}

struct Burst {
    memory: Arc<Filled>,
    speed: Arc<Speed>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    ensure!(options.threads > 0, "there must be a thread");
    let memory = Arc::new(Filled::new(0, options.mib * PAGES_PER_MIB)?);
    let speed = Speed::watch();
    for thread in 0..options.threads {
        let (memory, speed, threads) = (Arc::clone(&memory), Arc::clone(&speed), options.threads);
        std::thread::spawn(move || write_all(&memory, &speed, thread, threads));
    }
    serve(options.port, Burst { memory, speed }, Pauses::watch())
}

fn write_all(memory: &Filled, speed: &Speed, thread: usize, threads: usize) {
    let mut random = Random::new(thread as u64);
    let own = memory.pages() / threads;
    loop {
        memory.write((0..BATCH).map(|_| random.below(own) * threads + thread));
        speed.add(BATCH as u64);
        // Whoever wants to check must get the lock.
        std::thread::yield_now();
    }
}

impl Answer for Burst {
    fn answer(&self, request: &str) -> Value {
        match request {
            "check" => self.memory.check(),
            "stat" => {
                let mut told = self.speed.tell();
                told["program"] = json!("burst");
                told["written"] = json!(self.memory.written() * PAGE as u64);
                told
            }
            _ => Value::Null,
        }
    }
}
