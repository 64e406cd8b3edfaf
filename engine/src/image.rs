//! A checkpoint on disk: a directory with CRIU's files and, written last, the manifest that makes them one.
//!
//! A checkpoint is made beside its final place and renamed into it when complete: what has no manifest is no
//! checkpoint. Read back, it is hostile input: nothing in it decides policy, no name leaves the directory, and
//! sizes are checked before anything is allocated.

use std::collections::BTreeSet;
use std::fs::{DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{renameat2, RenameFlags, AT_FDCWD};
use serde::{Deserialize, Serialize};

use crate::start_options::TcpPolicy;

/// The version of the manifest that this code writes, and the only one that it reads.
pub const FORMAT: u32 = 1;

/// The manifest's file name.
pub const MANIFEST: &str = "manifest.json";

/// Whether `directory` holds a checkpoint of FastMig's, whole or damaged; runc's have no manifest.
#[must_use]
pub fn is_ours(directory: &Path) -> bool {
    directory.join(MANIFEST).exists()
}

/// A manifest lists files and pids; 100,000 processes need less.
const LARGEST_MANIFEST: u64 = 16 << 20;

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
    /// Refuses a machine or a container that this checkpoint, which lies at `path`, cannot come up in.
    pub(crate) fn check_fit(&self, path: &Path, terminal: bool) -> Result<(), ImageError> {
        let path = path.to_path_buf();
        let ours = std::env::consts::ARCH;
        if self.architecture != ours {
            let theirs = self.architecture.clone();
            return Err(ImageError::Architecture { path, theirs, ours: ours.into() });
        }
        let here = cpu_features();
        let missing: Vec<&str> = self.cpu_features.difference(&here).map(String::as_str).take(20).collect();
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

/// Why a directory is no usable checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// It has no manifest.
    #[error("{path:?} is not a checkpoint: it has no {MANIFEST} (an interrupted one has none)")]
    NoManifest {
        /// The directory.
        path: PathBuf,
    },
    /// The manifest is not what this version writes.
    #[error("the manifest of checkpoint {path:?} is damaged")]
    BadManifest {
        /// The directory.
        path: PathBuf,
        /// Where it is wrong.
        source: serde_json::Error,
    },
    /// It is of another format.
    #[error("checkpoint {path:?} has format {found}, this FastMig reads {FORMAT}")]
    Format {
        /// The directory.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// One of its files is not what the manifest says.
    #[error("checkpoint {path:?} is damaged: {file:?} {problem}; use another checkpoint")]
    Damaged {
        /// The directory.
        path: PathBuf,
        /// The file.
        file: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Others than root could have changed it.
    #[error(
        "checkpoint {path:?} belongs to uid {owner} or is writable by others: only root may own checkpoints"
    )]
    Untrusted {
        /// The directory.
        path: PathBuf,
        /// Who owns it.
        owner: u32,
    },
    /// This machine is of another kind.
    #[error("checkpoint {path:?} was taken on {theirs}, this machine is {ours}")]
    Architecture {
        /// The directory.
        path: PathBuf,
        /// The checkpoint's machine.
        theirs: String,
        /// This machine.
        ours: String,
    },
    /// This CPU lacks something.
    #[error("checkpoint {path:?} was taken on a CPU with {missing}, which this one lacks: restore on a host with a newer CPU")]
    Cpu {
        /// The directory.
        path: PathBuf,
        /// The missing features.
        missing: String,
    },
    /// The container has a terminal and the checkpoint has none, or the other way round.
    #[error(
        "checkpoint {path:?} was taken {theirs} a terminal, the container is {ours} one: create it alike"
    )]
    Terminal {
        /// The directory.
        path: PathBuf,
        /// `with` or `without`.
        theirs: &'static str,
        /// `with` or `without`.
        ours: &'static str,
    },
    /// The place for it is taken.
    #[error("{path:?} exists and is not empty: choose another place for the checkpoint")]
    Occupied {
        /// The directory.
        path: PathBuf,
    },
    /// A file operation failed.
    #[error("could not {action} {path:?}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn failed<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> ImageError + 'a {
    move |source| ImageError::Io { action, path: path.into(), source }
}

/// A checkpoint in the making. Dropped before [`Draft::publish`], it leaves nothing behind.
#[derive(Debug)]
pub(crate) struct Draft {
    place: PathBuf,
    directory: PathBuf,
    published: bool,
}

impl Draft {
    /// Begins a checkpoint that is to stand at `place`, which must not exist or be an empty directory, or hold the
    /// checkpoint that this one `replaces`.
    pub(crate) fn begin(place: &Path, replaces: bool) -> Result<Self, ImageError> {
        match std::fs::read_dir(place).map(Iterator::count) {
            Ok(0) => {}
            Ok(_) if replaces && is_ours(place) => {}
            Ok(_) => return Err(ImageError::Occupied { path: place.into() }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(failed("read", place)(e)),
        }
        if let Some(parent) = place.parent() {
            std::fs::create_dir_all(parent).map_err(failed("make", parent))?;
        }
        let mut name = place.file_name().unwrap_or_default().to_owned();
        name.push(format!(".partial-{}", std::process::id()));
        let directory = place.with_file_name(name);
        DirBuilder::new().mode(0o700).create(&directory).map_err(failed("make", &directory))?;
        Ok(Self { place: place.into(), directory, published: false })
    }

    /// Where CRIU writes.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Adds the manifest, with `files` filled in, and renames the checkpoint into place.
    pub(crate) fn publish(mut self, mut manifest: Manifest) -> Result<u64, ImageError> {
        manifest.files = describe_files(&self.directory)?;
        let size = manifest.files.iter().map(|file| file.size).sum();
        let path = self.directory.join(MANIFEST);
        let text = serde_json::to_vec_pretty(&manifest)
            .map_err(|source| ImageError::BadManifest { path: self.directory.clone(), source })?;
        write_private(&path, &text).map_err(failed("write", &path))?;
        self.put_in_place().map_err(failed("put in place", &self.place))?;
        self.published = true;
        Ok(size)
    }

    /// In one step, also where another checkpoint stands; that one goes then.
    fn put_in_place(&self) -> io::Result<()> {
        if !is_ours(&self.place) {
            return std::fs::rename(&self.directory, &self.place);
        }
        let exchange = RenameFlags::RENAME_EXCHANGE;
        renameat2(AT_FDCWD, &self.directory, AT_FDCWD, &self.place, exchange)?;
        std::fs::remove_dir_all(&self.directory)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.published {
            if let Err(e) = std::fs::remove_dir_all(&self.directory) {
                tracing::warn!(path = ?self.directory, error = %e, "an unfinished checkpoint could not be removed");
            }
        }
    }
}

/// A complete checkpoint whose files are what its manifest says.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) path: PathBuf,
    pub(crate) manifest: Manifest,
    pub(crate) directory: File,
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
}

impl Image {
    /// Opens and verifies the checkpoint at `path`.
    pub(crate) fn open(path: &Path) -> Result<Self, ImageError> {
        let directory = open_trusted(path)?;
        let manifest = read_manifest(path)?;
        refuse_strangers(path, &manifest)?;
        for entry in &manifest.files {
            verify_file(path, entry)?;
        }
        Ok(Self { path: path.into(), manifest, directory })
    }
}

/// What the checkpoint in `directory` says of itself. Its files are not looked at.
///
/// # Errors
/// When there is no manifest, or it is damaged or of another format.
pub fn manifest(directory: &Path) -> Result<Manifest, ImageError> {
    read_manifest(directory)
}

/// The directory, unless others could have changed it.
fn open_trusted(path: &Path) -> Result<File, ImageError> {
    let directory = open_nofollow(path, libc::O_DIRECTORY).map_err(failed("open checkpoint", path))?;
    let status = directory.metadata().map_err(failed("read", path))?;
    let ours = nix::unistd::geteuid().as_raw();
    if (status.uid() != 0 && status.uid() != ours) || status.mode() & 0o022 != 0 {
        return Err(ImageError::Untrusted { path: path.into(), owner: status.uid() });
    }
    Ok(directory)
}

fn read_manifest(directory: &Path) -> Result<Manifest, ImageError> {
    let path = directory.join(MANIFEST);
    let file = open_nofollow(&path, 0).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => ImageError::NoManifest { path: directory.into() },
        _ => failed("open", &path)(e),
    })?;
    let mut text = Vec::new();
    file.take(LARGEST_MANIFEST).read_to_end(&mut text).map_err(failed("read", &path))?;
    #[derive(Deserialize)]
    struct Version {
        format: u32,
    }
    let bad = |source| ImageError::BadManifest { path: directory.into(), source };
    let version: Version = serde_json::from_slice(&text).map_err(bad)?;
    if version.format != FORMAT {
        return Err(ImageError::Format { path: directory.into(), found: version.format });
    }
    serde_json::from_slice(&text).map_err(bad)
}

/// CRIU reads what it finds: an image file that the manifest does not vouch for is not left to it.
fn refuse_strangers(directory: &Path, manifest: &Manifest) -> Result<(), ImageError> {
    let known: BTreeSet<&str> = manifest.files.iter().map(|entry| entry.name.as_str()).collect();
    for entry in std::fs::read_dir(directory).map_err(failed("read", directory))? {
        let file = entry.map_err(failed("read", directory))?.file_name().to_string_lossy().into_owned();
        if file.ends_with(".img") && !known.contains(file.as_str()) {
            let problem = "is not in its manifest";
            return Err(ImageError::Damaged { path: directory.into(), file, problem });
        }
    }
    Ok(())
}

fn verify_file(directory: &Path, entry: &FileEntry) -> Result<(), ImageError> {
    let damaged = |problem| ImageError::Damaged { path: directory.into(), file: entry.name.clone(), problem };
    if !is_plain_name(&entry.name) {
        return Err(damaged("is not a plain file name"));
    }
    let path = directory.join(&entry.name);
    let file = open_nofollow(&path, 0).map_err(|_| damaged("is missing or not a file"))?;
    let status = file.metadata().map_err(failed("read", &path))?;
    if !status.is_file() {
        return Err(damaged("is not a file"));
    }
    if status.len() != entry.size {
        return Err(damaged("has another size than its manifest says"));
    }
    if digest(file).map_err(failed("read", &path))? != entry.blake3 {
        return Err(damaged("has another content than its manifest says"));
    }
    Ok(())
}

/// Whether `name` can be that of a checkpoint's file: it leads nowhere else.
#[must_use]
pub fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\0'])
}

fn describe_files(directory: &Path) -> Result<Vec<FileEntry>, ImageError> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed("read", directory))? {
        let entry = entry.map_err(failed("read", directory))?;
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        let file = open_nofollow(&path, 0).map_err(failed("open", &path))?;
        let size = file.metadata().map_err(failed("read", &path))?.len();
        files.push(FileEntry { name, size, blake3: digest(file).map_err(failed("read", &path))? });
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

fn digest(file: File) -> io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(io::BufReader::with_capacity(1 << 20, file))?;
    Ok(hasher.finalize().to_hex().to_string())
}

fn open_nofollow(path: &Path, flags: i32) -> io::Result<File> {
    File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | flags).open(path)
}

fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// The instruction set extensions of this machine's CPU: what a program may have seen and relied on.
pub(crate) fn cpu_features() -> BTreeSet<String> {
    const EXTENSIONS: &[&str] =
        &["sse", "ssse", "avx", "aes", "bmi", "fma", "sha", "vaes", "vpclmul", "gfni", "amx", "xsave", "adx"];
    const EXACT: &[&str] = &[
        "abm",
        "erms",
        "fsrm",
        "f16c",
        "movbe",
        "pclmulqdq",
        "pku",
        "popcnt",
        "rdrand",
        "rdseed",
        "rtm",
        "lzcnt",
    ];
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        matches!(name.trim(), "flags" | "Features").then(|| value.to_owned())
    });
    flags
        .unwrap_or_default()
        .split_whitespace()
        .filter(|flag| EXACT.contains(flag) || EXTENSIONS.iter().any(|e| flag.starts_with(e)))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        Manifest {
            format: FORMAT,
            created: "2026-01-01T00:00:00Z".into(),
            image: None,
            command: vec!["x".into()],
            criu_version: "4.2.1".into(),
            kernel: "6.18".into(),
            architecture: std::env::consts::ARCH.into(),
            cpu_features: BTreeSet::new(),
            stdio: vec![],
            terminal: false,
            root_pid: 1001,
            pids: BTreeSet::from([1001]),
            tcp: TcpPolicy::Close,
            external_unix_sockets: false,
            file_locks: true,
            capabilities: BTreeSet::new(),
            files: vec![],
        }
    }

    fn checkpoint() -> (tempfile::TempDir, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let place = root.path().join("ckpt");
        let draft = Draft::begin(&place, false).unwrap();
        std::fs::write(draft.directory().join("core-1001.img"), "core").unwrap();
        std::fs::write(draft.directory().join("pages-1.img"), vec![7; 5000]).unwrap();
        assert_eq!(draft.publish(manifest()).unwrap(), 5004);
        (root, place)
    }

    #[test]
    fn a_new_checkpoint_takes_the_place_of_an_old_one_when_it_is_whole() {
        let (root, place) = checkpoint();
        drop(Draft::begin(&place, true).unwrap());
        assert!(place.join("pages-1.img").exists(), "an unfinished one took it");
        let draft = Draft::begin(&place, true).unwrap();
        std::fs::write(draft.directory().join("core-1001.img"), "new").unwrap();
        draft.publish(manifest()).unwrap();
        assert_eq!(std::fs::read_to_string(place.join("core-1001.img")).unwrap(), "new");
        assert!(Image::open(&place).is_ok());
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 1, "the old one stays");
    }

    #[test]
    fn what_is_published_opens_again() {
        let (_root, place) = checkpoint();
        let image = Image::open(&place).unwrap();
        assert_eq!(image.manifest.files.len(), 2);
        image.manifest.check_fit(&place, false).unwrap();
        assert!(matches!(image.manifest.check_fit(&place, true), Err(ImageError::Terminal { .. })));
    }

    #[test]
    fn an_abandoned_draft_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let draft = Draft::begin(&root.path().join("ckpt"), false).unwrap();
        std::fs::write(draft.directory().join("x"), "x").unwrap();
        drop(draft);
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn an_empty_directory_is_replaced_and_a_full_one_refused() {
        let (_root, place) = checkpoint();
        assert!(matches!(Draft::begin(&place, false), Err(ImageError::Occupied { .. })));
        let empty = place.with_file_name("empty");
        std::fs::create_dir(&empty).unwrap();
        Draft::begin(&empty, true).unwrap().publish(manifest()).unwrap();
        assert!(empty.join(MANIFEST).exists());
    }

    #[test]
    fn every_kind_of_damage_is_noticed() {
        type Damage = (&'static str, fn(&Path));
        let damage: [Damage; 7] = [
            ("no manifest", |dir| std::fs::remove_file(dir.join(MANIFEST)).unwrap()),
            ("empty manifest", |dir| std::fs::write(dir.join(MANIFEST), "").unwrap()),
            ("flipped byte", |dir| std::fs::write(dir.join("core-1001.img"), "cose").unwrap()),
            ("truncated", |dir| std::fs::write(dir.join("pages-1.img"), "short").unwrap()),
            ("missing", |dir| std::fs::remove_file(dir.join("pages-1.img")).unwrap()),
            ("a stranger", |dir| std::fs::write(dir.join("seccomp.img"), "mine").unwrap()),
            ("a link", |dir| {
                std::fs::remove_file(dir.join("core-1001.img")).unwrap();
                std::os::unix::fs::symlink("/etc/passwd", dir.join("core-1001.img")).unwrap();
            }),
        ];
        for (what, harm) in damage {
            let (_root, place) = checkpoint();
            harm(&place);
            assert!(Image::open(&place).is_err(), "{what}");
        }
    }

    #[test]
    fn a_name_that_leaves_the_directory_is_refused() {
        for name in ["../x", "/etc/passwd", "a/b", "", ".", ".."] {
            assert!(!is_plain_name(name), "{name:?}");
        }
    }

    #[test]
    fn a_checkpoint_that_others_can_write_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let (_root, place) = checkpoint();
        std::fs::set_permissions(&place, std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(Image::open(&place), Err(ImageError::Untrusted { .. })));
    }

    #[test]
    fn a_missing_cpu_feature_is_named() {
        let (_root, place) = checkpoint();
        let mut image = Image::open(&place).unwrap();
        image.manifest.cpu_features.insert("avx9000".into());
        assert!(image.manifest.check_fit(&place, false).unwrap_err().to_string().contains("avx9000"));
    }
}
