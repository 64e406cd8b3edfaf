//! The destination: an application that comes into a container in standby, and is held there until it may run.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fastmig_control::{State, INIT_PATH};
use fastmig_criu::{Common, ImageSource, Launch, Log, RestoreOptions, StreamedRestore};

use super::filled::{Filled, Room, Takes};
use super::filler::Filler;
use super::fingerprint::Fingerprint;
use super::mark::{Mark, Role};
use super::owing::Owing;
use super::ticket::Ticket;
use super::Way;
use crate::capabilities::Memory;
use crate::container::{Container, Operation};
use crate::freeze::awake::Awake;
use crate::freeze::gate::Gate;
use crate::freeze::hold::Hold;
use crate::image::{cpu_features, ImageError, Manifest};
use crate::recipient::{self, Recipient};
use crate::root_files;
use crate::state::{Failure, ProcessMark};
use crate::trace::Traced;
use crate::tree::{apparmor, application};
use crate::Error;

/// Where the manifest comes from, in messages.
const STREAM: &str = "stream";

/// How long all that is missing may take to come before memory is compared.
const COMPARED: Duration = Duration::from_secs(60);

/// A container that takes an application in. It is locked; dropped before the application is released, it is in standby.
#[derive(Debug)]
pub struct Arrival {
    id: String,
    traced: Traced,
    container: Container,
    ticket: Option<Ticket>,
    criu: Option<Ready>,
    /// From the last round on.
    gate: Option<Gate>,
    /// From then on, until the application runs.
    awake: Option<Awake>,
    /// What the restored application misses.
    filler: Option<Filler>,
    /// This host's, read before the freeze: the kernel takes its time for an answer.
    cpu_features: BTreeSet<String>,
    /// It is decided that the application runs here, or does not.
    decided: bool,
    operation: Operation,
}

/// A CRIU that waits for images.
#[derive(Debug)]
enum Ready {
    Streamed { restore: StreamedRestore, log: Log },
    Filled(Box<Filled>),
}

impl Ready {
    fn pid(&self) -> i32 {
        match self {
            Self::Streamed { restore, .. } => i32::try_from(restore.pid()).unwrap_or_default(),
            Self::Filled(filled) => filled.pid(),
        }
    }

    fn log(&self) -> Log {
        match self {
            Self::Streamed { log, .. } => log.clone(),
            Self::Filled(filled) => filled.log.clone(),
        }
    }
}

impl Container {
    /// Begins to take an application in; migration `id` decides about it until the arrival is over.
    ///
    /// # Errors
    /// When the container is not in standby, or paused.
    pub fn arrive(&self, id: &str) -> Result<Arrival, Error> {
        let operation = self.begin_warm("migrate into")?;
        if operation.record.paused {
            return Err(Error::Paused { id: self.key().id().into(), action: "migrate into" });
        }
        recipient::abandon_interrupted(self)?;
        self.require_standby("migrate into")?;
        let (ticket, criu, gate, awake, filler, decided) = (None, None, None, None, None, false);
        let cpu_features = cpu_features();
        let traced = Traced::on(&self.config, &self.key, Some(id));
        traced.tell("began", "arrive", None, None);
        let (id, container) = (id.into(), self.clone());
        Ok(Arrival {
            id,
            traced,
            container,
            ticket,
            criu,
            gate,
            awake,
            filler,
            cpu_features,
            decided,
            operation,
        })
    }
}

impl Arrival {
    /// The container.
    #[must_use]
    pub fn container(&self) -> &Container {
        &self.container
    }

    /// Puts files back. They stay, whatever becomes of the migration: the next one puts its own over them.
    ///
    /// # Errors
    /// When the archive is damaged, leads out of the root, or a file cannot be written.
    pub fn unpack_files(&mut self, archive: &mut dyn Read) -> Result<fastmig_rootfs::Summary, Error> {
        root_files::unpack_from(&self.container, &self.operation.record.volumes, archive)
    }

    /// Starts CRIU, which then waits for its first image.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn ready(&mut self, ticket: Ticket, way: Way) -> Result<(), Error> {
        if !ticket.is_plausible() {
            let problem = "names streams that no container has";
            return Err(ImageError::Damaged { path: STREAM.into(), file: "ticket".into(), problem }.into());
        }
        let bundle = self.container.criu_bundle()?;
        let mut launch = recipient::launch(&self.container, &bundle, memory(way))?;
        let options = RestoreOptions {
            images: -1,
            lazy: false,
            inherited: recipient::inherited_streams(&mut launch, self.container.pid(), &ticket.stdio)?,
            label: apparmor::to_restore(self.container.pid()),
            common: Common {
                tcp: ticket.tcp.into(),
                external_unix_sockets: ticket.external_unix_sockets,
                file_locks: ticket.file_locks,
                shell_job: false,
            },
        };
        self.criu = Some(match way {
            Way::Stream => self.start_streaming(launch, options)?,
            Way::Rounds => Ready::Filled(Box::new(Filled::start(&self.container, launch, options)?)),
        });
        self.ticket = Some(ticket);
        Ok(())
    }

    fn start_streaming(&self, launch: Launch<'_>, options: RestoreOptions) -> Result<Ready, Error> {
        let config = &self.container.config;
        let log = crate::logs::new_log(config, self.container.key(), "restore")?;
        let work = crate::logs::work_directory(config)?;
        let restore = launch.start_restore(&work, &log, INIT_PATH.as_ref(), options)?;
        Ok(Ready::Streamed { restore, log })
    }

    /// Makes room for a round of memory, which `plan` describes.
    ///
    /// # Errors
    /// When the plan is damaged, or there is no room.
    pub fn round(&mut self, plan: &[u8]) -> Result<Room, Error> {
        match &mut self.criu {
            Some(Ready::Filled(filled)) => {
                let room = filled.round(plan)?;
                if filled.has_all_rounds() {
                    self.gate = Some(self.open_gate()?);
                    self.awake = Some(Awake::keep());
                }
                Ok(room)
            }
            _ => Err(Error::OutOfTurn { id: self.container.key().id().into(), action: "fill" }),
        }
    }

    /// All content of a round is in its place, while the application runs at the source: what makes the restore shorter is done
    /// now.
    ///
    /// # Errors
    /// When CRIU is gone.
    pub fn round_is_there(&mut self) -> Result<(), Error> {
        match &mut self.criu {
            Some(Ready::Filled(filled)) => {
                self.gate =
                    Some(Gate::open_ahead(&self.container.application_cgroup()?, self.container.pid()));
                filled.round_is_there()
            }
            _ => Err(Error::OutOfTurn { id: self.container.key().id().into(), action: "fill" }),
        }
    }

    /// Whether CRIU still waits for the end of the rounds.
    ///
    /// # Errors
    /// When it was killed.
    pub fn still_waits(&mut self) -> Result<(), Error> {
        match &mut self.criu {
            Some(Ready::Filled(filled)) => filled.require_criu(),
            _ => Ok(()),
        }
    }

    /// What the last round owes is fetched by `errand`, by a process that needs us no longer than until it is decided that the
    /// application lives here.
    ///
    /// # Errors
    /// When it cannot be started, or nothing is owed.
    pub fn owed(&mut self, errand: &str) -> Result<(), Error> {
        let debt = match &self.criu {
            Some(Ready::Filled(filled)) => filled.debt(),
            _ => None,
        };
        let id = self.container.key().id();
        let debt = debt.ok_or_else(|| Error::OutOfTurn { id: id.into(), action: "fill" })?;
        let started = Filler::start(&self.container, errand, debt);
        self.filler = Some(started.map_err(|e| self.cannot_fill(e))?);
        Ok(())
    }

    fn cannot_fill(&self, e: io::Error) -> Error {
        Error::io("fill the memory of the application in", &self.container.directory.file(""), e)
    }

    /// Restores what `manifest` describes from `images`. It is whole then, the init's child, and frozen.
    ///
    /// # Errors
    /// When it does not fit, or CRIU fails: the container is in standby then.
    pub fn restore(&mut self, manifest: &Manifest, images: impl ImageSource + 'static) -> Result<(), Error> {
        let _scope = self.traced.enter();
        let images: Arc<dyn ImageSource> = Arc::new(images);
        let (Some(ready), Some(ticket)) = (self.criu.take(), self.ticket.take()) else {
            return Err(Error::OutOfTurn { id: self.container.key().id().into(), action: "restore into" });
        };
        let stream = Path::new(STREAM);
        if !ticket.covers(manifest) {
            let problem = "does not belong to the application that was announced";
            let file = crate::image::MANIFEST.into();
            return Err(ImageError::Damaged { path: stream.into(), file, problem }.into());
        }
        manifest.check_fit(stream, self.operation.record.terminal, &self.cpu_features)?;
        let container = self.container.clone();
        let recipient = Recipient::admit(&container, manifest, stream)?;
        let images = recipient.watch(images);
        self.mark(&ready)?;
        self.awake.get_or_insert_with(Awake::keep);
        // Kept while CRIU restores.
        let _gate = self.gate.take().map_or_else(|| self.open_gate(), Ok)?;
        recipient.expect()?;
        let result = self.run_criu(ready, &images, &recipient).and_then(|()| {
            recipient.adopt()?;
            // What is missing begins to come; nothing of the application has run.
            self.filler.as_ref().map_or(Ok(()), Filler::go_on).map_err(|e| self.cannot_fill(e))
        });
        if let Err(e) = &result {
            self.operation.record.last_failure = Some(Failure::now("migrate into", e));
            recipient::clear(&container);
            self.stop_filling();
            self.forget_mark()?;
        }
        result
    }

    fn open_gate(&self) -> Result<Gate, Error> {
        Ok(Gate::keep_open(&self.container.application_cgroup()?, self.container.pid()))
    }

    /// From the first restored process on, only the migration decides what becomes of them.
    fn mark(&mut self, ready: &Ready) -> Result<(), Error> {
        let criu = ProcessMark::of(ready.pid());
        let filler = self.filler.as_ref().and_then(Filler::mark);
        self.operation.record.migration =
            Some(Mark { fenced: true, criu, filler, ..Mark::new(&self.id, Role::Arriving) });
        self.operation.save()
    }

    fn run_criu(
        &self,
        ready: Ready,
        images: &Arc<dyn ImageSource>,
        recipient: &Recipient<'_>,
    ) -> Result<(), Error> {
        let (criu, log) = (ready.pid(), ready.log());
        let mut hold = Hold::new(&self.container, recipient, criu);
        let mut follow = |stage| hold.follow(stage);
        match ready {
            Ready::Streamed { restore, .. } => restore.restore(images, &mut follow)?,
            Ready::Filled(filled) => {
                if filled.debt().is_some() && self.filler.is_none() {
                    let id = self.container.key().id().into();
                    return Err(Error::OutOfTurn { id, action: "restore into" });
                }
                let brings = self.filler.as_ref().map(|filler| filler as &dyn Takes);
                filled.restore(images.as_ref(), brings, &mut follow)?;
            }
        }
        if recipient.host_root().is_none() {
            let problem = "names another root than CRIU restored";
            let file = crate::image::MANIFEST.into();
            return Err(ImageError::Damaged { path: STREAM.into(), file, problem }.into());
        }
        log.forget();
        Ok(())
    }

    /// Compares all memory of what was restored with a [`super::Departure::fingerprint`]. How many pages were compared.
    ///
    /// # Errors
    /// When they differ.
    pub fn compare(&self, fingerprint: &[u8]) -> Result<u64, Error> {
        if let Some(filler) = &self.filler {
            // What is not there cannot be compared: all of it comes first.
            let filled =
                filler.wait(COMPARED).map_err(|reason| self.cannot_fill(io::Error::other(reason)))?;
            filled.then_some(()).ok_or_else(|| self.cannot_fill(io::ErrorKind::TimedOut.into()))?;
        }
        let problem = "is no fingerprint of memory";
        let damaged = || ImageError::Damaged { path: STREAM.into(), file: "fingerprint".into(), problem };
        let fingerprint = Fingerprint::decode(fingerprint).ok_or_else(damaged)?;
        fingerprint.compare(&self.container.application_cgroup()?.pids())
    }

    /// Whether what was restored is still there, and frozen.
    ///
    /// # Errors
    /// When somebody has killed it meanwhile, or its container, or thawed it.
    pub fn verify(&mut self) -> Result<(), Error> {
        let container = &self.container;
        let cgroup = container.application_cgroup()?;
        let failed = |e| Error::io("look after what was restored in", cgroup.directory(), e);
        // An init that does not answer was killed.
        let root = match container.init().and_then(|init| init.status()).map(|status| status.state) {
            Ok(State::Running(root)) => application::host_pid_of(root.get(), cgroup.pids()),
            _ => None,
        };
        let lives = root.is_some_and(|root| !application::is_zombie(root));
        if lives && cgroup.holds().map_err(failed)? {
            return self.filler.as_ref().map_or(Ok(()), Filler::watch).map_err(|e| self.cannot_fill(e));
        }
        Err(Error::Lost { id: container.key().id().into() })
    }

    /// It runs.
    ///
    /// # Errors
    /// When it cannot be thawed: it stays frozen.
    pub fn release(mut self) -> Result<Option<Owing>, Error> {
        self.traced.tell("done", "arrive", None, None);
        self.decided = true;
        let cgroup = self.container.application_cgroup()?;
        cgroup.thaw().map_err(|e| Error::io("thaw the application in", cgroup.directory(), e))?;
        self.awake = None;
        self.operation.unlock_network();
        if let Some(filler) = self.filler.take() {
            // Its mark stays, fenced: nobody else may touch it.
            return Ok(Some(Owing::new(self, filler)));
        }
        self.forget_mark()?;
        Ok(None)
    }

    /// It never runs here; the container is in standby.
    ///
    /// # Errors
    /// When it cannot be killed: it stays frozen.
    pub fn abandon(mut self) -> Result<(), Error> {
        self.traced.tell("failed", "arrive", None, None);
        self.criu = None;
        self.give_up()?;
        self.decided = true;
        Ok(())
    }

    pub(super) fn operation(&mut self) -> &mut Operation {
        &mut self.operation
    }

    fn give_up(&mut self) -> Result<(), Error> {
        if self.operation.record.migration.is_none() {
            self.stop_filling();
            return Ok(());
        }
        super::settle::empty(&self.container, self.operation.record.migration.as_ref())?;
        self.stop_filling();
        self.forget_mark()
    }

    /// There is nothing to be filled any more.
    fn stop_filling(&mut self) {
        if let Some(filler) = self.filler.take() {
            filler.stop();
        }
    }

    fn forget_mark(&mut self) -> Result<(), Error> {
        self.operation.record.migration = None;
        self.operation.save()
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        if self.decided {
            return;
        }
        self.criu = None;
        if let Err(e) = self.give_up() {
            tracing::error!(error = %e.report(), "what had arrived stays, frozen");
        }
    }
}
/// With rounds the last of it may be owed.
const fn memory(way: Way) -> Memory {
    match way {
        Way::Stream => Memory::IsThere,
        Way::Rounds => Memory::MayFollow,
    }
}
