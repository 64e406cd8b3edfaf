//! A restore, step by step: check, make room, let CRIU bring the tree up below the init, let the init adopt it.
//!
//! Whatever fails, what was half restored is killed, the container is in standby, and another try can succeed.
//!
//! Of a checkpoint by rounds most memory can come later, in `following`: the application runs sooner then.

mod following;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use fastmig_control::INIT_PATH;
use fastmig_criu::{Common, Launch, Log, Notification, RestoreOptions};
use fastmig_memory::fill::Origin;
use serde::Serialize;

use following::Following;

use crate::at_rest::{self, Coming};
use crate::clock::milliseconds;
use crate::container::{Container, Operation};
use crate::freeze::awake::Awake;
use crate::freeze::hold::Hold;
use crate::image::{cpu_features, Image, Manifest, FORMAT_IN_ROUNDS};
use crate::migration::filled::{Filled, Takes};
use crate::migration::filling::Filling;
use crate::recipient::{self, Recipient};
use crate::resources::Resources;
use crate::root_files;
use crate::start_options::TcpPolicy;
use crate::state::Failure;
use crate::tree::apparmor;
use crate::{capabilities, trace, Error};

/// A restore that is asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// The checkpoint.
    pub path: PathBuf,
    /// What becomes of the TCP connections in it; as it was taken when not given.
    pub tcp: Option<TcpPolicy>,
    /// Where CRIU's log is put too, as `restore.log`.
    pub work_path: Option<PathBuf>,
    /// The application runs before all of its memory is read, and what it touches comes first. Only of a checkpoint by rounds. A
    /// page that is damaged is then found when the application runs, and ends it.
    pub lazy_pages: bool,
}

impl Request {
    /// A restore from the checkpoint at `path`.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path, tcp: None, work_path: None, lazy_pages: false }
    }
}

/// What a restore came to.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The checkpoint.
    pub path: PathBuf,
    /// The application's root, as the container counts it.
    pub application_pid: i32,
    /// The verification of the checkpoint, in milliseconds.
    pub verify_ms: u64,
    /// CRIU's part, in milliseconds.
    pub restore_ms: u64,
    /// All of it, in milliseconds.
    pub total_ms: u64,
    /// What it took of the host.
    pub resources: Resources,
    /// What followed when the application ran already.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub followed: Option<Followed>,
}

/// Memory that came when the application ran already.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Followed {
    /// From then on until all was there, in milliseconds.
    pub memory_ms: u64,
    /// How much of it was filled in.
    pub memory_bytes: u64,
    /// How often the application waited for some of it.
    pub faults: u64,
}

impl Container {
    /// Restores an application into this container, which must be in standby.
    ///
    /// # Errors
    /// When the checkpoint is damaged or does not fit, or CRIU fails: the container is in standby then.
    pub fn restore(&self, request: &Request) -> Result<Report, Error> {
        let mut operation = self.begin_warm("restore into")?;
        perform(self, &mut operation, request)
    }
}

pub(crate) fn perform(
    container: &Container,
    operation: &mut Operation,
    request: &Request,
) -> Result<Report, Error> {
    trace::operation(&container.config, &container.key, "restore", || restored(container, operation, request))
}

fn restored(container: &Container, operation: &mut Operation, request: &Request) -> Result<Report, Error> {
    if operation.record.paused {
        return Err(Error::Paused { id: container.key().id().into(), action: "restore into" });
    }
    recipient::abandon_interrupted(container)?;
    container.require_standby("restore into")?;
    let result = attempt(container, operation, request);
    if let Err(e) = &result {
        operation.record.last_failure = Some(Failure::now("restore", e));
    }
    operation.save()?;
    result
}

fn attempt(container: &Container, operation: &mut Operation, request: &Request) -> Result<Report, Error> {
    let (begun, measured) = (Instant::now(), container.measured());
    let image = Image::open(&request.path)?;
    image.manifest.check_fit(&image.path, operation.record.terminal, &cpu_features())?;
    let recipient = Recipient::admit(container, &image.manifest, &image.path)?;
    // Its memory is looked at as it is filled in, which is before anything changes here.
    let memory = fill(container, request, &image)?;
    let verify_ms = milliseconds(begun);

    root_files::put_back(container, &operation.record.volumes, &image)?;
    recipient.expect()?;
    let restored = Instant::now();
    let result = run_criu(container, request, image, memory, &recipient);
    let following = result.and_then(|following| recipient.adopt().map(|()| following));
    let following = following.inspect_err(|_| recipient::clear(container))?;
    if let Some(following) = &following {
        following.release().inspect_err(|_| recipient::clear(container))?;
    }
    let restore_ms = milliseconds(restored);
    operation.unlock_network();
    operation.save()?;
    Ok(Report {
        path: request.path.clone(),
        application_pid: recipient.root().get(),
        verify_ms,
        restore_ms,
        followed: following.map(Following::wait).transpose()?,
        total_ms: milliseconds(begun),
        resources: measured.so_far(),
    })
}

/// What CRIU is told but for where its images are.
fn options(
    container: &Container,
    request: &Request,
    manifest: &Manifest,
    launch: &mut Launch<'_>,
) -> Result<RestoreOptions, Error> {
    let tcp = request.tcp.unwrap_or(manifest.tcp).into();
    Ok(RestoreOptions {
        images: -1,
        lazy: false,
        inherited: recipient::inherited_streams(launch, container.pid(), &manifest.stdio)?,
        label: apparmor::to_restore(container.pid()),
        common: Common { tcp, ..Common::from(manifest) },
    })
}

/// A CRIU that waits with the memory of a checkpoint by rounds.
struct Memory {
    filled: Filled,
    /// Who has what comes later.
    creditor: Option<Arc<dyn Origin>>,
}

/// Nothing for a checkpoint whose memory CRIU reads.
fn fill(container: &Container, request: &Request, image: &Image) -> Result<Option<Memory>, Error> {
    if image.manifest.format != FORMAT_IN_ROUNDS {
        let path = image.path.clone();
        return if request.lazy_pages { Err(Error::NotInRounds { path }) } else { Ok(None) };
    }
    let (coming, may_follow) = if request.lazy_pages {
        (Coming::After, capabilities::Memory::MayFollow)
    } else {
        (Coming::Before, capabilities::Memory::IsThere)
    };
    let bundle = container.criu_bundle()?;
    let mut launch = recipient::launch(container, &bundle, may_follow)?;
    let options = options(container, request, &image.manifest, &mut launch)?;
    let mut filled = Filled::start(container, launch, options)?;
    let creditor = at_rest::fill(image, &mut filled, coming)?;
    Ok(Some(Memory { filled, creditor }))
}

/// What is done at CRIU's stages.
struct Stages<'a> {
    recipient: &'a Recipient<'a>,
    /// Nothing runs before whatever it may touch has somebody who brings it.
    hold: Option<Hold<'a>>,
    /// Who is at the root's number before anything runs. Later it may have ended already.
    root: Option<i32>,
}

impl Stages<'_> {
    fn follow(&mut self, stage: Notification) -> Result<(), String> {
        if stage == Notification::PreResume {
            let root = self.recipient.host_root();
            self.root = root.map(|_| self.recipient.root().get());
        }
        match &mut self.hold {
            Some(hold) => hold.follow(stage),
            None => self.recipient.follow(stage),
        }
    }
}

/// What follows was held before it ran; all else runs.
fn run_criu<'a>(
    container: &'a Container,
    request: &'a Request,
    image: Image,
    memory: Option<Memory>,
    recipient: &Recipient<'_>,
) -> Result<Option<Following<'a>>, Error> {
    let _awake = Awake::keep();
    let mut stages = Stages { recipient, hold: None, root: None };
    let (restored, log) = if let Some(Memory { filled, creditor }) = memory {
        let log = filled.log.clone();
        stages.hold = creditor.is_some().then(|| Hold::new(container, recipient, filled.pid()));
        let begin = |origin| Filling::begin(origin, filled.missing().to_vec());
        let filling = creditor.map(begin).transpose();
        let filling = filling.map_err(|e| Error::io("have memory follow from", &request.path, e))?;
        let brings = filling.as_ref().map(|filling| filling as &dyn Takes);
        let images = recipient.watch(Arc::new(at_rest::Images::of(&image)));
        let restored = filled.restore(images.as_ref(), brings, &mut |stage| stages.follow(stage));
        // Who is at the root's number is the root.
        (restored.map(|()| (stages.root, filling)), log)
    } else {
        let log = crate::logs::new_log(&container.config, container.key(), "restore")?;
        let restored = run_plain_criu(container, request, image, &log, &mut stages);
        (restored.map(|pid| (pid, None)), log)
    };
    crate::logs::copy(log.written(), request.work_path.as_deref(), "restore.log");
    let (pid, filling) = restored?;
    log.forget();
    if pid != Some(recipient.root().get()) {
        return Err(crate::image::ImageError::Damaged {
            path: request.path.clone(),
            file: crate::image::MANIFEST.into(),
            problem: "names another root than CRIU restored",
        }
        .into());
    }
    filling.map(|filling| Following::begin(container, &request.path, filling)).transpose()
}

/// Restores from CRIU's own images. Who is the root then.
fn run_plain_criu(
    container: &Container,
    request: &Request,
    image: Image,
    log: &Log,
    stages: &mut Stages<'_>,
) -> Result<Option<i32>, Error> {
    let bundle = container.criu_bundle()?;
    let mut launch = recipient::launch(container, &bundle, capabilities::Memory::IsThere)?;
    let options = options(container, request, &image.manifest, &mut launch)?;
    let work = crate::logs::work_directory(&container.config)?;
    let images = Arc::new(at_rest::Images::of(&image));
    if stages.recipient.may_read(images.as_ref())? {
        let options = RestoreOptions { images: launch.pass_directory(image.directory.into()), ..options };
        let restored = launch.start(&work, log)?.restore(&options, &mut |stage| stages.follow(stage));
        return Ok(Some(restored?));
    }
    let images = stages.recipient.watch(images);
    let restore = launch.start_restore(&work, log, INIT_PATH.as_ref(), options)?;
    restore.restore(&images, &mut |stage| stages.follow(stage))?;
    Ok(stages.root)
}
