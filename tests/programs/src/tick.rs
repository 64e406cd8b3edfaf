//! Processes with memory that is full, and written at a given rate: what most applications look like.

use std::sync::Arc;

use anyhow::{ensure, Result};
use clap::Args;
use serde_json::{json, Value};

use crate::family::{all_ok, sum, Family, Role};
use crate::filled::Filled;
use crate::marks;
use crate::pace::Pace;
use crate::pattern::{Random, PAGE, PAGES_PER_MIB};
use crate::pauses::Pauses;
use crate::server::{serve, Answer};

#[derive(Args)]
pub(crate) struct Options {
    /// Where it listens
    #[arg(long, default_value_t = 7900)]
    port: u16,
    /// So many processes
    #[arg(long, default_value_t = 1)]
    processes: usize,
    /// The memory of each
    #[arg(long, default_value_t = 16)]
    mib: usize,
    /// MiB that all of them write each second, in pages all over their memory
    #[arg(long, default_value_t = 0)]
    writes: usize,
    /// Threads that write, in each
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Each process fills its own memory (this is so anyway)
    #[arg(long, conflicts_with = "forked_after")]
    forked_before: bool,
    /// The first process fills its memory and forks the others, which share its pages until they write
    #[arg(long)]
    forked_after: bool,
}

/// One process of them.
struct Process {
    memory: Arc<Filled>,
    family: Family,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    ensure!(options.processes > 0 && options.threads > 0, "there must be a process, and a thread");
    let pages = options.mib * PAGES_PER_MIB;
    let inherited = if options.forked_after { Some(Filled::new(0, pages)?) } else { None };
    let role = Family::fork(options.processes)?;
    let number = if let Role::Child(requests) = &role { requests.number as u64 } else { 0 };
    let mut memory = inherited.map_or_else(|| Filled::new(number, pages), Ok)?;
    memory.inherit(number);
    marks::set()?;
    let memory = Arc::new(memory);
    for thread in 0..options.threads {
        start_writer(&memory, thread, options);
    }
    match role {
        Role::Parent(family) => serve(options.port, Process { memory, family }, Pauses::watch()),
        Role::Child(requests) => {
            let process = Process { memory, family: Family::default() };
            requests.serve(|request| process.answer(request))
        }
    }
}

fn start_writer(memory: &Arc<Filled>, thread: usize, options: &Options) {
    let mut pace = Pace::of(options.writes, options.threads * options.processes);
    let (memory, threads) = (Arc::clone(memory), options.threads);
    let (own, mut random) = (memory.pages() / threads, Random::new(thread as u64));
    if options.writes > 0 {
        std::thread::spawn(move || loop {
            memory.write((0..pace.wait()).map(|_| random.below(own) * threads + thread));
        });
    }
}

impl Answer for Process {
    fn answer(&self, request: &str) -> Value {
        let own = match request {
            "check" => self.memory.check(),
            "stat" => json!({ "written": self.memory.written() * PAGE as u64, "pages": self.memory.pages() }),
            _ => return Value::Null,
        };
        let all = [vec![own], self.family.ask(request)].concat();
        match request {
            "check" => all_ok(&all),
            _ => json!({
                "program": "tick",
                "processes": all.len(),
                "pages": sum(&all, "pages"),
                "written": sum(&all, "written"),
            }),
        }
    }
}
