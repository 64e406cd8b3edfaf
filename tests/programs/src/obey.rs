//! A program that does what it is told by a file, and ends as it is told: an application for the tests of faults.
//!
//! It counts its starts in a file and remembers a word in its memory alone. Signals do to it what they do to a program that
//! knows none of them.

use std::fs;
use std::io::Write;
use std::process::exit;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;

use crate::sys;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Where it is told; a file that is renamed into place
    #[arg(long, default_value = "/dev/how")]
    told: String,
    /// Where it counts its starts
    #[arg(long, default_value = "/var/starts")]
    starts: String,
}

/// How often it looks.
const LOOK: Duration = Duration::from_millis(5);

/// Memory that it has besides, in bytes: it does not fit where there is no room.
const BALLAST: usize = 8 << 20;

/// A host's name that ends it at once.
const LEAVE: &str = "leave";

pub(crate) fn run(options: &Options) -> Result<()> {
    sys::forget_signal_handlers();
    let starts = fs::read_to_string(&options.starts).ok().and_then(|text| text.trim().parse().ok());
    let starts = starts.unwrap_or(0_u64) + 1;
    fs::write(&options.starts, starts.to_string()).context("cannot count")?;
    println!("run {starts}");
    let mut word = "nothing".to_owned();
    let ballast = vec![7_u8; BALLAST];
    loop {
        if fs::read_to_string("/proc/sys/kernel/hostname").is_ok_and(|name| name.trim() == LEAVE) {
            exit(3);
        }
        if let Ok(how) = fs::read_to_string(&options.told) {
            fs::remove_file(&options.told)?;
            obey(how.trim(), &mut word)?;
        }
        std::hint::black_box(&ballast);
        std::thread::sleep(LOOK);
    }
}

fn obey(how: &str, word: &mut String) -> Result<()> {
    let (verb, object) = how.split_once(' ').unwrap_or((how, ""));
    match verb {
        "remember" => object.clone_into(word),
        "answer" => println!("{object}={word}"),
        "exit" => exit(object.parse()?),
        "grow" => grow(),
        "write" => {
            if fs::File::create(object)?.write_all(b"more").is_err() {
                println!("No space left on device");
                exit(28);
            }
        }
        other => anyhow::bail!("told to {other:?}"),
    }
    Ok(())
}

/// Takes memory until it is killed.
fn grow() {
    let mut all = Vec::new();
    loop {
        all.push(vec![1_u8; 1 << 20]);
        std::hint::black_box(&all);
    }
}
