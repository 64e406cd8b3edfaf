//! `cargo xtask hosts`: test hosts made by hand.

use anyhow::{bail, Result};
use clap::Subcommand;
use fastmig_tests::framework::cache::Cache;
use fastmig_tests::framework::realm::{Realm, BY_HAND};
use fastmig_tests::framework::{dist, host, image, Equipment, Generation, Host};

#[derive(Subcommand)]
pub(crate) enum Chore {
    /// Bring hosts up: a and b by default
    Up {
        /// Names of at most twelve small letters, digits and dashes
        names: Vec<String>,
        /// The Debian release: trixie or forky
        #[arg(long, default_value_t = Generation::Trixie)]
        generation: Generation,
        /// Start containerd in them
        #[arg(long)]
        containerd: bool,
        /// Give them docker, podman and nerdctl, and start what these need
        #[arg(long)]
        clients: bool,
    },
    /// Take hosts down
    Down {
        /// Which ones
        names: Vec<String>,
        /// All of them
        #[arg(long, conflicts_with = "names")]
        all: bool,
    },
    /// Run a command in a host
    Exec {
        /// The host
        name: String,
        /// The command and its arguments
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// List the hosts of all realms
    List,
}

pub(crate) fn run(chore: Chore) -> Result<()> {
    let cache = Cache::open()?;
    let realm = Realm::or_from_environment(BY_HAND)?;
    match chore {
        Chore::Up { names, generation, containerd, clients } => {
            let names = if names.is_empty() { vec!["a".to_owned(), "b".to_owned()] } else { names };
            names.iter().try_for_each(|name| up(&realm, &cache, name, generation, (containerd, clients)))
        }
        Chore::Down { all: true, .. } => host::down_all(&realm, &cache),
        Chore::Down { names, .. } if names.is_empty() => bail!("name hosts, or say --all"),
        Chore::Down { names, .. } => names.iter().try_for_each(|name| host::down(&realm, &cache, name)),
        Chore::Exec { name, command } => {
            Err(Host::attach(&realm, &cache, &name)?.cmd(command).replace_this_process())
        }
        Chore::List => {
            list();
            Ok(())
        }
    }
}

fn up(
    realm: &Realm,
    cache: &Cache,
    name: &str,
    generation: Generation,
    (containerd, clients): (bool, bool),
) -> Result<()> {
    let equipment = if clients { Equipment::Clients } else { Equipment::Plain };
    let host = Host::up(realm, cache, name, generation, equipment)?;
    if dist::dist_dir().join("bin").is_dir() {
        host.install(&dist::dist_dir())?;
    }
    if containerd || clients {
        host.start_containerd()?;
    }
    if clients {
        host.start_clients()?;
    }
    host.keep();
    Ok(())
}

/// `cargo xtask images`.
pub(crate) fn images(names: &[String], into: Option<&str>) -> Result<()> {
    let cache = Cache::open()?;
    let names: Vec<&str> =
        if names.is_empty() { image::names() } else { names.iter().map(String::as_str).collect() };
    for name in &names {
        println!("{}", image::archive(&cache, name)?.display());
    }
    let Some(host) = into else { return Ok(()) };
    Host::attach(&Realm::or_from_environment(BY_HAND)?, &cache, host)?.import_images(&names)
}

fn list() {
    for state in Realm::all().iter().flat_map(Realm::hosts) {
        let process = state.init().filter(fastmig_tests::framework::process::ProcessId::is_alive);
        let process = process.map_or_else(|| "dead".to_owned(), |init| format!("pid {}", init.pid));
        println!("{}/{}\t{}\t{}\t{process}", state.realm, state.name, state.generation, state.address());
    }
}

pub(crate) fn down_everywhere(cache: &Cache) -> Result<()> {
    Realm::all().iter().try_for_each(|realm| host::down_all(realm, cache))
}
