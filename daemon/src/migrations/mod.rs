//! Migrations from here and to here: what the protocol asks of a host, answered by the engine, the hooks and the peers.
//!
//! | file | what it does |
//! |---|---|
//! | `depart` | an application leaves (`fallback`: where what travelled in rounds is in doubt) |
//! | `arrive` | one comes: connections of other hosts |
//! | `host` | this host, as the protocol sees it: finds and makes containers, and settles what a dead daemon left |
//! | `recover` | at the start: what was interrupted is finished or undone |
//! | `located` | what is noted of a container, to find it again |
//! | `hooks` | the operator's commands |
//! | `dial` | the other hosts |
//! | `live` | those under way, and who is told of them |
//! | `faults` | where a test can strike |
//! | `report` | the protocol's report, in the words of the HTTP interface |

mod arrive;
mod depart;
mod dial;
mod fallback;
mod faults;
mod hooks;
mod host;
mod live;
mod located;
mod recover;
mod report;

use std::sync::Arc;

use fastmig_api::container::Migrating;
use fastmig_api::MigrationReport;
use fastmig_engine::Config;
use fastmig_migrate::cancel::Cancel;
use fastmig_migrate::destination::Destination;
use fastmig_migrate::journal::{Journal, JournalError};
use fastmig_migrate::source::Counter;
use fastmig_recreate::Recreator;

use self::dial::Hosts;
use self::faults::StopAt;
use self::hooks::Commands;
use self::host::ThisHost;
use self::live::Live;
use crate::events::Bus;
use crate::pki::identity::{HostSettings, Identity};
use crate::pki::peers::Peers;
use crate::pki::{PkiError, Place};

/// All that this host takes part in.
#[derive(Debug)]
pub struct Migrations {
    name: String,
    journal: Arc<Journal>,
    destination: Arc<Destination>,
    host: Arc<ThisHost>,
    commands: Arc<Commands>,
    hosts: Hosts,
    live: Arc<Live>,
    faults: Arc<StopAt>,
    /// Where other hosts find this one.
    address: Option<String>,
    /// Where what this host owes is fetched.
    counter: Arc<Counter>,
    /// Ends questions that go on for as long as another host is silent.
    leaving: Cancel,
}

/// Why migrations cannot be taken part in.
#[derive(Debug, thiserror::Error)]
pub enum MigrationsError {
    /// What was decided before is not known.
    #[error("the journal of migrations cannot be read: {0}")]
    Journal(#[from] JournalError),
    /// The other hosts cannot be reached.
    #[error(transparent)]
    Pki(#[from] PkiError),
}

impl Migrations {
    /// Opens the journal of this host, which is called `name`.
    ///
    /// # Errors
    /// When the journal cannot be read, or the certificates are unusable.
    pub fn open(
        config: &Arc<Config>,
        name: &str,
        identity: Option<&Identity>,
        peers: Peers,
        bus: Arc<Bus>,
    ) -> Result<Self, MigrationsError> {
        let journal = Arc::new(Journal::open(&config.daemon.state_dir.join("journal"))?);
        let recreator = Recreator::new(config.clone());
        let live = Arc::new(Live::new(name, bus));
        let host = Arc::new(ThisHost::new(config.clone(), recreator, live.clone(), peers.clone()));
        let commands = Arc::new(Commands::new(config.clone()));
        let faults = Arc::new(StopAt::from_environment());
        let mut destination = Destination::new(host.clone(), journal.clone());
        destination.hooks = commands.clone();
        destination.faults = faults.clone();
        let told = live.clone();
        let counter = destination.counter.clone();
        let settings = HostSettings::load(&Place::below(&config.daemon.state_dir))?;
        let address = settings.and_then(|host| host.address);
        let address = address.or_else(|| config.daemon.listen().map(|address| address.to_string()));
        destination.progress = Arc::new(move |id| told.arrival(id));
        Ok(Self {
            name: name.to_owned(),
            destination: Arc::new(destination),
            host,
            commands,
            hosts: Hosts::new(identity, peers)?,
            live,
            faults,
            leaving: Cancel::default(),
            address,
            counter,
            journal,
        })
    }

    /// Those that are known, the latest last.
    #[must_use]
    pub fn history(&self) -> Vec<MigrationReport> {
        let records = self.journal.history();
        records.iter().map(|record| self.live.report_of(record, &self.name)).collect()
    }

    /// The one that a container takes part in.
    #[must_use]
    pub fn of(&self, container: &str) -> Option<Migrating> {
        self.live.of(container)
    }

    /// What the journal cannot tell any more.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        self.journal.damaged().iter().map(ToString::to_string).collect()
    }

    /// Gives up what is not decided.
    pub fn stop(&self) {
        self.leaving.leave();
        self.destination.leave();
    }

    /// How many arrive.
    #[must_use]
    pub fn arriving(&self) -> usize {
        self.live.arriving()
    }
}
