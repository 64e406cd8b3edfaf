//! The members of an archive, each with what goes ahead of it: long names and records.
//!
//! A tar reader takes those whole, however long they are. Here their length is looked at first, for an archive is
//! compressed and may claim any.

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use tar::{Entries, Entry, EntryType, PaxExtensions};

use crate::names::{self, Mark};
use crate::Error;

/// One member.
pub(crate) struct Member<'a, R: Read> {
    pub(crate) path: PathBuf,
    /// What a hard link is a link to.
    pub(crate) link: Option<PathBuf>,
    pub(crate) records: Records,
    /// Its header and content.
    pub(crate) entry: Entry<'a, R>,
}

/// What the extension headers ahead of one member hold.
#[derive(Default)]
struct Ahead {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    records: Option<Vec<u8>>,
}

/// The members in their order.
pub(crate) struct Members<'a, R: Read>(Entries<'a, R>);

impl<'a, R: Read> Members<'a, R> {
    pub(crate) fn new(entries: Entries<'a, R>) -> Self {
        Self(entries.raw(true))
    }

    pub(crate) fn next(&mut self) -> Result<Option<Member<'a, R>>, Error> {
        let mut ahead = Ahead::default();
        for entry in self.0.by_ref() {
            let mut entry = entry.map_err(Error::io("read", Path::new("the archive")))?;
            if !ahead.take(&mut entry)? {
                return Ok(Some(ahead.before(entry)));
            }
        }
        Ok(None)
    }
}

impl Ahead {
    /// Takes in an extension header; says whether it was one.
    fn take(&mut self, entry: &mut Entry<'_, impl Read>) -> Result<bool, Error> {
        let place = match entry.header().entry_type() {
            EntryType::GNULongName => &mut self.path,
            EntryType::GNULongLink => &mut self.link,
            EntryType::XHeader => &mut self.records,
            _ => return Ok(false),
        };
        let path = PathBuf::from(OsStr::from_bytes(&entry.path_bytes()));
        if entry.size() > names::RECORDS_LIMIT as u64 {
            return Err(Error::Damaged { path, problem: "is an extension header of more than 1 MiB" });
        }
        let mut content = Vec::new();
        entry.read_to_end(&mut content).map_err(Error::io("read", &path))?;
        if place.replace(content).is_some() {
            return Err(Error::Damaged { path, problem: "is a second extension header of its kind" });
        }
        Ok(true)
    }

    /// Joins the member that it stands ahead of.
    fn before<'a, R: Read>(self, entry: Entry<'a, R>) -> Member<'a, R> {
        let path = self.path.map_or_else(|| entry.path_bytes().into_owned(), without_zero);
        let link =
            self.link.map(without_zero).or_else(|| entry.link_name_bytes().map(std::borrow::Cow::into_owned));
        Member {
            path: OsStr::from_bytes(&path).into(),
            link: link.map(|link| OsStr::from_bytes(&link).into()),
            records: Records(self.records.unwrap_or_default()),
            entry,
        }
    }
}

/// Long names end with a zero.
fn without_zero(mut name: Vec<u8>) -> Vec<u8> {
    if name.last() == Some(&0) {
        name.pop();
    }
    name
}

/// What a member says of itself besides its header.
pub(crate) struct Records(Vec<u8>);

impl Records {
    /// Calls `each` with the name and value of every record.
    pub(crate) fn read(
        &self,
        path: &Path,
        mut each: impl FnMut(&str, &str) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let damaged = || Error::Damaged { path: path.into(), problem: "has a record that is no text" };
        for record in PaxExtensions::new(&self.0) {
            let record = record.map_err(Error::io("read", path))?;
            each(record.key().map_err(|_| damaged())?, record.value().map_err(|_| damaged())?)?;
        }
        Ok(())
    }

    /// What it is marked as, if it is no file.
    pub(crate) fn mark(&self, path: &Path) -> Result<Option<Mark>, Error> {
        let mut found = None;
        self.read(path, |name, value| {
            if name == names::MARK {
                let problem = "has a mark that this FastMig does not know";
                let mark = Mark::read(value).ok_or_else(|| Error::Damaged { path: path.into(), problem })?;
                found = Some(mark);
            }
            Ok(())
        })?;
        Ok(found)
    }
}
