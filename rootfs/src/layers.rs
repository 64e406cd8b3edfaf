//! The image below an overlay: its layers, looked at as the kernel shows them merged. Mounted elsewhere they need not be.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{lgetxattr, statat, AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::view::{open_below, View};
use crate::walk::{self, through};
use crate::Error;

/// The layers of an image, the topmost first.
#[derive(Debug)]
pub(crate) struct Layers(Vec<OwnedFd>);

/// What the image shows at one path.
pub(crate) struct Found<'a> {
    pub(crate) stat: Stat,
    /// The directory that it lies in, in the layer that shows it.
    pub(crate) parent: Arc<OwnedFd>,
    /// The layers in which a directory has content, the topmost first; one for what is no directory.
    layers: Vec<&'a OwnedFd>,
}

impl Found<'_> {
    pub(crate) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }
}

impl Layers {
    /// Those below the root that `view` is of.
    pub(crate) fn of(view: &View) -> Result<Self, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open =
            |path: PathBuf| rustix::fs::open(&path, flags, Mode::empty()).map_err(Error::io("open", &path));
        view.lower()?.into_iter().map(open).collect::<Result<_, _>>().map(Self)
    }

    #[cfg(test)]
    pub(crate) fn new(layers: Vec<OwnedFd>) -> Self {
        Self(layers)
    }

    /// What the image has at `path`, which is relative to its root.
    pub(crate) fn find(&self, path: &Path) -> Result<Option<Found<'_>>, Error> {
        let mut layers: Vec<&OwnedFd> = self.0.iter().collect();
        let mut directory = PathBuf::new();
        let mut parts = path.components().peekable();
        while let Some(Component::Normal(name)) = parts.next() {
            let found = look(&open(&layers, &directory)?, &directory, name)?;
            if parts.peek().is_none() {
                return Ok(found);
            }
            match found {
                Some(found) if found.kind() == FileType::Directory => layers = found.layers,
                _ => return Ok(None),
            }
            directory.push(name);
        }
        Ok(None)
    }

    /// Calls `visit` for all that the image has below the directory `path`, directories before what is in them; one for which
    /// it says `false` is not entered.
    pub(crate) fn walk(
        &self,
        path: &Path,
        visit: &mut dyn FnMut(&Path, &Found<'_>) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        let top = match self.find(path)? {
            Some(found) if found.kind() == FileType::Directory => found.layers,
            None if path.as_os_str().is_empty() => self.0.iter().collect(),
            _ => return Ok(()),
        };
        let mut ahead = vec![(path.to_path_buf(), top)];
        while let Some((directory, layers)) = ahead.pop() {
            let opened = open(&layers, &directory)?;
            for name in names(&opened, &directory)? {
                let Some(found) = look(&opened, &directory, &name)? else { continue };
                let inside = directory.join(&name);
                if visit(&inside, &found)? && found.kind() == FileType::Directory {
                    ahead.push((inside, found.layers));
                }
            }
        }
        Ok(())
    }
}

/// What `name` is in a directory that has content in these layers.
fn look<'a>(layers: &[Opened<'a>], directory: &Path, name: &OsStr) -> Result<Option<Found<'a>>, Error> {
    let mut top: Option<Found<'a>> = None;
    for (layer, parent) in layers {
        let stat = match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => continue,
            Err(e) => return Err(Error::io("look at", &directory.join(name))(e)),
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
        let hides = kind != FileType::Directory || is_opaque(parent, name);
        match &mut top {
            _ if walk::is_whiteout(&stat) => break,
            None => top = Some(Found { stat, parent: Arc::clone(parent), layers: vec![*layer] }),
            Some(_) if kind != FileType::Directory => break,
            Some(found) => found.layers.push(layer),
        }
        if hides {
            break;
        }
    }
    Ok(top)
}

/// The names in a directory, those that an upper layer hides included.
fn names(layers: &[Opened<'_>], directory: &Path) -> Result<BTreeSet<OsString>, Error> {
    let mut all = BTreeSet::new();
    for (_, opened) in layers {
        all.extend(walk::names(opened.as_fd()).map_err(Error::io("list", directory))?);
    }
    Ok(all)
}

/// A layer, and a directory in it.
type Opened<'a> = (&'a OwnedFd, Arc<OwnedFd>);

/// Opens a directory in each of these layers that has it.
fn open<'a>(layers: &[&'a OwnedFd], directory: &Path) -> Result<Vec<Opened<'a>>, Error> {
    let mut all = Vec::new();
    for layer in layers {
        match open_below(layer, directory, false) {
            Ok(opened) => all.push((*layer, Arc::new(opened))),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
            Err(e) => return Err(Error::io("open", directory)(e)),
        }
    }
    Ok(all)
}

/// Whether a directory hides what lower layers have in it.
pub(crate) fn is_opaque(parent: &impl AsFd, name: &OsStr) -> bool {
    let mut value = [0; 1];
    lgetxattr(through(parent.as_fd(), name), "trusted.overlay.opaque", &mut value)
        .is_ok_and(|_| value == *b"y")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn layer(fill: impl FnOnce(&Path)) -> (tempfile::TempDir, OwnedFd) {
        let directory = tempfile::tempdir().unwrap();
        fill(directory.path());
        let open = fs::File::open(directory.path()).unwrap().into();
        (directory, open)
    }

    #[test]
    fn upper_layers_add_to_lower_ones_and_hide_them() {
        let (_lower, bottom) = layer(|path| {
            fs::create_dir_all(path.join("etc/deep")).unwrap();
            fs::write(path.join("etc/deep/file"), "").unwrap();
            fs::write(path.join("etc/both"), "lower").unwrap();
            fs::write(path.join("was"), "").unwrap();
        });
        let (_upper, top) = layer(|path| {
            fs::create_dir(path.join("etc")).unwrap();
            fs::write(path.join("etc/both"), "of the upper layer").unwrap();
            fs::create_dir(path.join("was")).unwrap();
            fs::write(path.join("was/file"), "").unwrap();
        });
        let layers = Layers::new(vec![top, bottom]);
        let mut seen = Vec::new();
        layers
            .walk(Path::new(""), &mut |path, found| {
                seen.push((path.display().to_string(), found.kind() == FileType::Directory));
                Ok(true)
            })
            .unwrap();
        seen.sort();
        let expected = [
            ("etc", true),
            ("etc/both", false),
            ("etc/deep", true),
            ("etc/deep/file", false),
            ("was", true),
            ("was/file", false),
        ];
        assert_eq!(seen, expected.map(|(path, directory)| (path.to_owned(), directory)));
        assert_eq!(layers.find(Path::new("etc/both")).unwrap().unwrap().stat.st_size, 18);
        assert!(layers.find(Path::new("etc/both/below")).unwrap().is_none());
        assert!(layers.find(Path::new("../etc")).unwrap().is_none());
    }
}
