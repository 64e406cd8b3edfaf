//! `fastmig-hook`: the hooks that come with FastMig. Each reads on its standard input what is being done, and does its part
//! of it; the same command is given for every stage and on every host.
//!
//! | file | what it does |
//! |---|---|
//! | `haproxy` | requests wait while their server moves, and go to where it is then |
//! | `network` | an address moves, and established connections with it |

#![forbid(unsafe_code)]

mod haproxy;
mod network;

use std::error::Error;
use std::io::{self, Read};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use fastmig_hooks::Facts;

/// More than any facts have.
const LONGEST_INPUT: u64 = 1 << 20;

/// Hooks for FastMig's settings. They read what is being done as JSON on standard input.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    hook: Hook,
}

#[derive(Debug, Subcommand)]
enum Hook {
    /// Let HAProxy hold requests while their server moves, and send them to where it is then
    Haproxy(haproxy::Arguments),
    /// What holds the connections meanwhile; started by the hook
    #[command(hide = true)]
    HaproxyHolder(haproxy::Arguments),
    /// Move an address to the destination, on the same network, with its established connections
    NetworkMove(network::Arguments),
}

fn main() -> ExitCode {
    match run(&Arguments::parse().hook) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", report(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn run(hook: &Hook) -> Result<(), Box<dyn Error>> {
    match hook {
        Hook::Haproxy(arguments) => Ok(haproxy::run(arguments, &facts()?)?),
        Hook::HaproxyHolder(arguments) => Ok(haproxy::hold_connections(arguments)?),
        Hook::NetworkMove(arguments) => Ok(network::run(arguments, &facts()?)?),
    }
}

/// What FastMig tells its hooks.
fn facts() -> Result<Facts, Box<dyn Error>> {
    let mut text = Vec::new();
    io::stdin().take(LONGEST_INPUT).read_to_end(&mut text)?;
    serde_json::from_slice(&text)
        .map_err(|e| format!("standard input has not the JSON that FastMig gives to its hooks: {e}").into())
}

/// An error and everything that caused it, in one line.
fn report(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(e) = cause {
        text = format!("{text}: {e}");
        cause = e.source();
    }
    text
}
