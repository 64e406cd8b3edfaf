//! The programs, the init, CRIU with its libraries, and what people read: manual pages and completions.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::source::{PROGRAMS, RUNTIME_DIR};
use super::{Part, Source, Wanted};
use crate::{Error, Site};

/// Everybody may read and execute what its owner may.
const MODE: u32 = 0o755;

/// Where man and the shells look beside what packages bring.
const SHARE_DIR: &str = "/usr/local/share";

/// Directories below the bundle's.
const DEPTH: usize = 4;

/// There while a Debian package of ours is installed.
const PACKAGE: &str = "/var/lib/dpkg/info/fastmig.prerm";

pub(super) fn part(site: &Site, source: &Source) -> Result<Part, Error> {
    let Some(from) = &source.from else { return Ok(Part::default()) };
    if site.metadata(Path::new(PACKAGE))?.is_some() {
        return Err(Error::Packaged);
    }
    let mut files = Vec::new();
    for name in PROGRAMS {
        files.push(wanted(&from.join("bin").join(name), source.program(name))?);
    }
    add_tree(&from.join("libexec"), Path::new(RUNTIME_DIR), DEPTH, &mut files)?;
    // A build by hand may have none.
    let share = from.join("share");
    if share.is_dir() {
        add_tree(&share, Path::new(SHARE_DIR), DEPTH, &mut files)?;
    }
    Ok(Part { files, ..Part::default() })
}

fn add_tree(from: &Path, to: &Path, depth: usize, files: &mut Vec<Wanted>) -> Result<(), Error> {
    files.push(Wanted { path: to.to_owned(), content: None, mode: MODE, consumer: None });
    let read = |e| Error::io("read", from)(e);
    let mut entries = fs::read_dir(from).map_err(read)?.collect::<Result<Vec<_>, _>>().map_err(read)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() && depth > 0 {
            add_tree(&path, &target, depth - 1, files)?;
        } else {
            files.push(wanted(&path, target)?);
        }
    }
    Ok(())
}

fn wanted(from: &Path, path: PathBuf) -> Result<Wanted, Error> {
    let content = Some(fs::read(from).map_err(Error::io("read", from))?);
    let metadata = fs::metadata(from).map_err(Error::io("look at", from))?;
    let mode = if metadata.mode() & 0o100 == 0 { 0o644 } else { MODE };
    Ok(Wanted { path, content, mode, consumer: None })
}
