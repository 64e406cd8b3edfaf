//! How long a program stands still for a checkpoint after which it runs on, by its own clock, and what the checkpoint writes.
//!
//! | side | what |
//! |---|---|
//! | in rounds | `fastmig checkpoint`, the first of a container |
//! | the next | the same a second later |
//! | at once | `fastmig checkpoint --strategy stop-copy` |
//! | runc | `runc checkpoint --leave-running` |
//!
//! All of them write to one tmpfs. Each measurement starts the program anew, and looks at all of its memory afterwards.

use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use fastmig_tests::apps::container::Container;
use fastmig_tests::apps::memory::{image, setup, Program};
use fastmig_tests::framework::cache::Cache;
use fastmig_tests::framework::image::programs::PROGRAM;
use fastmig_tests::framework::realm::Realm;
use fastmig_tests::framework::{dist, Equipment, Generation, Host};

use crate::gap::plain;

/// What it does before each.
const LIFE: Duration = Duration::from_secs(1);
const LIMIT: Duration = Duration::from_secs(180);
const PLACE: &str = "/bench/images";

/// What is measured.
#[derive(Args, Debug)]
pub struct Options {
    /// MiB of memory
    #[arg(long, default_value_t = 1024)]
    mib: usize,
    /// MiB written each second
    #[arg(long, default_value_t = 20)]
    writes: usize,
    /// Measurements of each kind
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

/// Pauses of one side in milliseconds, and MiB written.
#[derive(Default)]
struct Side {
    name: &'static str,
    pauses: Vec<f64>,
    written: Vec<u64>,
}

impl Side {
    fn named(name: &'static str) -> Self {
        Self { name, ..Self::default() }
    }

    fn add(&mut self, program: &Program, written: u64) -> Result<()> {
        let pause = program.pause()?.as_secs_f64() * 1000.0;
        program.check()?;
        eprintln!("{}: {pause:.1} ms, {written} MiB", self.name);
        self.pauses.push(pause);
        self.written.push(written);
        Ok(())
    }

    fn line(&mut self) -> String {
        self.pauses.sort_by(f64::total_cmp);
        self.written.sort_unstable();
        let middle = self.pauses.len() / 2;
        format!("| {} | {:.1} ms | {} MiB |", self.name, self.pauses[middle], self.written[middle])
    }
}

/// Measures, and prints a table.
///
/// # Errors
/// When the host cannot be made, or a checkpoint fails.
pub fn run(options: &Options) -> Result<()> {
    let host = host()?;
    let (mib, writes) = (options.mib.to_string(), options.writes.to_string());
    let words = ["tick", "--mib", &mib, "--writes", &writes];
    let mut sides = ["in rounds", "the next", "at once", "runc"].map(Side::named);
    for _ in 0..options.rounds.max(1) {
        let [first, next, at_once, runc] = &mut sides;
        by_fastmig(&host, &words, &["--strategy", "pre-copy"], &mut [first, next])?;
        by_fastmig(&host, &words, &["--strategy", "stop-copy"], &mut [at_once])?;
        by_runc(&host, &words, runc)?;
    }
    println!("medians of {} rounds, {mib} MiB, {writes} MiB/s of writes", options.rounds.max(1));
    println!("| checkpoint | the program stood still | written |\n|---|---|---|");
    sides.iter_mut().for_each(|side| println!("{}", side.line()));
    Ok(())
}

fn host() -> Result<Arc<Host>> {
    let realm = Realm::or_from_environment("bench")?;
    let host = Arc::new(Host::up(&realm, &Cache::open()?, "c", Generation::Forky, Equipment::Plain)?);
    host.install(&dist::build()?)?;
    host.start_containerd()?;
    host.import_images(&[image()])?;
    plain::prepare(&host)?;
    Ok(host)
}

fn by_fastmig(host: &Arc<Host>, words: &[&str], options: &[&str], sides: &mut [&mut Side]) -> Result<()> {
    let container = Container::run(host, "rest", &setup(words))?;
    let program = Program::on(host)?;
    program.wait_until_up()?;
    for (number, side) in sides.iter_mut().enumerate() {
        sleep(LIFE);
        program.reset()?;
        let path = format!("{PLACE}/{number}");
        let arguments = [&["--leave-running", "--image-path", &path], options].concat();
        let told = container.operate("checkpoint", &arguments)?;
        side.add(&program, told["written"].as_u64().context("nothing is told of what was written")? >> 20)?;
    }
    container.remove()?;
    host.sh(plain::REMOVE).ok().map(drop)
}

fn by_runc(host: &Host, words: &[&str], side: &mut Side) -> Result<()> {
    host.cmd([&["sh", "-ec", plain::CONFIGURE, "sh", PROGRAM], words].concat()).ok()?;
    host.sh(plain::START).ok()?;
    let program = Program::on(host)?;
    program.wait_until_up()?;
    sleep(LIFE);
    program.reset()?;
    let script = format!(
        "runc checkpoint --leave-running --image-path {PLACE}/runc --work-path {PLACE}/work gap >/dev/null ||
           {{ tail -n 20 {PLACE}/work/dump.log >&2; exit 1; }}
         du -sm {PLACE}/runc | cut -f1"
    );
    let written = host.cmd(["sh", "-ec", &script]).timeout(LIMIT).ok()?;
    side.add(&program, written.trim().parse().context("no size")?)?;
    host.sh(plain::REMOVE).ok().map(drop)
}
