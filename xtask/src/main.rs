//! Every chore of this repository: `cargo xtask --help`.

mod hosts;
mod lanes;
mod lint;
mod test;
mod vm;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{bail, Result};
use clap::{Parser, Subcommand};
use fastmig_bench::{readme, run as bench};
use fastmig_tests::framework::cache::Cache;
use fastmig_tests::framework::{bundle, deb, dist, hostns, mounts};
use fastmig_tests::{demo, suites};

#[derive(Parser)]
#[command(about, bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Bring test hosts up or down, or run a command in one
    #[command(subcommand)]
    Hosts(hosts::Chore),
    /// Put the CRIU that FastMig ships into a directory
    Bundle {
        /// The directory that gets `criu/` [default: target/dist/libexec]
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// Make the container images that the tests run
    Images {
        /// Which ones [default: all]
        names: Vec<String>,
        /// Import them into a host's containerd
        #[arg(long, value_name = "HOST")]
        into: Option<String>,
    },
    /// Build all programs as they are shipped, into target/dist
    Build,
    /// Build the Debian package, target/dist/fastmig.deb
    Deb,
    /// Run test suites, all of them by default
    Test(test::Arguments),
    /// Run what sees writes to memory on kernels of Debian's, in an emulated machine, or boot machines by hand
    Vm(vm::Arguments),
    /// Show the main job: a container that moves
    Demo {
        /// Show one application only
        #[arg(long)]
        app: Option<String>,
    },
    /// Measure against what a user would take instead, on two test hosts
    Bench(bench::Options),
    /// Put the tables that the suites clients and faults and the benchmarks made into README.md and docs/faults.md
    Table,
    /// Check format, clippy and documentation
    Lint,
    /// Take all hosts down and remove the cache
    Clean,
}

fn main() -> ExitCode {
    hostns::run_if_asked();
    match run(Arguments::parse().chore) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(chore: Chore) -> Result<()> {
    match chore {
        Chore::Hosts(chore) => hosts::run(chore),
        Chore::Bundle { out } => {
            let out = out.unwrap_or_else(|| dist::dist_dir().join("libexec"));
            println!("{}", bundle::export(&Cache::open()?, &out)?.display());
            Ok(())
        }
        Chore::Images { names, into } => hosts::images(&names, into.as_deref()),
        Chore::Build => {
            println!("{}", dist::build()?.display());
            Ok(())
        }
        Chore::Deb => {
            println!("{}", deb::build(&Cache::open()?)?.display());
            Ok(())
        }
        Chore::Test(arguments) => test::run(&arguments),
        Chore::Vm(arguments) => vm::run(arguments),
        Chore::Demo { app } => match demo::run(app.as_deref())? {
            true => Ok(()),
            false => bail!("the demo failed"),
        },
        Chore::Bench(options) => bench::run(&options),
        Chore::Table => tables(),
        Chore::Lint => lint::run(),
        Chore::Clean => clean(),
    }
}

/// Puts those there that were made; one of them must have been.
fn tables() -> Result<()> {
    let figures = readme::put()?;
    match suites::put_tables() {
        Err(_) if figures => Ok(()),
        other => other,
    }
}

fn clean() -> Result<()> {
    let cache = Cache::open()?;
    hosts::down_everywhere(&cache)?;
    mounts::remove_tree(cache.root())
}
