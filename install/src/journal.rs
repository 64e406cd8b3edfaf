//! What was done on a host, and what is being done: written before each change, so that a killed run can be taken back.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::site::{Attributes, Site};
use crate::things::Thing;
use crate::Error;

/// The journal and the copies of what was there.
const DIR: &str = "/var/lib/fastmig";
const FILE: &str = "/var/lib/fastmig/install.json";
const COPIES: &str = "/var/lib/fastmig/install";

const FORMAT: u32 = 1;

/// Only root is to read what the copies hold.
const PRIVATE: u32 = 0o600;
const PRIVATE_DIR: u32 = 0o700;

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) path: PathBuf,
    pub(crate) thing: Thing,
    /// The file that was there.
    pub(crate) before: Option<Kept>,
    /// The checksum of the file that is there now; nothing for a directory.
    pub(crate) after: Option<String>,
    /// Somebody else changed the file between two runs, so that lines of ours may be in the one that was there.
    #[serde(default)]
    pub(crate) mixed: bool,
}

impl Entry {
    /// A later run has changed the file again. What was there before the first is what --uninstall puts back, unless
    /// somebody else has changed it in between.
    fn renew(&mut self, later: Self) {
        let found = later.before.as_ref().map(|kept| &kept.checksum);
        if found != self.after.as_ref() {
            self.mixed = later.before.is_some();
            self.before = later.before;
        }
        self.after = later.after;
    }
}

/// A copy of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// Its name among the copies.
    copy: String,
    /// The checksum of its content.
    pub(crate) checksum: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Content {
    format: u32,
    /// Directories made above the journal's own.
    made: Vec<PathBuf>,
    /// The number of the next copy.
    next: u32,
    /// What finished runs have done.
    done: Vec<Entry>,
    /// What the run under way has done, or is about to do.
    pending: Vec<Entry>,
}

/// The journal of a host, held by one run at a time.
#[derive(Debug)]
pub(crate) struct Journal {
    site: Site,
    content: Content,
    _lock: Flock<File>,
}

/// The checksum of a file's content.
pub(crate) fn checksum(content: &[u8]) -> String {
    blake3::hash(content).to_hex().to_string()
}

impl Journal {
    /// Opens the journal of a host, and makes one where there is none.
    pub(crate) fn open(site: &Site) -> Result<Self, Error> {
        // One that cannot be read is refused before anything is made beside it.
        read(site)?;
        let copies = Path::new(COPIES);
        let made = site.missing_parents(Path::new(DIR));
        let dirs = made.iter().map(PathBuf::as_path).chain([Path::new(DIR)]);
        dirs.into_iter().try_for_each(|dir| site.make_directory(dir))?;
        // A copy has the mode of the file, which may have been in a directory closed to others.
        site.make_directory_of(copies, PRIVATE_DIR)?;
        let lock = lock(site)?;
        let content = match read(site)? {
            Some(content) => content,
            None => Content { format: FORMAT, made, next: 0, done: Vec::new(), pending: Vec::new() },
        };
        Ok(Self { site: site.clone(), content, _lock: lock })
    }

    /// Whether an installation has ever begun on a host.
    pub(crate) fn exists(site: &Site) -> bool {
        [FILE, COPIES].iter().any(|path| site.real(Path::new(path)).map_or(true, |real| real.exists()))
    }

    /// All that was done on a host, without opening its journal.
    pub(crate) fn entries(site: &Site) -> Result<Vec<Entry>, Error> {
        let content = read(site)?;
        Ok(content.map(|content| [content.done, content.pending].concat()).unwrap_or_default())
    }

    pub(crate) fn done(&self) -> &[Entry] {
        &self.content.done
    }

    pub(crate) fn pending(&self) -> &[Entry] {
        &self.content.pending
    }

    /// Copies a file, if it is there, before it is changed.
    pub(crate) fn keep(&mut self, path: &Path) -> Result<Option<Kept>, Error> {
        let (Some(content), Some(metadata)) = (self.site.read(path)?, self.site.metadata(path)?) else {
            return Ok(None);
        };
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let copy = format!("{}-{name}", self.content.next);
        self.content.next += 1;
        self.site.replace(&copies(&copy), &content, Attributes::exactly_of(&metadata))?;
        Ok(Some(Kept { copy, checksum: checksum(&content) }))
    }

    /// The content of a copy, and what else belongs to the file.
    pub(crate) fn kept(&self, kept: &Kept) -> Result<(Vec<u8>, Attributes), Error> {
        let path = copies(&kept.copy);
        let lost = || Error::io("read", &path)(io::ErrorKind::NotFound.into());
        let content = self.site.read(&path)?.ok_or_else(lost)?;
        let metadata = self.site.metadata(&path)?.ok_or_else(lost)?;
        Ok((content, Attributes::exactly_of(&metadata)))
    }

    /// A change is about to be made.
    pub(crate) fn begin(&mut self, entry: Entry) -> Result<(), Error> {
        self.content.pending.push(entry);
        self.write()
    }

    /// What the run has done is undone. To undo it once more does no harm, so a disk too full to write that is no failure.
    pub(crate) fn all_taken_back(&mut self) {
        self.content.pending.clear();
        let _ = self.write();
    }

    /// The run has come to its end: what it did counts.
    pub(crate) fn settle(&mut self) -> Result<(), Error> {
        for entry in std::mem::take(&mut self.content.pending) {
            match self.content.done.iter_mut().find(|done| done.path == entry.path) {
                Some(done) => done.renew(entry),
                None => self.content.done.push(entry),
            }
        }
        self.write()
    }

    /// A change of a finished run, the last one, is undone.
    pub(crate) fn undone(&mut self) -> Result<(), Error> {
        self.content.done.pop();
        self.write()
    }

    /// Removes copies that nothing refers to, and the journal itself when nothing is in it.
    pub(crate) fn close(self) -> Result<(), Error> {
        let entries = self.content.done.iter().chain(&self.content.pending);
        let used: Vec<&str> =
            entries.filter_map(|entry| Some(entry.before.as_ref()?.copy.as_str())).collect();
        let failed = |e| Error::io("read", Path::new(COPIES))(e);
        let dir = self.site.real(Path::new(COPIES)).and_then(std::fs::read_dir);
        for copy in dir.map_err(failed)? {
            let name = copy.map_err(failed)?.file_name();
            if !used.iter().any(|used| name.to_str() == Some(used)) {
                self.site.remove(&Path::new(COPIES).join(name))?;
            }
        }
        if self.content.done.is_empty() && self.content.pending.is_empty() {
            self.site.remove(Path::new(FILE))?;
            self.site.unstage(Path::new(FILE))?;
            let above = self.content.made.iter().rev().map(PathBuf::as_path);
            for dir in [Path::new(COPIES), Path::new(DIR)].into_iter().chain(above) {
                self.site.remove_directory(dir)?;
            }
        }
        Ok(())
    }

    fn write(&self) -> Result<(), Error> {
        let path = Path::new(FILE);
        let text = serde_json::to_vec_pretty(&self.content)
            .map_err(|e| Error::Journal { path: path.to_owned(), cause: e.to_string() })?;
        self.site.replace(path, &text, Attributes::new(PRIVATE))?;
        // The name must be on disk, too, before the change that it tells of.
        let dir = self.site.real(Path::new(DIR)).and_then(File::open);
        dir.and_then(|dir| dir.sync_all()).map_err(Error::io("write", path))
    }
}

fn copies(name: &str) -> PathBuf {
    Path::new(COPIES).join(name)
}

fn lock(site: &Site) -> Result<Flock<File>, Error> {
    let path = Path::new(DIR);
    let dir = site.real(path).and_then(File::open).map_err(Error::io("open", path))?;
    Flock::lock(dir, FlockArg::LockExclusiveNonblock).map_err(|_| Error::Busy { path: path.to_owned() })
}

fn read(site: &Site) -> Result<Option<Content>, Error> {
    let path = Path::new(FILE);
    let Some(text) = site.read(path)? else { return Ok(None) };
    let wrong = |cause: String| Error::Journal { path: path.to_owned(), cause };
    let content: Content = serde_json::from_slice(&text).map_err(|e| wrong(e.to_string()))?;
    match content.format {
        FORMAT => Ok(Some(content)),
        other => Err(wrong(format!("its format is {other}, and this version knows {FORMAT}"))),
    }
}
