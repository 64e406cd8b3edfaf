//! A restore, step by step: check, make room, let CRIU bring the tree up below the init, let the init adopt it.
//!
//! Whatever fails, what was half restored is killed, the container is in standby, and another try can succeed.

use std::path::PathBuf;
use std::time::Instant;

use fastmig_criu::{Common, RestoreOptions};
use serde::Serialize;

use crate::clock::milliseconds;
use crate::container::{Container, Operation};
use crate::image::{cpu_features, Image};
use crate::recipient::{self, Recipient};
use crate::root_files;
use crate::start_options::TcpPolicy;
use crate::state::Failure;
use crate::Error;

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
    let begun = Instant::now();
    let image = Image::open(&request.path)?;
    image.manifest.check_fit(&image.path, operation.record.terminal, &cpu_features())?;
    let recipient = Recipient::admit(container, &image.manifest, &image.path)?;
    let verify_ms = milliseconds(begun);

    root_files::put_back(container, &operation.record.volumes, &image)?;
    recipient.expect()?;
    let restored = Instant::now();
    let result = run_criu(container, request, image, &recipient).and_then(|()| recipient.adopt());
    if result.is_err() {
        recipient::clear(container);
    }
    result.map(|()| Report {
        path: request.path.clone(),
        application_pid: recipient.root().get(),
        verify_ms,
        restore_ms: milliseconds(restored),
        total_ms: milliseconds(begun),
    })
}

fn run_criu(
    container: &Container,
    request: &Request,
    image: Image,
    recipient: &Recipient<'_>,
) -> Result<(), Error> {
    let bundle = container.criu_bundle()?;
    let mut launch = recipient::launch(container, &bundle)?;
    let manifest = &image.manifest;
    let tcp = request.tcp.unwrap_or(manifest.tcp).into();
    let options = RestoreOptions {
        lazy: false,
        images: launch.pass_directory(image.directory.into()),
        inherited: recipient::inherited_streams(&mut launch, container.pid(), &manifest.stdio)?,
        common: Common { tcp, ..Common::from(manifest) },
    };
    let log = crate::logs::new_log(&container.config, container.key(), "restore")?;
    let work = crate::logs::work_directory(&container.config)?;
    let restored = launch.start(&work, &log)?.restore(&options, &mut |stage| recipient.follow(stage));
    crate::logs::copy(&log, request.work_path.as_deref(), "restore.log");
    let pid = restored?;
    crate::logs::forget(&log);
    if pid != recipient.root().get() {
        return Err(crate::image::ImageError::Damaged {
            path: request.path.clone(),
            file: crate::image::MANIFEST.into(),
            problem: "names another root than CRIU restored",
        }
        .into());
    }
    Ok(())
}
