//! Both hosts: daemons with their journals, which can die and start again.

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use fastmig_migrate::cancel::Cancel;
use fastmig_migrate::destination::{Destination, Host, Placed};
use fastmig_migrate::ends::{EndError, Leaving, Waiting};
use fastmig_migrate::faults::{Fault, Faults, NoFaults};
use fastmig_migrate::hooks::{Hooks, Stage};
use fastmig_migrate::journal::{Journal, Record, Role};
use fastmig_migrate::options::{Limits, Options, Wanted};
use fastmig_migrate::progress::NoProgress;
use fastmig_migrate::recover::{Peers, Recovery};
use fastmig_migrate::report::Report;
use fastmig_migrate::source::{Counter, Origin, Plan, Source};
use fastmig_migrate::state::State;
use fastmig_migrate::transport::{Connection, Dialer};
use fastmig_migrate::MigrationId;
use serde_json::{json, Value};
use tempfile::TempDir;

use super::ends::{FakeLeaving, FakeWaiting, Life, World};
use super::network::Network;

/// Short ones, so that a table of failures takes seconds.
pub fn limits() -> Limits {
    Limits {
        connect: Duration::from_secs(2),
        frozen: Duration::from_secs(4),
        commit: Duration::from_millis(700),
        held: Duration::from_secs(4),
        finish: Duration::from_millis(700),
        silence: Duration::from_millis(1500),
        files: Duration::from_secs(3),
        ready: Duration::from_secs(3),
        prepare: Duration::from_secs(3),
        ask_again: Duration::from_millis(200),
        ask: Some(Duration::from_secs(20)),
        apart: Duration::from_secs(10),
        ..Limits::default()
    }
}

pub type FaultAt = dyn Fn(Role, &str) -> Fault + Send + Sync;

pub struct FaultFn(pub Arc<FaultAt>);

impl Faults for FaultFn {
    fn at(&self, role: Role, point: &str) -> Fault {
        (self.0)(role, point)
    }
}

/// All hooks that ran.
#[derive(Debug, Default)]
pub struct Recorder(pub Mutex<Vec<(String, Stage)>>);

impl Hooks for Recorder {
    fn run(&self, stage: Stage, facts: &Value) -> Result<(), EndError> {
        let role = facts["role"].as_str().ok_or("no role")?.to_owned();
        self.0.lock().unwrap().push((role, stage));
        Ok(())
    }
}

/// Both hosts.
pub struct Hosts {
    pub world: Arc<World>,
    pub network: Network,
    pub hooks: Arc<Recorder>,
    pub faults: Mutex<Arc<dyn Faults>>,
    pub options: Options,
    pub image: Vec<u8>,
    /// Nobody knows yet where the other host is, as it may be right after the start; once.
    lost: AtomicBool,
    source_journal: Mutex<Arc<Journal>>,
    destination: Mutex<Option<Arc<Destination>>>,
    /// The source, as those see it whom it owes memory.
    counter: Mutex<Arc<Counter>>,
    directory: TempDir,
}

impl Hosts {
    pub fn new(world: &Arc<World>) -> Arc<Self> {
        Self::apart(world, limits().apart)
    }

    /// Hosts that wait for each other for so long while memory is owed.
    pub fn apart(world: &Arc<World>, apart: Duration) -> Arc<Self> {
        let directory = TempDir::new().unwrap();
        let hosts = Arc::new(Self {
            world: Arc::clone(world),
            network: Network::default(),
            hooks: Arc::default(),
            faults: Mutex::new(Arc::new(NoFaults)),
            options: Options { limits: Limits { apart, ..limits() }, ..Options::default() },
            image: super::random(99, 3 << 20),
            lost: AtomicBool::new(false),
            source_journal: Mutex::new(Arc::new(Journal::open(&directory.path().join("source")).unwrap())),
            destination: Mutex::new(None),
            counter: Mutex::default(),
            directory,
        });
        hosts.start_destination();
        let source = Arc::downgrade(&hosts);
        let dial = move || source.upgrade().ok_or(io::ErrorKind::ConnectionRefused)?.dial_source();
        *world.dial_source.lock().unwrap() = Some(Arc::new(dial));
        hosts
    }

    fn path(&self, role: &str) -> PathBuf {
        self.directory.path().join(role)
    }

    pub fn source_journal(&self) -> Arc<Journal> {
        Arc::clone(&self.source_journal.lock().unwrap())
    }

    pub fn destination(&self) -> Option<Arc<Destination>> {
        self.destination.lock().unwrap().clone()
    }

    fn start_destination(self: &Arc<Self>) {
        let journal = Arc::new(Journal::open(&self.path("destination")).unwrap());
        self.recovery(&journal, |recovery| {
            for recovered in recovery.settle_here() {
                assert!(recovered.trouble.is_none(), "{recovered:?}");
                if recovered.is_owed() {
                    let (hosts, record, journal) = (Arc::clone(self), recovered.record, Arc::clone(&journal));
                    thread::spawn(move || {
                        hosts.recovery(&journal, |recovery| {
                            let followed = recovery.follow(&record, &NoProgress, &Cancel::default());
                            assert!(followed.trouble.is_none(), "{followed:?}");
                        });
                    });
                }
            }
        });
        let host = Arc::new(FakeHost(Arc::clone(self)));
        let mut destination = Destination::new(host, journal);
        destination.hooks = Arc::clone(&self.hooks) as Arc<dyn Hooks>;
        destination.faults = Arc::clone(&self.faults.lock().unwrap());
        destination.limits = self.options.limits.clone();
        *self.destination.lock().unwrap() = Some(Arc::new(destination));
    }

    /// The daemon has died: nobody answers for a while, then it starts again.
    fn restart_destination(self: &Arc<Self>) {
        *self.destination.lock().unwrap() = None;
        thread::sleep(Duration::from_millis(300));
        *self.faults.lock().unwrap() = Arc::new(NoFaults);
        self.world.destination_died.store(false, Ordering::SeqCst);
        self.start_destination();
    }

    /// The source's daemon has died: it starts again, and asks for what it must know.
    pub fn restart_source(self: &Arc<Self>) {
        let journal = Arc::new(Journal::open(&self.path("source")).unwrap());
        *self.source_journal.lock().unwrap() = Arc::clone(&journal);
        *self.counter.lock().unwrap() = Arc::default();
        self.world.source_died.store(false, Ordering::SeqCst);
        self.recovery(&journal, |recovery| {
            for recovered in recovery.settle_here() {
                assert!(recovered.trouble.is_none(), "{recovered:?}");
                if recovered.needs_peer() {
                    self.lost.store(recovered.record.state == State::Deciding, Ordering::SeqCst);
                    let asked = recovery.ask(&recovered.record, &NoProgress, &Cancel::default());
                    assert!(asked.trouble.is_none(), "{asked:?}");
                }
            }
        });
    }

    fn recovery(self: &Arc<Self>, journal: &Journal, work: impl FnOnce(&Recovery<'_>)) {
        let (host, peers) = (FakeHost(Arc::clone(self)), FakeHost(Arc::clone(self)));
        work(&Recovery {
            journal,
            origin: &host,
            host: &host,
            hooks: self.hooks.as_ref(),
            peers: &peers,
            limits: &self.options.limits,
            counter: &self.counter(),
        });
    }

    pub fn plan(&self) -> Plan {
        Plan {
            id: MigrationId::random().unwrap(),
            peer: "b".to_owned(),
            wanted: Wanted { container: "web".to_owned(), create: None, options: Value::Null },
            facts: json!({"key": "default/web"}),
            options: self.options.clone(),
        }
    }

    pub fn migrate(self: &Arc<Self>) -> Report {
        self.migrate_as(&self.plan(), &Cancel::default())
    }

    pub fn migrate_as(self: &Arc<Self>, plan: &Plan, cancel: &Cancel) -> Report {
        self.migrate_over(&|| self.dial(), plan, cancel)
    }

    pub fn migrate_over(self: &Arc<Self>, dialer: &dyn Dialer, plan: &Plan, cancel: &Cancel) -> Report {
        let faults = Arc::clone(&self.faults.lock().unwrap());
        let host = FakeHost(Arc::clone(self));
        let source = Source {
            dialer,
            origin: &host,
            hooks: self.hooks.as_ref(),
            journal: &self.source_journal(),
            progress: &NoProgress,
            faults: faults.as_ref(),
            cancel,
            counter: &self.counter(),
        };
        source.run(FakeLeaving::new(&self.world), plan)
    }

    /// A connection, which the destination serves.
    pub fn dial(self: &Arc<Self>) -> io::Result<Box<dyn Connection>> {
        let destination = self.destination().ok_or(io::ErrorKind::ConnectionRefused)?;
        let (ours, theirs) = self.network.pair()?;
        let hosts = Arc::clone(self);
        thread::spawn(move || {
            destination.serve(theirs, "a");
            let current = hosts.destination().is_some_and(|current| Arc::ptr_eq(&current, &destination));
            if hosts.world.destination_died.load(Ordering::SeqCst) && current {
                hosts.restart_destination();
            }
        });
        Ok(ours)
    }

    fn counter(&self) -> Arc<Counter> {
        Arc::clone(&self.counter.lock().unwrap())
    }

    /// A connection that the source serves.
    fn dial_source(self: &Arc<Self>) -> io::Result<Box<dyn Connection>> {
        let (ours, theirs) = self.network.pair()?;
        let mut source = Destination::new(Arc::new(FakeHost(Arc::clone(self))), self.source_journal());
        source.counter = self.counter();
        source.limits = self.options.limits.clone();
        thread::spawn(move || source.serve(theirs, "b"));
        Ok(ours)
    }

    /// Uses these faults from now on, on both hosts.
    pub fn inject(self: &Arc<Self>, faults: Arc<FaultAt>) {
        *self.faults.lock().unwrap() = Arc::new(FaultFn(faults));
        self.start_destination();
    }

    pub fn stop_injecting(self: &Arc<Self>) {
        self.network.heal();
        *self.faults.lock().unwrap() = Arc::new(NoFaults);
        let begun = Instant::now();
        let died = || self.world.destination_died.load(Ordering::SeqCst);
        while died() || self.destination().is_none() {
            assert!(begun.elapsed() < Duration::from_secs(10), "the destination does not start again");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Either host, as the protocol sees it.
pub struct FakeHost(pub Arc<Hosts>);

impl Host for FakeHost {
    fn lacks_image(&self, _: &Wanted) -> Result<bool, EndError> {
        Ok(true)
    }

    fn receive_image(&self, _: &Wanted, content: &mut dyn Read) -> Result<(), EndError> {
        let mut image = Vec::new();
        content.read_to_end(&mut image)?;
        if image != self.0.image {
            return Err("the image is damaged".into());
        }
        Ok(())
    }

    fn waiting(&self, _: MigrationId, _: &str, wanted: &Wanted) -> Result<Placed, EndError> {
        if wanted.container != "web" {
            return Err(
                format!("no container {} waits here; create it, or use --create", wanted.container).into()
            );
        }
        match self.0.world.lives().1 {
            Life::Standby => {
                Ok(Placed { waiting: FakeWaiting::new(&self.0.world), facts: json!({"key": "default/web"}) })
            }
            other => Err(format!("the container is not in standby but {other:?}").into()),
        }
    }

    fn found(&self, _: &Record) -> Result<Box<dyn Waiting>, EndError> {
        Ok(FakeWaiting::new(&self.0.world))
    }
}

impl Origin for FakeHost {
    fn send_image(&self, _: &Wanted, out: &mut dyn Write) -> Result<(), EndError> {
        Ok(out.write_all(&self.0.image)?)
    }

    fn found(&self, _: &Record) -> Result<Box<dyn Leaving>, EndError> {
        Ok(FakeLeaving::new(&self.0.world))
    }
}

impl Peers for FakeHost {
    fn dialer(&self, _: &str) -> Result<Box<dyn Dialer>, EndError> {
        if self.0.lost.swap(false, Ordering::SeqCst) {
            return Err("temporary failure in name resolution".into());
        }
        let hosts = Arc::clone(&self.0);
        Ok(Box::new(move || hosts.dial()))
    }
}
