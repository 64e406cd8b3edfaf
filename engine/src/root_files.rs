//! What an application wrote in its container's root file system, in a checkpoint: one archive packed while the application
//! runs, and one, frozen, of what has changed since.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use fastmig_rootfs::{Packer, Summary, Volumes};

use crate::image::Image;
use crate::{Container, Error};

/// The archives' names in a checkpoint, in the order of their making.
const ARCHIVES: [&str; 2] = ["rootfs-1.tar.lz4", "rootfs-2.tar.lz4"];

/// The files of one checkpoint; nothing when none were asked for.
#[derive(Debug)]
pub(crate) struct RootFiles {
    packer: Option<Packer>,
    round: usize,
    entries: u64,
}

impl RootFiles {
    /// With these volumes.
    pub(crate) fn begin(container: &Container, volumes: Option<&Volumes>) -> Result<Self, Error> {
        let packer = volumes.map(|volumes| Packer::of(container.pid(), volumes)).transpose()?;
        Ok(Self { packer, round: 0, entries: 0 })
    }

    /// Packs what has changed since the last call, or may have, into the checkpoint that is being made in `directory`.
    /// `processes` are the application's.
    pub(crate) fn pack(&mut self, directory: &Path, processes: &BTreeSet<i32>) -> Result<(), Error> {
        let (Some(packer), Some(name)) = (&mut self.packer, ARCHIVES.get(self.round)) else { return Ok(()) };
        let path = directory.join(name);
        let failed = |e| Error::io("write", &path, e);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
        let mut out = BufWriter::new(file);
        self.entries += packer.round(&mut out, processes)?.entries;
        out.flush().map_err(failed)?;
        self.round += 1;
        Ok(())
    }

    /// Packs what has changed since the last call into `out`; nothing is an empty archive of ours.
    pub(crate) fn pack_into(
        &mut self,
        out: &mut dyn Write,
        processes: &BTreeSet<i32>,
    ) -> Result<Summary, Error> {
        let Some(packer) = &mut self.packer else { return Ok(Summary::default()) };
        let summary = packer.round(out, processes)?;
        self.entries += summary.entries;
        Ok(summary)
    }

    /// How much travels.
    pub(crate) fn entries(&self) -> u64 {
        self.entries
    }
}

/// The volumes of a container whose content others may bring: its client's, and those that its creator has named.
pub(crate) fn filled(named: &Volumes) -> Volumes {
    Volumes::all().and(named.clone())
}

/// Puts back what comes from another host, as [`put_back`] does. Where nothing comes there are no files to put back.
pub(crate) fn unpack_from(
    container: &Container,
    named: &Volumes,
    archive: &mut dyn Read,
) -> Result<Summary, Error> {
    let mut archive = BufReader::new(archive);
    let failed = |e| Error::io("read", Path::new("the archive"), e);
    if archive.fill_buf().map_err(failed)?.is_empty() {
        return Ok(Summary::default());
    }
    Ok(fastmig_rootfs::unpack(container.pid(), &filled(named), archive)?)
}

/// Puts the files of a verified checkpoint back, if it has any, into a container that is in standby; `named` are the volumes
/// that its creator has named.
pub(crate) fn put_back(container: &Container, named: &Volumes, image: &Image) -> Result<(), Error> {
    let volumes = filled(named);
    for name in ARCHIVES {
        if !image.manifest.files.iter().any(|file| file.name == name) {
            continue;
        }
        let path = image.path.join(name);
        let file = File::open(&path).map_err(|e| Error::io("open", &path, e))?;
        let summary = fastmig_rootfs::unpack(container.pid(), &volumes, BufReader::new(file))?;
        tracing::debug!(container = container.key().id(), name, entries = summary.entries, "files put back");
    }
    Ok(())
}
