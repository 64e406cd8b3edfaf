//! CRIU's small images, on the host's tmpfs.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use fastmig_criu::{ImageSink, ImageSource};
use fastmig_memory::parallel;

use crate::container::Container;
use crate::Error;

/// Below the container's directory of state.
const NAME: &str = "images";
/// A larger image is passed on in parts of this size.
const PART: usize = 1 << 20;
/// Bytes of an image that are written at once.
const AT_ONCE: usize = 64 << 10;

/// Which images the sink has.
#[derive(Debug, Default)]
pub(super) struct Given(BTreeSet<String>);

impl Given {
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains(name)
    }

    /// Whether it had not got this one.
    pub(super) fn add(&mut self, name: &str) -> bool {
        self.0.insert(name.to_owned())
    }
}

/// A directory that is gone when it is dropped. What one left that died is gone when the next is made.
#[derive(Debug)]
pub(crate) struct Spool(PathBuf);

impl Spool {
    /// An empty one. The container is locked.
    pub(crate) fn make(container: &Container) -> Result<Self, Error> {
        let path = container.directory.path().join(NAME);
        let failed = |e| Error::io("make", &path, e);
        match std::fs::remove_dir_all(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
            _ => {}
        }
        std::fs::DirBuilder::new().mode(0o700).create(&path).map_err(failed)?;
        Ok(Self(path))
    }

    #[cfg(test)]
    pub(super) fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn open(&self) -> Result<OwnedFd, Error> {
        crate::files::open_directory(&self.0)
    }

    /// Passes all images on but those that were.
    pub(super) fn give(&self, given: &Given, sink: &mut dyn ImageSink) -> io::Result<()> {
        for entry in std::fs::read_dir(&self.0)? {
            let entry = entry?;
            let name = entry.file_name().into_string().map_err(|_| io::ErrorKind::InvalidData)?;
            if entry.file_type()?.is_file() && !given.has(&name) {
                self.give_one(&name, sink)?;
            }
        }
        Ok(())
    }

    /// Passes one on.
    pub(super) fn give_one(&self, name: &str, sink: &mut dyn ImageSink) -> io::Result<()> {
        let mut file = File::open(self.0.join(name))?;
        let length = file.metadata()?.len();
        if length <= PART as u64 {
            let mut content = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
            file.read_to_end(&mut content)?;
            return sink.image(name, content);
        }
        loop {
            let mut content = Vec::with_capacity(PART);
            (&mut file).take(PART as u64).read_to_end(&mut content)?;
            let last = content.len() < PART;
            sink.part(name, content, last)?;
            if last {
                return Ok(());
            }
        }
    }

    /// Writes images down that were sent. Their names are names of images, which the one who received them has seen to.
    pub(crate) fn take(&self, images: &dyn ImageSource) -> io::Result<()> {
        let names = images.names();
        parallel::map(&names, |name| self.take_one(images, name)).into_iter().collect()
    }

    fn take_one(&self, images: &dyn ImageSource, name: &str) -> io::Result<()> {
        let Some(mut image) = images.open(name) else { return Ok(()) };
        if name.contains('/') || name == "." || name == ".." {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("an image is called {name:?}")));
        }
        let file = File::options().write(true).create_new(true).mode(0o600).open(self.0.join(name))?;
        let mut file = BufWriter::with_capacity(AT_ONCE, file);
        io::copy(&mut image, &mut file)?;
        file.flush()
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        if let Err(e) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(path = ?self.0, error = %e, "images of a migration stay");
        }
    }
}
