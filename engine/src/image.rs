//! A checkpoint on disk: a directory with CRIU's files and, written last, the manifest that makes them one.
//!
//! A checkpoint is made beside its final place and renamed into it when complete: what has no manifest is no
//! checkpoint. Read back, it is hostile input: nothing in it decides policy, no name leaves the directory, and
//! sizes are checked before anything is allocated.
//!
//! | file | what it is |
//! |---|---|
//! | `draft` | one in the making |
//! | `manifest` | what it says of itself |
//! | `cpu` | what programs may have seen of the CPU |
//! | `error` | why a directory is none |

mod cpu;
mod draft;
mod error;
mod manifest;

use std::collections::BTreeSet;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

pub(crate) use cpu::cpu_features;
pub(crate) use draft::Draft;
use error::failed;
pub use error::ImageError;
use manifest::read_manifest;
pub use manifest::{manifest, FileEntry, Manifest, Stream, FORMAT, MANIFEST};

/// Where CRIU would look for an earlier checkpoint that a later one adds to: outside this one. Ours have none.
const PARENT: &str = "parent";

/// Whether `directory` holds a checkpoint of FastMig's, whole or damaged; runc's have no manifest.
#[must_use]
pub fn is_ours(directory: &Path) -> bool {
    directory.join(MANIFEST).exists()
}

/// A complete checkpoint whose files are what its manifest says.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) path: PathBuf,
    pub(crate) manifest: Manifest,
    pub(crate) directory: File,
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

/// The directory, unless others could have changed it.
fn open_trusted(path: &Path) -> Result<File, ImageError> {
    let directory = open_nofollow(path, libc::O_DIRECTORY).map_err(failed("open checkpoint", path))?;
    let status = directory.metadata().map_err(failed("read", path))?;
    if others_may_change(&status) {
        return Err(ImageError::Untrusted { path: path.into(), owner: status.uid() });
    }
    Ok(directory)
}

/// Also of its files: what is verified here is read by CRIU later.
fn others_may_change(status: &Metadata) -> bool {
    let ours = nix::unistd::geteuid().as_raw();
    (status.uid() != 0 && status.uid() != ours) || status.mode() & 0o022 != 0
}

/// CRIU reads what it finds: an image file that the manifest does not vouch for is not left to it.
fn refuse_strangers(directory: &Path, manifest: &Manifest) -> Result<(), ImageError> {
    let known: BTreeSet<&str> = manifest.files.iter().map(|entry| entry.name.as_str()).collect();
    for entry in std::fs::read_dir(directory).map_err(failed("read", directory))? {
        let file = entry.map_err(failed("read", directory))?.file_name().to_string_lossy().into_owned();
        let is_read = file.ends_with(".img") || file == PARENT;
        if is_read && !known.contains(file.as_str()) {
            let problem = "is not in its manifest";
            return Err(ImageError::Damaged { path: directory.into(), file, problem });
        }
    }
    Ok(())
}

fn verify_file(directory: &Path, entry: &FileEntry) -> Result<(), ImageError> {
    let damaged = |problem| ImageError::Damaged { path: directory.into(), file: entry.name.clone(), problem };
    if !is_plain_name(&entry.name) || entry.name == PARENT {
        return Err(damaged("is not a plain file name"));
    }
    let path = directory.join(&entry.name);
    let file = open_nofollow(&path, 0).map_err(|_| damaged("is missing or not a file"))?;
    let status = file.metadata().map_err(failed("read", &path))?;
    if !status.is_file() {
        return Err(damaged("is not a file"));
    }
    if others_may_change(&status) {
        return Err(ImageError::Untrusted { path, owner: status.uid() });
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

fn digest(file: File) -> io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(io::BufReader::with_capacity(1 << 20, file))?;
    Ok(hasher.finalize().to_hex().to_string())
}

fn open_nofollow(path: &Path, flags: i32) -> io::Result<File> {
    File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | flags).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::start_options::TcpPolicy;
    use proptest::prelude::*;

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
    fn what_is_published_is_its_owners_alone() {
        use std::os::unix::fs::PermissionsExt;
        let (_root, place) = checkpoint();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(&place), 0o700);
        for entry in std::fs::read_dir(&place).unwrap() {
            let path = entry.unwrap().path();
            assert_eq!(mode(&path), 0o600, "{path:?}");
        }
    }

    #[test]
    fn what_is_published_opens_again() {
        let (_root, place) = checkpoint();
        let image = Image::open(&place).unwrap();
        assert_eq!(image.manifest.files.len(), 2);
        image.manifest.check_fit(&place, false, &cpu_features()).unwrap();
        assert!(matches!(
            image.manifest.check_fit(&place, true, &cpu_features()),
            Err(ImageError::Terminal { .. })
        ));
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
        let damage: [Damage; 9] = [
            ("no manifest", |dir| std::fs::remove_file(dir.join(MANIFEST)).unwrap()),
            ("empty manifest", |dir| std::fs::write(dir.join(MANIFEST), "").unwrap()),
            ("flipped byte", |dir| std::fs::write(dir.join("core-1001.img"), "cose").unwrap()),
            ("truncated", |dir| std::fs::write(dir.join("pages-1.img"), "short").unwrap()),
            ("missing", |dir| std::fs::remove_file(dir.join("pages-1.img")).unwrap()),
            ("a stranger", |dir| std::fs::write(dir.join("seccomp.img"), "mine").unwrap()),
            ("a parent", |dir| std::os::unix::fs::symlink("/tmp", dir.join(PARENT)).unwrap()),
            ("a file that others can write", |dir| {
                use std::os::unix::fs::PermissionsExt;
                let open = std::fs::Permissions::from_mode(0o666);
                std::fs::set_permissions(dir.join("core-1001.img"), open).unwrap();
            }),
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
        assert!(image
            .manifest
            .check_fit(&place, false, &cpu_features())
            .unwrap_err()
            .to_string()
            .contains("avx9000"));
    }

    #[test]
    fn a_manifest_of_another_format_is_refused_by_its_number() {
        let mut value = serde_json::to_value(manifest()).unwrap();
        value["format"] = 2.into();
        value["new"] = "field".into();
        let error = Manifest::from_value(&value, Path::new("x")).unwrap_err();
        assert!(matches!(error, ImageError::Format { found: 2, .. }), "{error}");
    }

    proptest! {
        /// Whatever becomes of a manifest: it is refused, or reads the same once more.
        #[test]
        fn no_changed_manifest_is_too_strange(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
            let mut text = serde_json::to_vec(&manifest()).unwrap();
            for (at, byte) in changes {
                let at = at.index(text.len());
                text[at] = byte;
            }
            if let Ok(read) = Manifest::parse(&text, Path::new("x")) {
                let again = serde_json::to_vec(&read).unwrap();
                prop_assert_eq!(Manifest::parse(&again, Path::new("x")).unwrap(), read);
            }
        }
    }
}
