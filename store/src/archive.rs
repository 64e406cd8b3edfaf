//! A checkpoint's directory to a tar archive and back.
//!
//! The manifest comes last, so that what is unpacked is a checkpoint only when all of it is there. What comes in is
//! hostile: only plain files with plain names, no more bytes than announced, into a new directory, and each must be what
//! the manifest says.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use fastmig_engine::image::{is_plain_name, FileEntry, Manifest, MANIFEST};
use rustix::fs::{Mode, OFlags};
use tar::{Archive, Builder, EntryType, Header};

/// No checkpoint has more files.
const MOST_FILES: usize = 100_000;

/// A tar archive ends with zeros, of which there may be one record.
const LONGEST_END: u64 = 64 << 10;

const BUFFER: usize = 1 << 20;

/// Writes the files of the checkpoint in `directory`.
///
/// # Errors
/// When one cannot be read or is not what the manifest says, or `out` takes no more.
pub(crate) fn write(directory: &Path, manifest: &Manifest, out: &mut dyn Write) -> io::Result<()> {
    let mut archive = Builder::new(out);
    for entry in &manifest.files {
        append(&mut archive, directory, entry)?;
    }
    let manifest = std::fs::read(directory.join(MANIFEST))?;
    archive.append(&header(MANIFEST, manifest.len() as u64)?, manifest.as_slice())?;
    archive.into_inner()?.flush()
}

fn append(archive: &mut Builder<&mut dyn Write>, directory: &Path, entry: &FileEntry) -> io::Result<()> {
    let damaged =
        |problem: &str| io::Error::new(io::ErrorKind::InvalidData, format!("{:?} {problem}", entry.name));
    if !is_plain_name(&entry.name) || entry.name == MANIFEST {
        return Err(damaged("is not a plain file name"));
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(directory.join(&entry.name), flags, Mode::empty())?);
    if file.metadata()?.len() != entry.size {
        return Err(damaged("has another size than its manifest says"));
    }
    let mut reader =
        Hashing { inner: io::BufReader::with_capacity(BUFFER, file), hasher: blake3::Hasher::new() };
    archive.append(&header(&entry.name, entry.size)?, (&mut reader).take(entry.size))?;
    if reader.hasher.finalize().to_hex().as_str() != entry.blake3 {
        return Err(damaged("has another content than its manifest says"));
    }
    Ok(())
}

fn header(name: &str, size: u64) -> io::Result<Header> {
    let mut header = Header::new_ustar();
    header.set_path(name)?;
    header.set_size(size);
    header.set_mode(0o600);
    header.set_entry_type(EntryType::Regular);
    header.set_cksum();
    Ok(header)
}

/// A checkpoint's directory in the making. Dropped before [`Unpacked::publish`], it leaves nothing behind.
#[derive(Debug)]
pub(crate) struct Unpacked {
    place: PathBuf,
    directory: PathBuf,
    published: bool,
}

impl Unpacked {
    /// Begins a directory that is to stand at `place`, where nothing or an empty directory may be.
    pub(crate) fn begin(place: &Path) -> io::Result<Self> {
        match std::fs::read_dir(place).map(Iterator::count) {
            Ok(0) => {}
            Ok(_) => {
                return Err(io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    "it is not empty: choose another place",
                ))
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
        let mut name = place.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
        name.push(format!(".partial-{}", std::process::id()));
        let directory = place.with_file_name(name);
        if let Some(parent) = place.parent() {
            std::fs::create_dir_all(parent)?;
        }
        DirBuilder::new().mode(0o700).create(&directory)?;
        Ok(Self { place: place.into(), directory, published: false })
    }

    /// Unpacks an archive whose files have `bytes` bytes without the manifest.
    pub(crate) fn fill(&self, archive: &mut dyn Read, bytes: u64) -> Result<(), String> {
        let mut archive = Archive::new(archive);
        let mut left = bytes;
        let mut files = BTreeMap::new();
        let mut manifest = false;
        // Raw: no names or sizes that come beside the header.
        for entry in archive.entries().map_err(|e| e.to_string())?.raw(true) {
            let mut entry = entry.map_err(|e| e.to_string())?;
            let name = plain_name(&entry)?;
            if manifest || files.contains_key(&name) || files.len() == MOST_FILES {
                return Err(format!("{name:?} is one file too many"));
            }
            let size = entry.size();
            if name == MANIFEST {
                manifest = true;
                self.file(&name, &mut entry, size.min(bytes.max(LARGEST_MANIFEST)))?;
            } else {
                left = left.checked_sub(size).ok_or_else(|| format!("{name:?} is larger than announced"))?;
                let digest = self.file(&name, &mut entry, size)?;
                files.insert(name, (size, digest));
            }
        }
        expect_end(archive.into_inner())?;
        if !manifest || left > 0 {
            return Err("it lacks files".into());
        }
        self.check(&files)
    }

    fn file(&self, name: &str, content: &mut impl Read, size: u64) -> Result<String, String> {
        let fail = |e: io::Error| format!("{name:?}: {e}");
        let path = self.directory.join(name);
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(path).map_err(fail)?;
        let mut reader = Hashing { inner: content, hasher: blake3::Hasher::new() };
        let copied = copy(&mut reader, &mut file, size).map_err(fail)?;
        if copied != size {
            return Err(format!("{name:?} is cut off"));
        }
        Ok(reader.hasher.finalize().to_hex().to_string())
    }

    fn check(&self, files: &BTreeMap<String, (u64, String)>) -> Result<(), String> {
        let manifest = Manifest::read(&self.directory).map_err(|e| e.to_string())?;
        let wanted: BTreeMap<String, (u64, String)> =
            manifest.files.into_iter().map(|file| (file.name, (file.size, file.blake3))).collect();
        if wanted == *files {
            return Ok(());
        }
        let wrong = wanted.iter().find(|(name, file)| files.get(*name) != Some(file)).map(|(name, _)| name);
        let wrong = wrong.or_else(|| files.keys().find(|name| !wanted.contains_key(*name)));
        Err(format!("{:?} is not what its manifest says", wrong.map(String::as_str).unwrap_or_default()))
    }

    /// Puts it in its place.
    pub(crate) fn publish(mut self) -> io::Result<()> {
        File::open(self.directory.join(MANIFEST))?.sync_all()?;
        std::fs::rename(&self.directory, &self.place)?;
        self.published = true;
        Ok(())
    }
}

impl Drop for Unpacked {
    fn drop(&mut self) {
        if !self.published {
            if let Err(e) = std::fs::remove_dir_all(&self.directory) {
                tracing::warn!(path = ?self.directory, error = %e, "an unfinished checkpoint could not be removed");
            }
        }
    }
}

/// As the engine's own limit.
const LARGEST_MANIFEST: u64 = 16 << 20;

fn plain_name(entry: &tar::Entry<'_, &mut dyn Read>) -> Result<String, String> {
    let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
    if entry.header().entry_type() != EntryType::Regular {
        return Err(format!("{name:?} is not a plain file"));
    }
    if !is_plain_name(&name) {
        return Err(format!("{name:?} is not a plain file name"));
    }
    if name == MANIFEST && entry.size() > LARGEST_MANIFEST {
        return Err("its manifest is too large".into());
    }
    Ok(name)
}

/// Reads on to the end, which proves that nothing was cut off or changed: only there are the checksums.
fn expect_end(rest: &mut dyn Read) -> Result<(), String> {
    let mut end = Vec::new();
    rest.take(LONGEST_END).read_to_end(&mut end).map_err(|e| e.to_string())?;
    if end.len() as u64 == LONGEST_END || end.iter().any(|byte| *byte != 0) {
        return Err("something follows its end".into());
    }
    Ok(())
}

fn copy(from: &mut impl Read, to: &mut impl Write, size: u64) -> io::Result<u64> {
    let mut buffer = vec![0; BUFFER];
    let mut copied = 0;
    while copied < size {
        let wanted = usize::try_from(size - copied).unwrap_or(BUFFER).min(BUFFER);
        let count = from.read(&mut buffer[..wanted])?;
        if count == 0 {
            break;
        }
        to.write_all(&buffer[..count])?;
        copied += count as u64;
    }
    Ok(copied)
}

/// Hashes what is read through it.
struct Hashing<R> {
    inner: R,
    hasher: blake3::Hasher,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(into)?;
        self.hasher.update(&into[..count]);
        Ok(count)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::json;

    /// A checkpoint as the engine makes it, with these files.
    pub(crate) fn checkpoint(directory: &Path, files: &[(&str, &[u8])]) -> u64 {
        DirBuilder::new().mode(0o700).create(directory).unwrap();
        let describe = |(name, content): &(&str, &[u8])| {
            std::fs::write(directory.join(name), content).unwrap();
            json!({ "name": name, "size": content.len(), "blake3": blake3::hash(content).to_hex().as_str() })
        };
        let files: Vec<_> = files.iter().map(describe).collect();
        let manifest = json!({
            "format": 1, "created": "2026-01-01T00:00:00Z", "image": "redis", "command": ["redis-server", "--secret"],
            "criu_version": "4", "kernel": "6", "architecture": "x86_64", "cpu_features": [], "stdio": [],
            "terminal": false, "root_pid": 1001, "pids": [1001], "tcp": "close", "external_unix_sockets": true,
            "file_locks": true, "files": files,
        });
        std::fs::write(directory.join(MANIFEST), manifest.to_string()).unwrap();
        files.iter().map(|file| file["size"].as_u64().unwrap()).sum()
    }

    const FILES: &[(&str, &[u8])] =
        &[("core-1.img", b"core"), ("empty.img", b""), ("pages-1.img", &[7; 5000])];

    fn packed(root: &Path) -> (Vec<u8>, u64) {
        let directory = root.join("from");
        let bytes = checkpoint(&directory, FILES);
        let mut archive = Vec::new();
        write(&directory, &Manifest::read(&directory).unwrap(), &mut archive).unwrap();
        (archive, bytes)
    }

    fn unpack(root: &Path, archive: &[u8], bytes: u64) -> Result<PathBuf, String> {
        let place = root.join("to");
        let unpacked = Unpacked::begin(&place).map_err(|e| e.to_string())?;
        unpacked.fill(&mut &*archive, bytes)?;
        unpacked.publish().map_err(|e| e.to_string())?;
        Ok(place)
    }

    #[test]
    fn a_checkpoint_comes_back_as_it_was() {
        let root = tempfile::tempdir().unwrap();
        let (archive, bytes) = packed(root.path());
        let place = unpack(root.path(), &archive, bytes).unwrap();
        for (name, content) in FILES {
            assert_eq!(std::fs::read(place.join(name)).unwrap(), *content);
        }
        assert_eq!(Manifest::read(&place).unwrap(), Manifest::read(&root.path().join("from")).unwrap());
    }

    #[test]
    fn what_is_not_the_manifests_is_not_packed() {
        for (name, content) in [("core-1.img", &b"cose"[..]), ("pages-1.img", b"short")] {
            let root = tempfile::tempdir().unwrap();
            let directory = root.path().join("from");
            checkpoint(&directory, FILES);
            std::fs::write(directory.join(name), content).unwrap();
            let manifest = Manifest::read(&directory).unwrap();
            let error = write(&directory, &manifest, &mut io::sink()).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }

    /// An archive of a hostile hand.
    fn forged(entries: &[(&str, EntryType, &[u8])]) -> Vec<u8> {
        let mut archive = Builder::new(Vec::new());
        for (name, kind, content) in entries {
            let mut header = Header::new_ustar();
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(*kind);
            header.set_size(content.len() as u64);
            header.set_cksum();
            archive.append(&header, *content).unwrap();
        }
        archive.into_inner().unwrap()
    }

    #[test]
    fn hostile_archives_are_refused_and_leave_nothing() {
        let file = EntryType::Regular;
        let cases: [(&str, Vec<u8>, u64); 10] = [
            ("a path", forged(&[("../evil", file, b"x")]), 1),
            ("an absolute path", forged(&[("/tmp/evil", file, b"x")]), 1),
            ("a directory below", forged(&[("a/b", file, b"x")]), 1),
            ("a hidden file", forged(&[(".x", file, b"x")]), 1),
            ("a link", forged(&[("core.img", EntryType::Symlink, b"")]), 0),
            ("a hard link", forged(&[("core.img", EntryType::Link, b"")]), 0),
            ("a device", forged(&[("core.img", EntryType::Char, b"")]), 0),
            ("a long name beside", forged(&[("././@LongLink", EntryType::GNULongName, b"x")]), 1),
            ("more than announced", forged(&[("core.img", file, b"xxxx")]), 3),
            ("no manifest", forged(&[("core.img", file, b"x")]), 1),
        ];
        for (what, archive, bytes) in cases {
            let root = tempfile::tempdir().unwrap();
            assert!(unpack(root.path(), &archive, bytes).is_err(), "{what}");
            assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0, "{what}");
        }
    }

    #[test]
    fn what_is_cut_off_changed_or_longer_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let (archive, bytes) = packed(root.path());
        for length in [0, 100, 600, 3000, archive.len() / 2] {
            assert!(unpack(root.path(), &archive[..length], bytes).is_err(), "{length} bytes of it");
        }
        let mut changed = archive.clone();
        changed[512] ^= 1;
        assert!(unpack(root.path(), &changed, bytes).unwrap_err().contains("core-1.img"));
        let mut longer = archive.clone();
        longer.extend([1; 512]);
        assert!(unpack(root.path(), &longer, bytes).is_err());
        assert!(unpack(root.path(), &archive, bytes + 1).is_err());
        assert!(unpack(root.path(), &archive, bytes).is_ok());
    }

    #[test]
    fn a_file_that_the_manifest_does_not_know_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let (archive, bytes) = packed(root.path());
        let stranger = forged(&[("seccomp.img", EntryType::Regular, b"mine")]);
        let mixed = [&stranger[..1024], &archive].concat();
        assert!(unpack(root.path(), &mixed, bytes + 4).unwrap_err().contains("seccomp.img"));
    }

    #[test]
    fn nothing_is_overwritten() {
        let root = tempfile::tempdir().unwrap();
        let (archive, bytes) = packed(root.path());
        let place = unpack(root.path(), &archive, bytes).unwrap();
        assert!(unpack(root.path(), &archive, bytes).unwrap_err().contains("not empty"));
        assert!(place.join(MANIFEST).exists());
    }
}
