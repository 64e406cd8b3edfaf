//! What suites measure with: hosts that come up when they are first asked for, time that is left, and the book that figures go into.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use fastmig_tests::apps;
use fastmig_tests::framework::daemon::cluster;
use fastmig_tests::framework::{dist, Equipment, Generation, Host, Session};

use crate::figures::{Book, Metric, Subject};

/// How thorough a run is.
#[derive(Debug, Clone)]
pub struct Thoroughness {
    /// Fewer works and rounds.
    pub quick: bool,
    /// Only works, tools and parts whose name contains one of these; all when there are none.
    pub only: Vec<String>,
    /// Rounds, in place of what the suite would take.
    pub rounds: Option<usize>,
}

/// One run.
#[derive(Debug)]
pub struct Bench {
    /// How thorough it is.
    pub how: Thoroughness,
    /// Where charts and the like go.
    pub out: PathBuf,
    /// What has been measured.
    pub book: Book,
    suite: &'static str,
    until: Instant,
    /// When there is time for first rounds alone; nothing while programs are built and hosts come up for the first time.
    last: Option<Instant>,
    stage: Option<Stage>,
}

/// Of a quick run, from its hosts' coming up; the rest is for first rounds that are still due.
const QUICK: Duration = Duration::from_secs(480);

/// Two hosts with everything on them, which know each other.
#[derive(Debug)]
struct Stage {
    hosts: [Arc<Host>; 2],
    images: BTreeSet<&'static str>,
    shared: BTreeSet<&'static str>,
    clients: bool,
    /// The hosts go down with it.
    _session: Session,
}

impl Bench {
    /// Nothing measured yet.
    pub fn new(how: Thoroughness, out: &Path) -> Self {
        let (book, until) = (Book::default(), Instant::now());
        Self { how, out: out.to_owned(), book, suite: "", until, last: None, stage: None }
    }

    /// Begins a suite, which has so much time for rounds beyond its first.
    pub fn begin(&mut self, suite: &'static str, limit: Duration) {
        (self.suite, self.until) = (suite, Instant::now() + limit);
    }

    /// Measures something as another suite's.
    ///
    /// # Errors
    /// Those of `measure`.
    pub fn within<T>(
        &mut self,
        suite: &'static str,
        measure: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        let own = std::mem::replace(&mut self.suite, suite);
        let measured = measure(self);
        self.suite = own;
        measured
    }

    /// Whether there is time for more rounds.
    pub fn has_time(&self) -> bool {
        let now = Instant::now();
        now < self.until && (!self.how.quick || self.last.is_none_or(|last| now < last))
    }

    /// Rounds of a suite: few in a quick run.
    pub fn rounds(&self, quick: usize, thorough: usize) -> usize {
        self.how.rounds.unwrap_or(if self.how.quick { quick } else { thorough }).max(1)
    }

    /// Whether this part is asked for, by any of its names.
    pub fn wants(&self, names: &[&str]) -> bool {
        let only = &self.how.only;
        only.is_empty() || only.iter().any(|part| names.iter().any(|name| name.contains(part.as_str())))
    }

    /// Writes down one measurement.
    pub fn add(&mut self, work: &str, tool: &str, metric: Metric, value: f64) {
        eprintln!("  {} {work} {tool}: {} {value:.1} {}", self.suite, metric.name, metric.unit);
        self.note(work, tool, metric, value);
    }

    /// The same without a word.
    pub fn note(&mut self, work: &str, tool: &str, metric: Metric, value: f64) {
        let (suite, work, tool) = (self.suite, work.to_owned(), tool.to_owned());
        self.book.add(Subject { suite, work, tool, metric: metric.name, unit: metric.unit }, value);
    }

    /// Says why a tool is left out.
    pub fn leave_out(&mut self, tool: &str, reason: &str) {
        eprintln!("  {} without {tool}: {reason}", self.suite);
        self.book.leave_out(self.suite, tool, reason);
    }

    /// Says what went wrong with one part; the others go on.
    pub fn fail(&mut self, part: &str, error: &anyhow::Error) {
        eprintln!("  {} {part} FAILED: {error:#}", self.suite);
        self.book.fail(self.suite, part, &format!("{error:#}"));
    }

    /// The two hosts, with these images in containerd. Both run Debian forky, whose own CRIU can dump TCP sockets.
    ///
    /// # Errors
    /// When they cannot be made.
    pub fn hosts(&mut self, images: &[&'static str]) -> Result<[Arc<Host>; 2]> {
        if self.stage.is_none() {
            let begun = Instant::now();
            let stage = Stage::up().context("no hosts")?;
            self.until += begun.elapsed();
            self.last.get_or_insert_with(|| Instant::now() + QUICK);
            self.book.machine.versions = stage.versions();
            self.stage = Some(stage);
        }
        let stage = self.stage.as_mut().context("no hosts")?;
        stage.import(images)?;
        Ok(stage.hosts.clone())
    }

    /// The same, with docker and podman, which have the images as well.
    ///
    /// # Errors
    /// When they cannot be made.
    pub fn hosts_with_clients(&mut self, images: &[&'static str]) -> Result<[Arc<Host>; 2]> {
        let hosts = self.hosts(images)?;
        let stage = self.stage.as_mut().context("no hosts")?;
        stage.start_clients()?;
        stage.share(images)?;
        Ok(hosts)
    }

    /// Takes the hosts down, for whatever was left in them; the next suite gets new ones.
    pub fn down(&mut self) {
        self.stage = None;
    }
}

impl Stage {
    fn up() -> Result<Self> {
        let session = Session::start()?;
        let up = |name| session.equipped_host(name, Generation::Forky, Equipment::Clients);
        let hosts = [up("a")?, up("b")?];
        let dist = dist::build()?;
        apps::all().iter().try_for_each(|app| app.prepare(&session))?;
        for host in &hosts {
            host.install(&dist)?;
            host.start_containerd()?;
        }
        cluster(&[&hosts[0], &hosts[1]])?;
        Ok(Self {
            hosts,
            images: BTreeSet::new(),
            shared: BTreeSet::new(),
            clients: false,
            _session: session,
        })
    }

    fn import(&mut self, images: &[&'static str]) -> Result<()> {
        let missing: Vec<_> = images.iter().copied().filter(|name| !self.images.contains(name)).collect();
        if !missing.is_empty() {
            self.hosts.iter().try_for_each(|host| host.import_images(&missing))?;
            self.images.extend(missing);
        }
        Ok(())
    }

    fn start_clients(&mut self) -> Result<()> {
        if !self.clients {
            self.hosts.iter().try_for_each(|host| host.start_clients())?;
            self.clients = true;
        }
        Ok(())
    }

    fn share(&mut self, images: &[&'static str]) -> Result<()> {
        let missing: Vec<_> = images.iter().copied().filter(|name| !self.shared.contains(name)).collect();
        if !missing.is_empty() {
            // One by one: of an archive with several, podman 5.8 takes the first.
            for host in &self.hosts {
                missing.iter().try_for_each(|name| host.share_images(&[name]))?;
            }
            self.shared.extend(missing);
        }
        Ok(())
    }

    /// In one line: with what was compared.
    fn versions(&self) -> String {
        const ASK: &str = "runc --version | awk 'NR==1{print \"runc\",$3}'; criu --version | awk 'NR==1{print \"CRIU\",$2}'; \
            containerd --version | awk '{print \"containerd\",$3}'; podman --version | awk '{print \"podman\",$3}'; \
            docker --version | awk '{print \"docker\",$3}' | tr -d ,";
        let told = self.hosts[0].sh(ASK).ok().unwrap_or_default();
        told.lines().collect::<Vec<_>>().join(", ")
    }
}
