//! `delete`: removes what a shim that is no more has left of a container.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use containerd_shim::api::DeleteResponse;
use containerd_shim::protos::protobuf::Message;
use containerd_shim::Flags;
use fastmig_engine::{Config, Container, Key};
use time::OffsetDateTime;

use crate::create::PID_FILE;
use crate::error::Error;
use crate::events::to_timestamp;
use crate::options::Options;
use crate::{launch, operations, rootfs};

/// Nobody saw how it ended: it was killed, now at the latest.
const EXIT_STATUS: u32 = 128 + libc::SIGKILL.unsigned_abs();

/// Answers on standard output. The crate would too, but does not wait until its answer is written: containerd then took a killed
/// container for one that had ended well.
pub(crate) fn answer(flags: &Flags) -> io::Result<()> {
    let response =
        delete(&flags.bundle, &flags.namespace, &flags.id).map_err(|e| io::Error::other(e.report()))?;
    let mut output = io::stdout();
    output.write_all(&response.write_to_bytes().map_err(io::Error::other)?)?;
    output.flush()
}

/// Each step is tried, whatever became of those before it; containerd logs what is said on standard error.
pub(crate) fn delete(bundle: &str, namespace: &str, id: &str) -> Result<DeleteResponse, Error> {
    let bundle = bundle_path(bundle, id)?;
    if let Err(error) = purge(&bundle, namespace, id) {
        eprintln!("failed to remove container {id}: {}", error.report());
    }
    if let Err(error) = rootfs::unmount(&bundle.join("rootfs")) {
        eprintln!("failed to clean up rootfs mount of {id}: {}", error.report());
    }
    if let Err(error) = launch::forget(&bundle) {
        eprintln!("failed to remove the socket of the shim of {id}: {}", error.report());
    }
    Ok(DeleteResponse {
        pid: read_pid(&bundle).unwrap_or(0),
        exit_status: EXIT_STATUS,
        exited_at: Some(to_timestamp(OffsetDateTime::now_utc())).into(),
        ..DeleteResponse::default()
    })
}

fn purge(bundle: &Path, namespace: &str, id: &str) -> Result<(), Error> {
    let failed = "purge failed";
    let key = Key::new(namespace, id).map_err(Error::engine(failed))?;
    let config = Config::load().map_err(Error::engine(failed))?;
    operations::forget(&config, namespace, id);
    let runc = Options::load(bundle).runc(namespace, &config.runtime);
    Container::purge(&config, &key, &runc).map_err(Error::engine(failed))
}

/// containerd says where it is, or runs this in it or beside it.
fn bundle_path(bundle: &str, id: &str) -> Result<PathBuf, Error> {
    if !bundle.is_empty() {
        return Ok(bundle.into());
    }
    let here = std::env::current_dir().map_err(|e| Error::io("find", "the bundle", e))?;
    Ok(here.with_file_name(id))
}

fn read_pid(bundle: &Path) -> Option<u32> {
    std::fs::read_to_string(bundle.join(PID_FILE)).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bundle_is_the_one_given_or_beside_the_working_directory() {
        assert_eq!(bundle_path("/run/b/c1", "c1").unwrap(), Path::new("/run/b/c1"));
        let beside = bundle_path("", "c1").unwrap();
        assert_eq!(beside.parent(), std::env::current_dir().unwrap().parent());
        assert_eq!(beside.file_name().unwrap(), "c1");
    }

    #[test]
    fn a_pid_file_may_be_missing_or_strange() {
        let bundle = tempfile::tempdir().unwrap();
        assert_eq!(read_pid(bundle.path()), None);
        std::fs::write(bundle.path().join(PID_FILE), "1234").unwrap();
        assert_eq!(read_pid(bundle.path()), Some(1234));
        std::fs::write(bundle.path().join(PID_FILE), "x").unwrap();
        assert_eq!(read_pid(bundle.path()), None);
    }
}
