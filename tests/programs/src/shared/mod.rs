//! Memory that several processes share, in all ways that there are: each process writes pages of its own, by mapping and by
//! write(2), and knows those of all others.
//!
//! The generations of all pages lie in shared memory as well; each process counts for itself what it has written.

mod segment;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use anyhow::{ensure, Context, Result};
use clap::Args;
use serde_json::{json, Value};

use self::segment::{Segment, Way};
use crate::family::{all_ok, sum, Family, Role};
use crate::pace::Pace;
use crate::pattern::{Random, PAGE, PAGES_PER_MIB, WORDS};
use crate::pauses::Pauses;
use crate::server::{serve, Answer};
use crate::sys::{Mapping, Source};

#[derive(Args)]
pub(crate) struct Options {
    /// Where it listens
    #[arg(long, default_value_t = 7900)]
    port: u16,
    /// So many processes
    #[arg(long, default_value_t = 3)]
    processes: usize,
    /// The memory of each of the five kinds
    #[arg(long, default_value_t = 16)]
    mib: usize,
    /// These kinds only
    #[arg(long, value_delimiter = ',')]
    kinds: Vec<String>,
    /// MiB that all of them write each second, in all kinds together
    #[arg(long, default_value_t = 10)]
    writes: usize,
}

/// What all processes have.
struct Memory {
    segments: Vec<Segment>,
    /// A word for each page of each segment.
    generations: Mapping,
    pages: usize,
    processes: usize,
}

struct Process {
    number: usize,
    memory: Memory,
    written: AtomicU64,
    paused: AtomicBool,
    /// Held for reading while pages are written.
    moving: RwLock<()>,
}

/// The first process, and its children.
struct Parent {
    process: Arc<Process>,
    family: Family,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    ensure!(options.processes > 0, "there must be a process");
    let memory = Memory::new(options.mib * PAGES_PER_MIB, options.processes, &options.kinds)?;
    let role = Family::fork(options.processes)?;
    let number = if let Role::Child(requests) = &role { requests.number } else { 0 };
    let process = Arc::new(Process {
        number,
        memory,
        written: AtomicU64::new(0),
        paused: AtomicBool::new(false),
        moving: RwLock::new(()),
    });
    let writer = Arc::clone(&process);
    let pace = Pace::of(options.writes, options.processes);
    std::thread::spawn(move || writer.write(pace));
    match role {
        Role::Parent(family) => serve(options.port, Parent { process, family }, Pauses::watch()),
        Role::Child(requests) => requests.serve(|request| process.obey(request)),
    }
}

impl Memory {
    fn new(pages: usize, processes: usize, kinds: &[String]) -> Result<Self> {
        let mut segments = Segment::all(pages)?;
        segments.retain(|segment| kinds.is_empty() || kinds.iter().any(|kind| kind == segment.name()));
        ensure!(!segments.is_empty(), "there is no such kind: {kinds:?}");
        let words = pages * segments.len();
        let generations = Mapping::new(Source::Shared, words.div_ceil(WORDS)).context("no shared memory")?;
        for segment in &segments {
            for page in 0..pages {
                segment.write(page, 0, Way::Mapping)?;
            }
        }
        Ok(Self { segments, generations, pages, processes })
    }

    fn place(&self, segment: usize, page: usize) -> (usize, usize) {
        let index = segment * self.pages + page;
        (index / WORDS, index % WORDS)
    }

    fn generation(&self, segment: usize, page: usize) -> u64 {
        let (page, word) = self.place(segment, page);
        self.generations.word(page, word)
    }

    /// Gives a page its next content, by the one way or the other.
    fn advance(&self, segment: usize, page: usize) -> Result<()> {
        let generation = self.generation(segment, page) + 1;
        let way = if generation % 2 == 0 { Way::Mapping } else { Way::Call };
        self.segments[segment].write(page, generation, way)?;
        let (place, word) = self.place(segment, page);
        self.generations.set_word(place, word, generation);
        Ok(())
    }

    /// The first page that is not as it must be, seen by mapping or by read(2).
    fn wrong(&self, way: Way) -> Option<Value> {
        let places =
            (0..self.segments.len()).flat_map(|segment| (0..self.pages).map(move |page| (segment, page)));
        places.into_iter().find_map(|(segment, page)| {
            let generation = self.generation(segment, page);
            let fault = self.segments[segment].fault(page, generation, way)?;
            Some(json!({ "page": page, "generation": generation, "fault": fault }))
        })
    }

    /// How often pages were written, by all.
    fn generations(&self) -> u64 {
        (0..self.generations.pages() * WORDS)
            .map(|index| self.generations.word(index / WORDS, index % WORDS))
            .sum()
    }
}

impl Process {
    fn write(&self, mut pace: Pace) {
        let mut random = Random::new(self.number as u64);
        let own = self.memory.pages / self.memory.processes;
        loop {
            let due = pace.wait();
            let _moving = self.moving.read().unwrap_or_else(PoisonError::into_inner);
            if self.paused.load(Ordering::Relaxed) {
                continue;
            }
            for _ in 0..due {
                let segment = random.below(self.memory.segments.len());
                let page = random.below(own) * self.memory.processes + self.number;
                // A failed write is found by the next check.
                if self.memory.advance(segment, page).is_ok() {
                    self.written.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    /// What a process does when its parent, or the parent itself, says so.
    fn obey(&self, request: &str) -> Value {
        match request {
            "pause" | "resume" => {
                let _still = self.moving.write().unwrap_or_else(PoisonError::into_inner);
                self.paused.store(request == "pause", Ordering::Relaxed);
                json!({ "ok": true })
            }
            "check" => {
                let way = if self.number % 2 == 0 { Way::Mapping } else { Way::Call };
                let wrong = self.memory.wrong(way).map(|mut wrong| {
                    wrong["process"] = json!(self.number);
                    wrong
                });
                let pages = self.memory.pages * self.memory.segments.len();
                json!({ "ok": wrong.is_none(), "pages": pages, "wrong": wrong, "written": self.pages_written() })
            }
            "stat" => json!({ "written": self.pages_written() }),
            _ => Value::Null,
        }
    }

    fn pages_written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }
}

impl Parent {
    fn all(&self, request: &str) -> Vec<Value> {
        // In this order: no child may write any more when the first looks.
        let children = self.family.ask(request);
        [vec![self.process.obey(request)], children].concat()
    }

    fn check(&self) -> Value {
        self.all("pause");
        let checks = self.all("check");
        let (written, generations) = (sum(&checks, "written"), self.process.memory.generations());
        self.all("resume");
        let mut told = all_ok(&checks);
        if told["ok"] == true && written != generations {
            told["ok"] = json!(false);
            told["wrong"] = json!({ "written": written, "generations": generations });
        }
        told
    }
}

impl Answer for Parent {
    fn answer(&self, request: &str) -> Value {
        match request {
            "check" => self.check(),
            "stat" => {
                let all = self.all("stat");
                json!({ "program": "shared", "processes": all.len(), "written": sum(&all, "written") * PAGE as u64 })
            }
            _ => Value::Null,
        }
    }
}
