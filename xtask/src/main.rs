//! Every chore of this repository: `cargo xtask --help`.

mod hosts;
mod lanes;
mod lint;
mod test;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{bail, Result};
use clap::{Parser, Subcommand};
use fastmig_bench::{brownout, checkpoint, gap, pids, policy, wire, wrapper};
use fastmig_tests::framework::cache::Cache;
use fastmig_tests::framework::vm::Kernel;
use fastmig_tests::framework::{bundle, deb, dist, hostns, mounts, Ctx};
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
    /// Run what sees writes to memory on kernels of Debian's, in an emulated machine
    Vm {
        /// bookworm (Linux 6.1) or trixie (6.12) [default: both]
        #[arg(long)]
        kernel: Option<Kernel>,
        /// Run only the tests whose name contains this
        #[arg(long, value_name = "SUBSTRING")]
        only: Option<String>,
    },
    /// Show the main job: a container that moves
    Demo {
        /// Show one application only
        #[arg(long)]
        app: Option<String>,
    },
    /// Measure against what a user would take instead
    #[command(subcommand)]
    Bench(Bench),
    /// Put the tables that the suites clients and faults made into README.md and docs/faults.md
    Table,
    /// Check format, clippy and documentation
    Lint,
    /// Take all hosts down and remove the cache
    Clean,
}

#[derive(Subcommand)]
enum Bench {
    /// What the OCI runtime costs in front of runc
    Wrapper,
    /// What deciding about an application that has ended costs
    Policy,
    /// How long a program stands still when it moves, beside checkpoint, tar and restore by runc
    Gap(gap::Options),
    /// How long a program stands still for a checkpoint, and what that writes, beside runc's
    Checkpoint(checkpoint::Options),
    /// What a redis that is written answers before, during and after its move: shares, a chart, JSON
    Brownout(brownout::Options),
    /// How fast memory travels as migrations send it, beside plain TCP
    Wire(wire::Options),
    /// How long a restore of many processes takes, beside one with the same memory
    Pids(pids::Options),
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
        Chore::Vm { kernel, only } => {
            let kernels = kernel.map_or_else(|| Kernel::ALL.to_vec(), |kernel| vec![kernel]);
            test::report("vm", suites::run_on_kernels(&Ctx::new(only), &kernels)?)
        }
        Chore::Demo { app } => match demo::run(app.as_deref())? {
            true => Ok(()),
            false => bail!("the demo failed"),
        },
        Chore::Bench(Bench::Wrapper) => wrapper::run(),
        Chore::Bench(Bench::Policy) => policy::run(),
        Chore::Bench(Bench::Gap(options)) => gap::run(&options),
        Chore::Bench(Bench::Checkpoint(options)) => checkpoint::run(&options),
        Chore::Bench(Bench::Brownout(options)) => brownout::run(&options),
        Chore::Bench(Bench::Wire(options)) => wire::run(&options),
        Chore::Bench(Bench::Pids(options)) => pids::run(&options),
        Chore::Table => suites::put_tables(),
        Chore::Lint => lint::run(),
        Chore::Clean => clean(),
    }
}

fn clean() -> Result<()> {
    let cache = Cache::open()?;
    hosts::down_everywhere(&cache)?;
    mounts::remove_tree(cache.root())
}
