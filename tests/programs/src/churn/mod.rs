//! Memory that changes in every way that there is, at random: eight threads map, write, grow, move, unmap, protect and discard,
//! and the process forks children that go on with a copy of it all, end, or execute themselves anew.
//!
//! Each thread has a [`part`] of its own, which knows what each page of its [`region`]s holds and how it is protected. A
//! child ends with status 0 only when all of its memory is as it must be.

mod children;
mod maps;
mod part;
mod region;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use serde_json::{json, Value};

use self::children::Children;
pub(crate) use self::children::{run_again, Again};
use self::part::Part;
use crate::family::{all_ok, sum};
use crate::pattern::{Random, PAGES_PER_MIB};
use crate::pauses::Pauses;
use crate::server::{serve, Answer};

const THREADS: usize = 8;

#[derive(Args)]
pub(crate) struct Options {
    /// Where it listens
    #[arg(long, default_value_t = 7900)]
    port: u16,
    /// Another seed, another history
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// What it holds at most, its children included
    #[arg(long, default_value_t = 256)]
    mib: usize,
    /// Children at a time
    #[arg(long, default_value_t = 3)]
    children: usize,
    /// Microseconds between two steps of a thread
    #[arg(long, default_value_t = 500)]
    pause_us: u64,
    /// Milliseconds between two forks
    #[arg(long, default_value_t = 100)]
    fork_ms: u64,
}

struct Churn {
    parts: Vec<Mutex<Part>>,
    children: Mutex<Children>,
    steps: AtomicU64,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let budget = options.mib * PAGES_PER_MIB / THREADS / (options.children + 1);
    let part = |thread: usize| Part::new(options.seed << 8 | thread as u64, thread as u64, budget);
    let churn = Arc::new(Churn {
        parts: (0..THREADS).map(|thread| Mutex::new(part(thread))).collect(),
        children: Mutex::new(Children::new(options.children, options.seed, budget)),
        steps: AtomicU64::new(0),
    });
    for thread in 0..THREADS {
        let (churn, pause) = (Arc::clone(&churn), Duration::from_micros(options.pause_us));
        std::thread::spawn(move || churn.live(thread, pause));
    }
    let (forking, pause, seed) = (Arc::clone(&churn), Duration::from_millis(options.fork_ms), options.seed);
    std::thread::spawn(move || forking.fork(Random::new(seed), pause));
    serve(options.port, churn, Pauses::watch())
}

impl Churn {
    fn live(&self, thread: usize, pause: Duration) {
        loop {
            self.parts[thread].lock().unwrap_or_else(PoisonError::into_inner).step();
            self.steps.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(pause);
        }
    }

    /// Forks again and again. A fork holds every lock, so that the child finds all parts whole.
    fn fork(&self, mut random: Random, pause: Duration) {
        loop {
            std::thread::sleep(pause);
            let mut children = self.children.lock().unwrap_or_else(PoisonError::into_inner);
            children.reap();
            if children.is_full() {
                continue;
            }
            let mut parts: Vec<_> =
                self.parts.iter().map(|part| part.lock().unwrap_or_else(PoisonError::into_inner)).collect();
            let mut parts: Vec<&mut Part> = parts.iter_mut().map(|part| &mut **part).collect();
            children.fork(&mut parts, random.next());
        }
    }

    fn check(&self) -> Value {
        let own = self.parts.iter().map(|part| part.lock().unwrap_or_else(PoisonError::into_inner).check());
        let mut checks: Vec<Value> = own.collect();
        checks.extend(self.children.lock().unwrap_or_else(PoisonError::into_inner).check());
        let mut told = all_ok(&checks);
        told["processes"] = json!(1 + checks.len() - THREADS);
        told["write_only"] = json!(sum(&checks, "write_only"));
        told
    }

    fn stat(&self) -> Value {
        let mut told = self.children.lock().unwrap_or_else(PoisonError::into_inner).tell();
        told["program"] = json!("churn");
        told["steps"] = json!(self.steps.load(Ordering::Relaxed));
        told
    }
}

impl Answer for Arc<Churn> {
    fn answer(&self, request: &str) -> Value {
        match request {
            "check" => self.check(),
            "stat" => self.stat(),
            _ => Value::Null,
        }
    }
}
