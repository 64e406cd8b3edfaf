//! Programs whose memory is moved by the tests: each knows what must be in every page of it, and says so when asked.
//!
//! One binary, static, so that it runs in any image. Every program listens on a TCP port and answers a line with a line of
//! JSON ([`server`]): `stat` tells what it has done and how long it stood still, `reset` forgets the pauses so far, `check`
//! looks at all of its memory.
//!
//! | program | what its memory goes through |
//! |---|---|
//! | [`tick`] | filled, written at a given rate, by as many processes as wanted |
//! | [`churn`] | mapped, grown, moved, unmapped, protected, discarded, forked, at random |
//! | [`shared`] | shared by processes in all four ways, written by mapping and by write(2) |
//! | [`burst`] | written as fast as can be |
//! | [`huge`] | huge pages, read at random |
//! | [`obey`] | next to nothing: it ends as it is told, and has no port |
//!
//! [`gate`] is none of them: it stands before CRIU in the tests of faults.
//!
//! What they stand on: [`pattern`] is the content of a page, [`filled`] memory full of it, [`family`] the processes,
//! [`marks`] what they have besides, [`pace`] how fast it is written, [`pauses`] the clock, [`speed`] what was done in each tenth of a second.

mod burst;
mod churn;
mod family;
mod filled;
mod gate;
mod huge;
mod marks;
mod obey;
mod pace;
mod pattern;
mod pauses;
mod server;
mod shared;
mod speed;
mod sys;
mod tick;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

#[derive(Parser)]
#[command(about)]
enum Program {
    /// Filled memory, written at a given rate
    Tick(tick::Options),
    /// Memory that is mapped, moved, unmapped and forked at random
    Churn(churn::Options),
    /// What a process of `churn` becomes when it executes itself
    #[command(hide = true)]
    ChurnAgain(churn::Again),
    /// Memory that processes share
    Shared(shared::Options),
    /// Memory written as fast as can be
    Burst(burst::Options),
    /// Huge pages, read at random
    Huge(huge::Options),
    /// A word in memory, and an end as it is told
    Obey(obey::Options),
}

fn main() -> Result<ExitCode> {
    if let Some(code) = gate::run_if_asked() {
        return Ok(code);
    }
    run().map(|()| ExitCode::SUCCESS)
}

fn run() -> Result<()> {
    match Program::parse() {
        Program::Tick(options) => tick::run(&options),
        Program::Churn(options) => churn::run(&options),
        Program::ChurnAgain(again) => churn::run_again(&again),
        Program::Shared(options) => shared::run(&options),
        Program::Burst(options) => burst::run(&options),
        Program::Huge(options) => huge::run(&options),
        Program::Obey(options) => obey::run(&options),
    }
}
