//! How long a program stands still when it moves to another host, and what the move takes.
//!
//! The program looks at CLOCK_REALTIME each millisecond (CLOCK_MONOTONIC hides the gap after a restore): `gap` is the longest
//! time that it saw none. `client-gap` is what a client outside saw. Time, bytes on the network, processor time and memory are
//! those of both hosts, read from outside, so that every tool is measured alike. Afterwards all memory is looked at.
//!
//! - [`work`]: what is moved. [`tool`]: what moves it, each in a file of its own.

mod applications;
mod clients;
mod criu;
mod fastmig;
pub(super) mod runc;
mod tool;
mod tools;
mod work;

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use fastmig_tests::apps::memory::{image, Program};
use fastmig_tests::framework::process::wait_until;

use crate::bench::Bench;
use crate::figures::Metric;
use crate::outside::Outside;
use crate::usage::{Usage, Used};
use tool::{Hosts, Tool};
use work::Work;

/// What it does before it is moved.
const LIFE: Duration = Duration::from_millis(500);
const SOON: Duration = Duration::from_secs(10);
/// Where the program listens.
const PORT: u16 = 7900;

const GAP: Metric = Metric::new("gap", "ms");
const CLIENT_GAP: Metric = Metric::new("client-gap", "ms");
const TOTAL: Metric = Metric::new("total", "ms");
const SENT: Metric = Metric::new("bytes-sent", "MiB");
const PROCESSOR: Metric = Metric::new("cpu", "s");
const PEAK: Metric = Metric::new("peak-memory", "MiB");

/// What one move was like.
struct Moved {
    gap: f64,
    client_gap: f64,
    total: f64,
    used: Used,
    phases: Vec<(&'static str, f64)>,
}

/// Measures.
pub(super) fn run(bench: &mut Bench) -> Result<()> {
    only(bench, &[], &[])
}

/// The same with these works and tools alone; all of them when none are named. They count as this suite's.
pub(super) fn only(bench: &mut Bench, works: &[&str], tools: &[&str]) -> Result<()> {
    bench.within("migration", |bench| {
        let hosts = bench.hosts_with_clients(&[image()])?;
        let named = |names: &[&str], name: &str| names.is_empty() || names.contains(&name);
        let mut usable = usable(bench, &hosts, |tool| named(tools, tool));
        for round in 0..bench.rounds(3, 5) {
            for work in Work::all(bench.how.quick).iter().filter(|work| named(works, &work.name())) {
                take_turns(bench, &hosts, &mut usable, work, round);
            }
            if works.is_empty() && (round == 0 || bench.has_time()) {
                applications::take_turns(bench, round)?;
            }
        }
        Ok(())
    })
}

/// One round of one work. A tool that fails is not tried again: that would cost the others their time.
fn take_turns(bench: &mut Bench, hosts: &Hosts, tools: &mut Vec<Box<dyn Tool>>, work: &Work, round: usize) {
    let quick = bench.how.quick;
    tools.retain(|tool| {
        let rounds = bench.how.rounds.unwrap_or(tool.rounds()[usize::from(!quick)]);
        let name = [work.name().as_str(), tool.name()].join(" ");
        let is_due = bench.wants(&[&name]) && round < rounds && tool.takes(work, quick);
        if !is_due || (round > 0 && !bench.has_time()) {
            return true;
        }
        let moved = measure(hosts, tool.as_ref(), work);
        match &moved {
            Ok(moved) => note(bench, tool.as_ref(), work, moved),
            Err(error) => went_wrong(bench, tool.name(), &work.name(), error),
        }
        moved.is_ok()
    });
}

/// A failure of ours is one of the run; others are left out, with the reason.
fn went_wrong(bench: &mut Bench, tool: &str, work: &str, error: &anyhow::Error) {
    if tool.starts_with("fastmig") {
        bench.fail(&format!("{work} {tool}"), error);
    } else {
        bench.leave_out(&format!("{tool} for {work}"), &format!("{error:#}"));
    }
}

fn usable(bench: &mut Bench, hosts: &Hosts, is_named: impl Fn(&str) -> bool) -> Vec<Box<dyn Tool>> {
    let mut usable = Vec::new();
    for tool in tools::all().into_iter().filter(|tool| is_named(tool.name())) {
        if let Some(reason) = tool.missing(hosts) {
            bench.leave_out(tool.name(), &reason);
        } else if let Err(error) = tool.prepare(hosts) {
            bench.fail(tool.name(), &error);
        } else {
            usable.push(tool);
        }
    }
    usable
}

fn measure(hosts: &Hosts, tool: &dyn Tool, work: &Work) -> Result<Moved> {
    let words = work.words();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut started = tool.start(hosts, &words).context("cannot start it")?;
    let programs = [Program::on(&hosts[0])?, Program::on(&hosts[1])?];
    sleep(LIFE);
    let life = programs[0].life()?;
    programs[0].reset()?;
    let client = Outside::start([&hosts[0], &hosts[1]], PORT)?;
    let usage = Usage::start(hosts)?;
    let begun = Instant::now();
    let went = started.go();
    let total = begun.elapsed();
    let (used, client_gap) = (usage.stop(), client.stop());
    let phases = went?;
    programs[1].wait_until_up()?;
    // Its clock must have gone on, or it does not know of the gap yet.
    let ticks = || Ok::<_, anyhow::Error>(programs[1].ask("stat")?["ticks"].as_u64());
    let before = ticks()?;
    wait_until(SOON, || ticks().is_ok_and(|now| now > before)).context("its clock stands still")?;
    let gap = programs[1].pause()?;
    programs[1].check()?;
    ensure!(programs[1].life()? == life, "this is another program");
    Ok(Moved {
        gap: milliseconds(gap),
        client_gap: milliseconds(client_gap?),
        total: milliseconds(total),
        used: used?,
        phases,
    })
}

fn note(bench: &mut Bench, tool: &dyn Tool, work: &Work, moved: &Moved) {
    let (work, name) = (work.name(), tool.name());
    bench.add(&work, name, GAP, moved.gap);
    bench.note(&work, name, CLIENT_GAP, moved.client_gap);
    bench.note(&work, name, TOTAL, moved.total);
    bench.note(&work, name, SENT, moved.used.sent);
    bench.note(&work, name, PROCESSOR, moved.used.processor);
    let mut sum = 0.0;
    for (program, peak) in &moved.used.peaks {
        let ours = tool.programs().iter().find(|ours| program.starts_with(**ours));
        sum += if ours.is_some() { *peak } else { 0.0 };
        if let Some(metric) = peak_of(program).filter(|_| name.starts_with("fastmig")) {
            bench.note(&work, name, metric, *peak);
        }
    }
    bench.note(&work, name, PEAK, sum);
    for (phase, time) in &moved.phases {
        bench.note(&work, name, Metric::new(phase, "ms"), *time);
    }
}

/// What FastMig's CRIU is called, which it starts by its own loader.
const LOADER: &str = "ld-linux-x86-64";

/// Memory of each of our processes is told by itself.
fn peak_of(program: &str) -> Option<Metric> {
    let name = match program {
        "fastmigd" => "peak-fastmigd",
        "fastmig" => "peak-fastmig",
        "fastmig-init" => "peak-init",
        "criu" | LOADER => "peak-criu",
        _ if program.starts_with("containerd-shim") => "peak-shim",
        _ => return None,
    };
    Some(Metric::new(name, "MiB"))
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
