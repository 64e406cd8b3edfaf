//! `fastmigd [--config FILE] [COMMAND]`: runs the daemon, or makes and exchanges certificates.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use fastmig_engine::config::CONFIG_FILE;
use fastmig_engine::Config;

use crate::pki::authority::{self, Authority};
use crate::pki::identity::{self, HostSettings};
use crate::pki::peers::Peers;
use crate::pki::role::Role;
use crate::pki::token::{Token, Tokens};
use crate::pki::{join, name, PkiError, Place};
use crate::{telemetry, StartError};

/// FastMig's node daemon. Without a command it runs.
#[derive(Debug, Parser)]
#[command(name = "fastmigd", version)]
pub struct CommandLine {
    /// The host's settings
    #[arg(long, value_name = "FILE", default_value = CONFIG_FILE, global = true)]
    config: PathBuf,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Begin a cluster: make its certificate authority, and a certificate for this host
    Init(Host),
    /// Let one more in: print a token for `fastmigd join`
    Token {
        /// What its certificate allows: node, admin, operator or reader
        #[arg(long, default_value = "node")]
        role: Role,
        /// How long it can be used: 30m, 1h, 2d
        #[arg(long, default_value = "1h", value_parser = ttl)]
        ttl: Duration,
    },
    /// Get a certificate for a token
    Join {
        /// What `fastmigd token` printed
        token: String,
        #[command(flatten)]
        host: Host,
        /// Put the files here, for a person rather than this host: ca.pem, certificate.pem, key.pem
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
    /// Show the other hosts, or change what is known of them
    Peers {
        #[command(subcommand)]
        change: Option<PeersChange>,
    },
    /// Show the authority's certificate and its fingerprint
    Ca,
}

#[derive(Debug, clap::Args)]
struct Host {
    /// What it is called; small letters, digits, - and . [default: the host's name]
    #[arg(long)]
    name: Option<String>,
    /// Where other hosts find this one; it listens there
    #[arg(long, value_name = "IP:PORT")]
    address: Option<String>,
}

#[derive(Debug, Subcommand)]
enum PeersChange {
    /// Add a host, or change its address
    Add {
        /// Its name, as in its certificate
        name: String,
        /// Where it is found
        #[arg(value_name = "ADDRESS:PORT")]
        address: String,
    },
    /// Forget a host
    Remove {
        /// Its name
        name: String,
    },
}

impl CommandLine {
    /// Does what was asked; the exit code.
    #[must_use]
    pub fn run(self) -> ExitCode {
        match self.try_run() {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => {
                eprintln!("fastmigd: {e}");
                ExitCode::FAILURE
            }
        }
    }

    fn try_run(self) -> Result<(), StartError> {
        let config = Config::from_file(&self.config)?;
        let Some(command) = self.command else {
            let _telemetry = telemetry::begin("info", &config.daemon.otlp);
            return crate::run::run(config);
        };
        let _telemetry = telemetry::begin("error", "");
        Ok(command.run(&config)?)
    }
}

impl Command {
    fn run(self, config: &Config) -> Result<(), PkiError> {
        let place = Place::below(&config.daemon.state_dir);
        match self {
            Self::Init(host) => init(config, &place, host),
            Self::Token { role, ttl } => token(config, &place, role, ttl),
            Self::Join { token, host, out } => join_cluster(config, &place, &token, host, out.as_deref()),
            Self::Peers { change } => peers(&Peers::open(&place), change),
            Self::Ca => ca(&place),
        }
    }
}

impl Host {
    fn settings(self, config: &Config) -> HostSettings {
        let listen = Some(config.daemon.listen.clone()).filter(|listen| !listen.is_empty());
        HostSettings { name: self.name.unwrap_or_else(name::of_this_host), address: self.address.or(listen) }
    }
}

fn init(config: &Config, place: &Place, host: Host) -> Result<(), PkiError> {
    let settings = host.settings(config);
    identity::init(place, &settings)?;
    println!("{} has a certificate; {}", settings.name, reach(&settings));
    Ok(())
}

fn reach(settings: &HostSettings) -> String {
    match &settings.address {
        Some(address) => format!("fastmigd listens on {address} when it is started again"),
        None => "without --address it listens on its socket alone".into(),
    }
}

fn token(config: &Config, place: &Place, role: Role, ttl: Duration) -> Result<(), PkiError> {
    let authority = Authority::open(place)?.ok_or(PkiError::NoAuthority)?;
    let host = HostSettings::load(place)?.ok_or(PkiError::NotInitialized)?;
    let listen = Some(config.daemon.listen.clone()).filter(|listen| !listen.is_empty());
    let address = host.address.or(listen).ok_or(PkiError::NoAddress)?;
    let ca = authority::fingerprint(authority.certificate())?;
    println!("{}", Tokens::open(place).make(role, ttl, ca, &address)?);
    Ok(())
}

fn join_cluster(
    config: &Config,
    place: &Place,
    token: &str,
    host: Host,
    out: Option<&Path>,
) -> Result<(), PkiError> {
    let token: Token = token.parse()?;
    let place = match out {
        Some(directory) => Place::at(directory),
        None if token.role == Role::Node => place.clone(),
        None => return Err(PkiError::NeedsPlace { role: token.role }),
    };
    let mut settings = host.settings(config);
    if token.role != Role::Node {
        settings.address = None;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(PkiError::io("start a thread for", Path::new("fastmigd join")))?;
    let joined = runtime.block_on(join::join(&place, &token, &settings))?;
    println!("{} has a certificate of the role {}", settings.name, token.role);
    if token.role == Role::Node {
        println!("{}", reach(&settings));
        println!("hosts: {}", joined.peers.into_keys().collect::<Vec<_>>().join(", "));
    }
    Ok(())
}

fn peers(table: &Peers, change: Option<PeersChange>) -> Result<(), PkiError> {
    match change {
        Some(PeersChange::Add { name, address }) => table.put(&name, &address),
        Some(PeersChange::Remove { name }) => {
            if !table.remove(&name)? {
                println!("{name} was not known");
            }
            Ok(())
        }
        None => {
            for (name, address) in table.all()? {
                println!("{name}\t{address}");
            }
            Ok(())
        }
    }
}

fn ca(place: &Place) -> Result<(), PkiError> {
    let certificate = authority::certificate(place)?.ok_or(PkiError::NotInitialized)?;
    println!("sha256:{}", hex::encode(authority::fingerprint(&certificate)?));
    print!("{certificate}");
    Ok(())
}

/// How long a token can be good for, at the most.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 60 * 60);

fn ttl(text: &str) -> Result<Duration, String> {
    match fastmig_engine::parse_duration(text)? {
        ttl if ttl <= LONGEST => Ok(ttl),
        _ => Err("give 30d at the most".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        CommandLine::command().debug_assert();
    }

    #[test]
    fn a_token_is_not_good_for_ever() {
        assert_eq!(ttl("30d"), Ok(LONGEST));
        assert!(ttl("31d").is_err());
    }
}
