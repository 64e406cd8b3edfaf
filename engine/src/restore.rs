//! A restore, step by step: check, make room, let CRIU bring the tree up below the init, let the init adopt it.
//!
//! Whatever fails, what was half restored is killed, the container is in standby, and another try can succeed.

use std::path::PathBuf;
use std::time::Instant;

use fastmig_criu::{Common, Launch, Notification, RestoreOptions};
use serde::Serialize;

use crate::capabilities::Memory;
use crate::clock::milliseconds;
use crate::container::{Container, Operation};
use crate::image::{cpu_features, Image, Manifest, FORMAT_IN_ROUNDS};
use crate::migration::filled::Filled;
use crate::recipient::{self, Recipient};
use crate::resources::Resources;
use crate::root_files;
use crate::start_options::TcpPolicy;
use crate::state::Failure;
use crate::{at_rest, trace, Error};

/// A restore that is asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// The checkpoint.
    pub path: PathBuf,
    /// What becomes of the TCP connections in it; as it was taken when not given.
    pub tcp: Option<TcpPolicy>,
    /// Where CRIU's log is put too, as `restore.log`.
    pub work_path: Option<PathBuf>,
}

impl Request {
    /// A restore from the checkpoint at `path`.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path, tcp: None, work_path: None }
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
    match &result {
        Ok(_) => operation.unlock_network(),
        Err(e) => operation.record.last_failure = Some(Failure::now("restore", e)),
    }
    operation.save()?;
    result
}

fn attempt(container: &Container, operation: &Operation, request: &Request) -> Result<Report, Error> {
    let (begun, measured) = (Instant::now(), container.measured());
    let image = Image::open(&request.path)?;
    image.manifest.check_fit(&image.path, operation.record.terminal, &cpu_features())?;
    let recipient = Recipient::admit(container, &image.manifest, &image.path)?;
    // Its memory is looked at as it is filled in, which is before anything changes here.
    let filled = fill(container, request, &image)?;
    let verify_ms = milliseconds(begun);

    root_files::put_back(container, &operation.record.volumes, &image)?;
    recipient.expect()?;
    let restored = Instant::now();
    let result = run_criu(container, request, image, filled, &recipient).and_then(|()| recipient.adopt());
    if result.is_err() {
        recipient::clear(container);
    }
    result.map(|()| Report {
        path: request.path.clone(),
        application_pid: recipient.root().get(),
        verify_ms,
        restore_ms: milliseconds(restored),
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
        common: Common { tcp, ..Common::from(manifest) },
    })
}

/// A CRIU that waits with the memory of a checkpoint by rounds; nothing for others.
fn fill(container: &Container, request: &Request, image: &Image) -> Result<Option<Filled>, Error> {
    if image.manifest.format != FORMAT_IN_ROUNDS {
        return Ok(None);
    }
    let bundle = container.criu_bundle()?;
    let mut launch = recipient::launch(container, &bundle, Memory::IsThere)?;
    let options = options(container, request, &image.manifest, &mut launch)?;
    let mut filled = Filled::start(container, launch, options)?;
    at_rest::fill(image, &mut filled)?;
    Ok(Some(filled))
}

fn run_criu(
    container: &Container,
    request: &Request,
    image: Image,
    filled: Option<Filled>,
    recipient: &Recipient<'_>,
) -> Result<(), Error> {
    let mut root = None;
    let mut follow = |stage| {
        if stage == Notification::PreResume {
            // Later it may have ended already.
            root = recipient.host_root().map_err(|e| e.report())?.map(|_| recipient.root().get());
        }
        recipient.follow(stage)
    };
    let (restored, log) = if let Some(filled) = filled {
        let log = filled.log.clone();
        let restored = filled.restore_whole(&at_rest::Images::of(&image), &mut follow);
        // Who is at the root's number is the root.
        (restored.map(|()| root), log)
    } else {
        let bundle = container.criu_bundle()?;
        let mut launch = recipient::launch(container, &bundle, Memory::IsThere)?;
        let options = options(container, request, &image.manifest, &mut launch)?;
        let options = RestoreOptions { images: launch.pass_directory(image.directory.into()), ..options };
        let log = crate::logs::new_log(&container.config, container.key(), "restore")?;
        let work = crate::logs::work_directory(&container.config)?;
        (launch.start(&work, &log)?.restore(&options, &mut follow).map(Some).map_err(Error::from), log)
    };
    crate::logs::copy(&log, request.work_path.as_deref(), "restore.log");
    let pid = restored?;
    crate::logs::forget(&log);
    if pid != Some(recipient.root().get()) {
        return Err(crate::image::ImageError::Damaged {
            path: request.path.clone(),
            file: crate::image::MANIFEST.into(),
            problem: "names another root than CRIU restored",
        }
        .into());
    }
    Ok(())
}
