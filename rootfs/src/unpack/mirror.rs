//! What the destination has and the source has not goes: after the first archive of a container its root is the source's.
//!
//! A container that an application has left has files of it still, and another may have been in this one before. What is in
//! the upper directory and not in the archive is taken away; where that hides the image's, the image's is put back, for
//! through a mounted overlay nothing of it comes to light again by itself.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    lgetxattr, openat, readlinkat, statat, utimensat, AtFlags, FileType, Gid, Mode, OFlags, Timespec,
    Timestamps, Uid,
};

use super::make::{directory, dress, fifo, symlink, Attributes};
use super::Target;
use crate::extents::Extents;
use crate::layers::{is_opaque, Found, Layers};
use crate::names::Mark;
use crate::survey::is_clients_own;
use crate::view::Place;
use crate::walk::{attribute_names, through, walk};
use crate::Error;

/// No container has more files than this.
const MOST: usize = 4_000_000;

/// What an archive has said of the root's paths.
#[derive(Debug, Default)]
pub(super) struct Brought(BTreeMap<PathBuf, Said>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    /// It is there, or a directory is, with what the image has in it.
    There,
    /// It is a directory, and nothing of the image's is in it.
    Emptied,
    /// It is not there.
    Gone,
}

impl Brought {
    pub(super) fn take(&mut self, path: &Path, mark: Option<Mark>) -> Result<(), Error> {
        let said = match mark {
            None => Said::There,
            Some(Mark::Gone) => Said::Gone,
            Some(Mark::Emptied) => Said::Emptied,
            Some(_) => return Ok(()),
        };
        if self.0.len() >= MOST {
            return Err(Error::Damaged {
                path: path.into(),
                problem: "is one file more than a container can have",
            });
        }
        self.0.insert(path.into(), said);
        Ok(())
    }

    /// Whether the source shows nothing of the image's at this path, for a directory above it hides that.
    fn hides(&self, path: &Path) -> bool {
        path.ancestors().skip(1).any(|above| self.0.get(above) == Some(&Said::Emptied))
    }
}

/// What is to be done to the root.
#[derive(Debug, Default)]
struct Plan {
    /// Taken away.
    remove: Vec<PathBuf>,
    /// Put back as the image has it, with all below it.
    refill: Vec<PathBuf>,
    /// Given the image's owner and mode.
    dress: Vec<PathBuf>,
}

impl Target {
    /// Takes away what the archive, which holds all that the source has, does not name.
    pub(super) fn mirror(&mut self, brought: &Brought) -> Result<(), Error> {
        let Ok(path) = self.view.upper() else { return Ok(()) };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let upper = rustix::fs::open(path, flags, Mode::empty()).map_err(Error::io("open", path))?;
        let mut image = Image { target: self, layers: None };
        let plan = image.plan(&upper, brought)?;
        let layers = image.layers;
        for path in &plan.remove {
            self.remove(path)?;
        }
        let Some(layers) = layers else { return Ok(()) };
        for path in &plan.dress {
            if let Some(found) = layers.find(path)? {
                self.put_image(path, &found)?;
            }
        }
        plan.refill.iter().try_for_each(|path| self.refill(path, &layers, brought))
    }

    /// Puts back what the image has at `path` and below, but for what the archive has spoken of.
    fn refill(&mut self, path: &Path, layers: &Layers, brought: &Brought) -> Result<(), Error> {
        let Some(found) = layers.find(path)? else { return Ok(()) };
        if !brought.0.contains_key(path) {
            self.put_image(path, &found)?;
        }
        layers.walk(path, &mut |path, found| {
            if self.view.place(path) != Place::Root {
                return Ok(false);
            }
            match brought.0.get(path) {
                Some(said) => Ok(*said == Said::There),
                None => self.put_image(path, found).map(|()| true),
            }
        })
    }

    /// Puts back one entry of the image, unless it is there.
    fn put_image(&mut self, path: &Path, found: &Found<'_>) -> Result<(), Error> {
        let (parent, name) = self.parent(path)?;
        let is_directory = found.kind() == FileType::Directory;
        if !is_directory && statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
            return Ok(());
        }
        let attributes = of_image(path, found)?;
        let made = match found.kind() {
            FileType::Directory => directory(parent.as_fd(), name, &attributes),
            FileType::Symlink => symlink(parent.as_fd(), name, &attributes),
            FileType::Fifo => fifo(parent.as_fd(), name, &attributes),
            FileType::RegularFile => copy(&parent, path, found, &attributes),
            _ => {
                tracing::warn!(?path, "a device node of the image's is not put back");
                return Ok(());
            }
        };
        made.map_err(Error::io("put back", path))?;
        if is_directory {
            self.times.insert(path.into(), attributes.times);
        }
        Ok(())
    }
}

/// The image below a root; opened when it is first asked for.
struct Image<'a> {
    target: &'a Target,
    layers: Option<Layers>,
}

impl Image<'_> {
    fn plan(&mut self, upper: &OwnedFd, brought: &Brought) -> Result<Plan, Error> {
        let mut plan = Plan::default();
        walk(upper, Path::new(""), &mut |entry| {
            if self.target.view.place(entry.path) != Place::Root || is_clients_own(entry.path) {
                return Ok(false);
            }
            let path = || entry.path.to_path_buf();
            let is_directory = entry.kind() == FileType::Directory;
            let hides = entry.is_whiteout() || (is_directory && is_opaque(&entry.parent, entry.name));
            match brought.0.get(entry.path) {
                Some(Said::There) if is_directory && hides => plan.refill.push(path()),
                Some(_) => {}
                None if brought.hides(entry.path) => {
                    plan.remove.extend((!entry.is_whiteout()).then(path));
                    return Ok(false);
                }
                None if entry.is_whiteout() => plan.refill.push(path()),
                None if is_directory && self.has_directory(entry.path)? => {
                    plan.dress.push(path());
                    if hides {
                        plan.refill.push(path());
                    }
                }
                None => {
                    plan.remove.push(path());
                    plan.refill.push(path());
                    return Ok(false);
                }
            }
            Ok(true)
        })?;
        if !plan.refill.is_empty() {
            self.layers()?;
        }
        Ok(plan)
    }

    fn has_directory(&mut self, path: &Path) -> Result<bool, Error> {
        Ok(self.layers()?.find(path)?.is_some_and(|found| found.kind() == FileType::Directory))
    }

    fn layers(&mut self) -> Result<&Layers, Error> {
        let layers = match self.layers.take() {
            Some(layers) => layers,
            None => Layers::of(&self.target.view)?,
        };
        Ok(self.layers.insert(layers))
    }
}

fn of_image(path: &Path, found: &Found<'_>) -> Result<Attributes, Error> {
    let stat = &found.stat;
    let failed = |e: io::Error| Error::io("read the attributes of", path)(e);
    let name = path.file_name().unwrap_or_default();
    let place = through(found.parent.as_fd(), name);
    let mut extended = Vec::new();
    for attribute in attribute_names(&place).map_err(failed)? {
        let mut value = vec![0; 65536];
        let length = lgetxattr(&place, &attribute, &mut value).map_err(|e| failed(e.into()))?;
        value.truncate(length);
        extended.push((attribute.into_bytes(), value));
    }
    extended.retain(|(attribute, _)| !attribute.starts_with(b"trusted."));
    let target = match found.kind() {
        FileType::Symlink => {
            Some(readlinkat(&found.parent, name, Vec::new()).map_err(Error::io("read", path))?.into_bytes())
        }
        _ => None,
    };
    let time = Timespec { tv_sec: stat.st_mtime, tv_nsec: i64::try_from(stat.st_mtime_nsec).unwrap_or(0) };
    Ok(Attributes {
        mode: Mode::from_raw_mode(stat.st_mode & 0o7777),
        owner: (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid)),
        times: Timestamps { last_access: time, last_modification: time },
        extended,
        target,
        extents: Extents::whole(0),
    })
}

fn copy(parent: &OwnedFd, path: &Path, found: &Found<'_>, attributes: &Attributes) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default();
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut from = File::from(openat(&found.parent, name, flags, Mode::empty())?);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut to = File::from(openat(parent, name, flags, Mode::RUSR | Mode::WUSR)?);
    io::copy(&mut from, &mut to)?;
    dress(to.as_fd(), attributes)?;
    Ok(utimensat(parent, name, &attributes.times, AtFlags::SYMLINK_NOFOLLOW)?)
}
