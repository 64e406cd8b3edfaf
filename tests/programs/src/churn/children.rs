//! Children: each goes on with a copy of all parts for a while, checks itself, and ends or executes itself anew.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{exit, Command};

use anyhow::{Context, Result};
use clap::Args;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::wait::{waitpid, WaitPidFlag, WaitStatus};
use nix::unistd::{pipe2, ForkResult, Pid};
use serde_json::{json, Value};

use super::part::Part;
use super::THREADS;
use crate::family::{all_ok, sum};
use crate::pattern::Random;
use crate::sys::fork_process;

/// How a child ends: well, well after it has executed itself, with memory that is not as it must be, without its parent.
const WELL: i32 = 0;
const WELL_AGAIN: i32 = 10;
const WRONG: i32 = 3;
const LOST: i32 = 4;

/// Steps of a life, one each millisecond or so.
const SHORTEST: usize = 200;
const LONGEST: usize = 3000;
const STEP_MS: u16 = 1;

/// One child in so many executes itself.
const EXECUTES: usize = 3;

/// A process that executed itself.
#[derive(Args)]
pub(crate) struct Again {
    #[arg(long)]
    seed: u64,
    /// Its number among all children
    #[arg(long)]
    number: u64,
    /// Pages
    #[arg(long)]
    budget: usize,
}

/// The children of the first process.
#[derive(Debug)]
pub(super) struct Children {
    alive: Vec<Child>,
    most: usize,
    seed: u64,
    /// Pages of a part.
    budget: usize,
    forked: u64,
    ended: u64,
    executed: u64,
    faults: Vec<String>,
}

#[derive(Debug)]
struct Child {
    pid: Pid,
    requests: File,
    answers: BufReader<File>,
}

impl Children {
    /// None yet, and at most `most` at a time.
    pub(super) fn new(most: usize, seed: u64, budget: usize) -> Self {
        Self { alive: Vec::new(), most, seed, budget, forked: 0, ended: 0, executed: 0, faults: Vec::new() }
    }

    pub(super) fn is_full(&self) -> bool {
        self.alive.len() >= self.most
    }

    /// Looks which have ended, and how.
    pub(super) fn reap(&mut self) {
        let (mut ended, mut executed) = (0, 0);
        let faults = &mut self.faults;
        self.alive.retain(|child| {
            match waitpid(child.pid, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) => return true,
                Ok(WaitStatus::Exited(_, WELL)) => {}
                Ok(WaitStatus::Exited(_, WELL_AGAIN)) => executed += 1,
                other => faults.push(format!("a child ended so: {other:?}")),
            }
            ended += 1;
            false
        });
        self.ended += ended;
        self.executed += executed;
    }

    /// Forks one, which has its own life with `parts` and does not come back from here.
    pub(super) fn fork(&mut self, parts: &mut [&mut Part], seed: u64) {
        if let Err(error) = self.try_fork(parts, seed) {
            self.faults.push(format!("cannot fork: {error}"));
        }
    }

    fn try_fork(&mut self, parts: &mut [&mut Part], seed: u64) -> Result<()> {
        let (requests, to_child) = pipe2(OFlag::O_CLOEXEC)?;
        let (from_child, answers) = pipe2(OFlag::O_CLOEXEC)?;
        self.forked += 1;
        if let ForkResult::Parent { child } = fork_process()? {
            let answers = BufReader::new(from_child.into());
            self.alive.push(Child { pid: child, requests: to_child.into(), answers });
            return Ok(());
        }
        // Or a brother would not see the end of its parent.
        drop((to_child, from_child));
        self.alive.clear();
        let number = self.forked;
        for (thread, part) in (0..).zip(parts.iter_mut()) {
            part.depart(seed.wrapping_add(thread), number * THREADS as u64 + thread);
        }
        let mut random = Random::new(seed);
        let mut life = Life { requests: requests.into(), answers: answers.into() };
        life.live(parts, &mut random);
        if random.below(EXECUTES) == 0 {
            life.execute(&Again { seed: random.next(), number, budget: self.budget * THREADS });
        }
        exit(WELL)
    }

    /// What each of them says of its memory, and what became of those that have ended.
    pub(super) fn check(&mut self) -> Vec<Value> {
        let answers = self.alive.iter_mut().filter_map(Child::check);
        let mut checks: Vec<Value> = answers.collect();
        self.reap();
        if let Some(fault) = self.faults.first() {
            checks.push(json!({ "ok": false, "wrong": fault }));
        }
        checks
    }

    /// How many there were.
    pub(super) fn tell(&self) -> Value {
        json!({
            "seed": self.seed,
            "children": self.alive.len(),
            "forked": self.forked,
            "ended": self.ended,
            "executed": self.executed,
        })
    }
}

impl Child {
    /// Nothing when it has ended meanwhile: how, is found when it is reaped.
    fn check(&mut self) -> Option<Value> {
        self.requests.write_all(b"?").ok()?;
        let mut line = String::new();
        self.answers.read_line(&mut line).ok()?;
        serde_json::from_str(&line).ok()
    }
}

/// What a child hears its parent by.
struct Life {
    requests: File,
    answers: File,
}

impl Life {
    /// Lives for a while, and ends the process when its memory is not as it must be.
    fn live(&mut self, parts: &mut [&mut Part], random: &mut Random) {
        for _ in 0..SHORTEST + random.below(LONGEST - SHORTEST) {
            if self.listen(parts).is_err() {
                exit(LOST);
            }
            let any = random.below(parts.len());
            parts[any].step();
        }
        let told = check(parts);
        if told["ok"] != true {
            eprintln!("process {}: {told}", std::process::id());
            exit(WRONG);
        }
    }

    /// Waits a moment for a request, and answers it.
    fn listen(&mut self, parts: &[&mut Part]) -> io::Result<()> {
        let mut polled = [PollFd::new(self.requests.as_fd(), PollFlags::POLLIN)];
        match poll(&mut polled, PollTimeout::from(STEP_MS)) {
            // What a dump interrupts in the middle of its wait ends early.
            Ok(0) | Err(Errno::EINTR) => return Ok(()),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        self.requests.read_exact(&mut [0])?;
        writeln!(self.answers, "{}", check(parts))
    }

    /// The same program, but with nothing in its memory.
    fn execute(self, again: &Again) {
        let numbers = [again.seed, again.number].map(|number| number.to_string());
        let error = Command::new("/proc/self/exe")
            .args(["churn-again", "--seed", &numbers[0], "--number", &numbers[1], "--budget"])
            .arg(again.budget.to_string())
            .stdin(self.requests)
            .stdout(self.answers)
            .exec();
        eprintln!("cannot execute: {error}");
        exit(WRONG)
    }
}

fn check(parts: &[&mut Part]) -> Value {
    let checks: Vec<Value> = parts.iter().map(|part| part.check()).collect();
    let mut told = all_ok(&checks);
    told["write_only"] = json!(sum(&checks, "write_only"));
    told
}

/// The life of one that executed itself: its parent speaks on its standard streams.
pub(crate) fn run_again(again: &Again) -> Result<()> {
    let [requests, answers] =
        [io::stdin().as_fd(), io::stdout().as_fd()].map(|stream| stream.try_clone_to_owned().map(File::from));
    let mut life = Life {
        requests: requests.context("no standard input")?,
        answers: answers.context("no standard output")?,
    };
    let mut random = Random::new(again.seed);
    let mut part = Part::new(again.seed, again.number * THREADS as u64, again.budget);
    life.live(&mut [&mut part], &mut random);
    exit(WELL_AGAIN)
}
