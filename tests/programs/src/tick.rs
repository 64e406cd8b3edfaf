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
    /// MiB that all of them read each second, likewise
    #[arg(long, default_value_t = 0)]
    reads: usize,
    /// MiB that all of them write in all; then they rest
    #[arg(long)]
    at_most: Option<usize>,
    /// With huge pages, where the kernel has some
    #[arg(long)]
    huge: bool,
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

/// More would make what is rounded away worth a look.
const THREADS_AT_MOST: u64 = 64;

/// One process of them.
struct Process {
    memory: Arc<Filled>,
    /// Pages that it writes in all.
    at_most: Option<u64>,
    family: Family,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    ensure!(options.processes > 0 && options.threads > 0, "there must be a process, and a thread");
    let pages = options.mib * PAGES_PER_MIB;
    let fill = |number| if options.huge { Filled::huge(number, pages) } else { Filled::new(number, pages) };
    let inherited = if options.forked_after { Some(fill(0)?) } else { None };
    let role = Family::fork(options.processes)?;
    let number = if let Role::Child(requests) = &role { requests.number as u64 } else { 0 };
    let mut memory = inherited.map_or_else(|| fill(number), Ok)?;
    memory.inherit(number);
    marks::set()?;
    let memory = Arc::new(memory);
    for thread in 0..options.threads {
        start_writer(&memory, thread, options);
    }
    let at_most = options.at_most.map(|mib| (mib * PAGES_PER_MIB / options.processes) as u64);
    start_reader(&memory, options);
    match role {
        Role::Parent(family) => serve(options.port, Process { memory, at_most, family }, Pauses::watch()),
        Role::Child(requests) => {
            let process = Process { memory, at_most, family: Family::default() };
            requests.serve(|request| process.answer(request))
        }
    }
}

fn start_writer(memory: &Arc<Filled>, thread: usize, options: &Options) {
    let mut pace = Pace::of(options.writes, options.threads * options.processes);
    let (memory, threads) = (Arc::clone(memory), options.threads);
    let (own, mut random) = (memory.pages() / threads, Random::new(thread as u64));
    let mut left =
        options.at_most.map_or(usize::MAX, |mib| mib * PAGES_PER_MIB / options.processes / threads);
    if options.writes > 0 {
        std::thread::spawn(move || {
            while left > 0 {
                let now = pace.wait().min(left);
                memory.write((0..now).map(|_| random.below(own) * threads + thread));
                left -= now;
            }
        });
    }
}

fn start_reader(memory: &Arc<Filled>, options: &Options) {
    if options.reads == 0 {
        return;
    }
    let mut pace = Pace::of(options.reads, options.processes);
    let (memory, mut random) = (Arc::clone(memory), Random::new(u64::MAX));
    std::thread::spawn(move || loop {
        for _ in 0..pace.wait() {
            std::hint::black_box(memory.read(random.below(memory.pages())));
        }
    });
}

impl Answer for Process {
    fn answer(&self, request: &str) -> Value {
        let own = match request {
            "check" => self.memory.check(),
            "stat" => {
                let written = self.memory.written();
                // Each thread's share is rounded down.
                let rests = self.at_most.is_none_or(|most| written + THREADS_AT_MOST >= most);
                json!({ "written": written * PAGE as u64, "pages": self.memory.pages(), "rests": rests })
            }
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
                "rests": all.iter().all(|one| one["rests"] == true),
            }),
        }
    }
}
