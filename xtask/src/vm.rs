//! `cargo xtask vm`: machines made by hand, and the suite `vm` on one kernel.

use anyhow::Result;
use clap::{Args, Subcommand};
use fastmig_tests::framework::cache::Cache;
use fastmig_tests::framework::vm::cluster::NODES;
use fastmig_tests::framework::vm::{vagrant, Cluster, Kernel};
use fastmig_tests::framework::Ctx;
use fastmig_tests::suites;

use crate::test;

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    chore: Option<Chore>,
    /// bookworm (Linux 6.1) or trixie (6.12) [default: both]
    #[arg(long)]
    kernel: Option<Kernel>,
    /// Run only the tests whose name contains this
    #[arg(long, value_name = "SUBSTRING")]
    only: Option<String>,
}

#[derive(Subcommand)]
enum Chore {
    /// Boot two machines with FastMig that know each other, and keep them until Enter is pressed
    Nodes {
        /// bookworm (Linux 6.1) or trixie (6.12)
        #[arg(long, default_value_t = Kernel::Trixie)]
        kernel: Kernel,
        /// The images that their containerd has
        #[arg(long, value_delimiter = ',', default_value = "redis")]
        images: Vec<String>,
    },
    /// Make the box of vagrant/Vagrantfile, target/vagrant
    Box {
        /// The images that its nodes get
        #[arg(long, value_delimiter = ',', default_value = "redis")]
        images: Vec<String>,
    },
}

pub(crate) fn run(arguments: Arguments) -> Result<()> {
    match arguments.chore {
        Some(Chore::Nodes { kernel, images }) => nodes(kernel, &words(&images)),
        Some(Chore::Box { images }) => {
            println!("{}", vagrant::make(&Cache::open()?, &words(&images))?.display());
            Ok(())
        }
        None => {
            let kernels = arguments.kernel.map_or_else(|| Kernel::ALL.to_vec(), |kernel| vec![kernel]);
            test::report("vm", suites::run_on_kernels(&Ctx::new(arguments.only), &kernels)?)
        }
    }
}

fn words(names: &[String]) -> Vec<&str> {
    names.iter().map(String::as_str).collect()
}

fn nodes(kernel: Kernel, images: &[&str]) -> Result<()> {
    let cluster = Cluster::start(&Cache::open()?, kernel, images)?;
    for node in &cluster.nodes {
        println!("{}: {}", node.name(), node.login());
    }
    println!(
        "{}={} cargo xtask test vm --only apparmor: runs cases on them",
        NODES,
        cluster.site.directory().display()
    );
    println!("Press Enter to end them.");
    std::io::stdin().read_line(&mut String::new())?;
    Ok(())
}
