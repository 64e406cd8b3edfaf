//! The manifest: what makes a directory of CRIU's files a checkpoint.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::ops::RangeInclusive;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::failed;
use super::{open_nofollow, open_trusted, others_may_change, ImageError};
use crate::start_options::TcpPolicy;

/// The version of the manifest that this code writes, and the only one that it reads.
pub const FORMAT: u32 = 1;

/// The manifest's file name.
pub const MANIFEST: &str = "manifest.json";

/// A manifest lists files and pids; 100,000 processes need less.
const LARGEST_MANIFEST: u64 = 16 << 20;

/// Above the container's init, and no more than the kernel's own limit.
const POSSIBLE_PIDS: RangeInclusive<i32> = 2..=4_194_304;

/// What makes a directory of CRIU files a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// When it was taken, RFC 3339.
    pub created: String,
    /// The container image, as the client named it.
    pub image: Option<String>,
    /// The application's command.
    pub command: Vec<String>,
    /// The CRIU that took it.
    pub criu_version: String,
    /// The kernel that it was taken on.
    pub kernel: String,
    /// The machine (`x86_64`, ...).
    pub architecture: String,
    /// Instruction set extensions of the CPU that it was taken on.
    pub cpu_features: BTreeSet<String>,
    /// CRIU's names of the files that were the container's stdin, stdout and stderr.
    pub stdio: Vec<Stream>,
    /// Whether they are a terminal.
    pub terminal: bool,
    /// The pid of the application's root in its container.
    pub root_pid: i32,
    /// Every pid, thread id, group and session that must be free in the destination.
    pub pids: BTreeSet<i32>,
    /// What became of established TCP connections.
    pub tcp: TcpPolicy,
    /// Whether unix sockets to the outside were allowed.
    pub external_unix_sockets: bool,
    /// Whether file locks were dumped.
    pub file_locks: bool,
    /// The capabilities that its threads held: a container that does not allow them cannot take it in.
    #[serde(default)]
    pub capabilities: BTreeSet<String>,
    /// CRIU's files.
    pub files: Vec<FileEntry>,
}

impl Manifest {
    /// The manifest of the checkpoint at `path`; its files are not looked at.
    ///
    /// # Errors
    /// When there is none, it is damaged, or others than root could have changed it.
    pub fn read(path: &Path) -> Result<Self, ImageError> {
        open_trusted(path)?;
        read_manifest(path)
    }

    /// Reads one from its text; `from` is where it comes from.
    ///
    /// # Errors
    /// When it is damaged or of another format.
    pub fn parse(text: &[u8], from: &Path) -> Result<Self, ImageError> {
        let bad = |source| ImageError::BadManifest { path: from.into(), source };
        serde_json::from_slice::<Version>(text).map_err(bad)?.check(from)?;
        serde_json::from_slice::<Self>(text).map_err(bad)?.sensible(from)
    }

    /// Reads one that a peer has sent.
    ///
    /// # Errors
    /// When it makes no sense or is of another format.
    pub fn from_value(value: &Value, from: &Path) -> Result<Self, ImageError> {
        let bad = |source| ImageError::BadManifest { path: from.into(), source };
        Version::deserialize(value).map_err(bad)?.check(from)?;
        Self::deserialize(value).map_err(bad)?.sensible(from)
    }

    /// Refuses what no dump writes.
    fn sensible(self, from: &Path) -> Result<Self, ImageError> {
        let pids = || self.pids.iter().chain([&self.root_pid]);
        let files: BTreeSet<&str> = self.files.iter().map(|file| file.name.as_str()).collect();
        let streams: BTreeSet<u8> = self.stdio.iter().map(|stream| stream.number).collect();
        let problem = if pids().any(|pid| !POSSIBLE_PIDS.contains(pid)) {
            "names an impossible pid"
        } else if streams.len() < self.stdio.len() || streams.last() > Some(&2) {
            "names a standard stream (stdio) that there is not"
        } else if files.len() < self.files.len() {
            "names a file twice"
        } else {
            return Ok(self);
        };
        Err(ImageError::Damaged { path: from.into(), file: MANIFEST.into(), problem })
    }

    /// Refuses a machine or a container that this checkpoint, which lies at `path`, cannot come up in.
    pub(crate) fn check_fit(
        &self,
        path: &Path,
        terminal: bool,
        here: &BTreeSet<String>,
    ) -> Result<(), ImageError> {
        let path = path.to_path_buf();
        let ours = std::env::consts::ARCH;
        if self.architecture != ours {
            let theirs = self.architecture.clone();
            return Err(ImageError::Architecture { path, theirs, ours: ours.into() });
        }
        let missing: Vec<&str> = self.cpu_features.difference(here).map(String::as_str).take(20).collect();
        if !missing.is_empty() {
            return Err(ImageError::Cpu { path, missing: missing.join(", ") });
        }
        let word = |with: bool| if with { "with" } else { "without" };
        if self.terminal != terminal {
            return Err(ImageError::Terminal { path, theirs: word(self.terminal), ours: word(terminal) });
        }
        Ok(())
    }
}

/// One of the container's standard streams at the dump.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stream {
    /// 0, 1 or 2.
    pub number: u8,
    /// CRIU's name of it: `pipe:[inode]`, `tty[rdev:dev]`.
    pub key: String,
}

/// One file of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Its name in the directory.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// BLAKE3 of its content, in hexadecimal.
    pub blake3: String,
}

/// Looked at first: another version's manifest may have other fields.
#[derive(Deserialize)]
struct Version {
    format: u32,
}

impl Version {
    fn check(&self, from: &Path) -> Result<(), ImageError> {
        match self.format {
            FORMAT => Ok(()),
            found => Err(ImageError::Format { path: from.into(), found }),
        }
    }
}

/// What the checkpoint in `directory` says of itself. Its files are not looked at.
///
/// # Errors
/// When there is no manifest, or it is damaged or of another format.
pub fn manifest(directory: &Path) -> Result<Manifest, ImageError> {
    read_manifest(directory)
}

pub(super) fn read_manifest(directory: &Path) -> Result<Manifest, ImageError> {
    let path = directory.join(MANIFEST);
    let file = open_nofollow(&path, 0).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => ImageError::NoManifest { path: directory.into() },
        _ => failed("open", &path)(e),
    })?;
    let status = file.metadata().map_err(failed("read", &path))?;
    if !status.is_file() {
        let problem = "is not a file";
        return Err(ImageError::Damaged { path: directory.into(), file: MANIFEST.into(), problem });
    }
    if others_may_change(&status) {
        return Err(ImageError::Untrusted { path, owner: status.uid() });
    }
    let mut text = Vec::new();
    file.take(LARGEST_MANIFEST).read_to_end(&mut text).map_err(failed("read", &path))?;
    Manifest::parse(&text, directory)
}
