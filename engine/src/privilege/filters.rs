//! Which seccomp filters a restored process runs under: first the container's own, byte for byte, then what the application has
//! added, which only forbids more.
//!
//! CRIU traces what it restores until that runs, and nobody else can read its filters meanwhile. So the images are read as they
//! are given to CRIU, and compared before anything runs with what the container's PID 1 has.

use std::io::{Cursor, Read};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use fastmig_criu::seccomp::{begins_with, decides, filters_of, Filter};
use fastmig_criu::ImageSource;
use procfs::process::Process;

use crate::container::Container;
use crate::Error;

/// Some KiB in truth: a filter has 4096 instructions at most.
const LARGEST: u64 = 64 << 20;

/// The container's filters, and what images say.
#[derive(Debug)]
pub(crate) struct Filters {
    seen: Arc<Seen>,
    /// Read while CRIU restores; nothing where any filter will do.
    own: Mutex<Option<JoinHandle<Result<Vec<Filter>, Error>>>>,
}

/// What CRIU was given.
#[derive(Debug, Default)]
struct Seen(Mutex<Vec<(String, Vec<u8>)>>);

impl Filters {
    /// Begins to read those of the container.
    pub(crate) fn of(container: &Container) -> Self {
        let init = container.pid();
        let wanted = !container.config.confinement.foreign_seccomp;
        let own = wanted.then(|| std::thread::spawn(move || own(init)));
        Self { seen: Arc::default(), own: Mutex::new(own) }
    }

    /// `images`, with a look at those that matter when CRIU opens them.
    pub(crate) fn watch(&self, images: Arc<dyn ImageSource>) -> Arc<dyn ImageSource> {
        Arc::new(Watched { images, seen: Arc::clone(&self.seen) })
    }

    /// Reads those that CRIU opens by itself.
    pub(crate) fn look_at(&self, images: &dyn ImageSource) {
        for name in images.names().into_iter().filter(|name| decides(name)) {
            drop(images.open(&name).map(|image| self.seen.take(&name, image)));
        }
    }

    /// Whether all that CRIU was given fits to the container's.
    pub(crate) fn verify(&self, container: &Container) -> Result<(), Error> {
        let begun = Instant::now();
        let Some(own) = self.own.lock().unwrap_or_else(PoisonError::into_inner).take() else { return Ok(()) };
        let gone = || Err(unreadable(container.pid(), std::io::Error::other("a thread panicked")));
        let own = own.join().unwrap_or_else(|_| gone())?;
        let result = if own.is_empty() { Ok(()) } else { begins_with(&own, &self.seen.all()) };
        tracing::debug!(filters = own.len(), took = ?begun.elapsed(), "seccomp filters are compared");
        result.map_err(|wrong| Error::OtherFilter { id: container.key().id().into(), wrong })
    }
}

impl Drop for Filters {
    /// Nobody else may want to trace the init while we do.
    fn drop(&mut self) {
        drop(self.own.get_mut().unwrap_or_else(PoisonError::into_inner).take().map(JoinHandle::join));
    }
}

/// The filters of a container's PID 1, which is stopped for a moment if it has any.
fn own(init: i32) -> Result<Vec<Filter>, Error> {
    let status = Process::new(init).and_then(|process| process.status());
    let mode = status.map_err(|e| unreadable(init, std::io::Error::other(e)))?.seccomp.unwrap_or(0);
    if mode == 0 {
        return Ok(Vec::new());
    }
    filters_of(init).map_err(|e| unreadable(init, e))
}

fn unreadable(init: i32, source: std::io::Error) -> Error {
    Error::io("read the seccomp filters of", &PathBuf::from(format!("/proc/{init}")), source)
}

impl Seen {
    fn all(&self) -> Vec<(String, Vec<u8>)> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Keeps a copy. What is too large or breaks off is kept as far as it goes, and CRIU gets no more of it.
    fn take(&self, name: &str, image: impl Read) -> Vec<u8> {
        let mut content = Vec::new();
        if let Err(error) = image.take(LARGEST).read_to_end(&mut content) {
            tracing::warn!(name, %error, "an image breaks off");
        }
        let copy = (name.to_owned(), content.clone());
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(copy);
        content
    }
}

/// Images on their way to CRIU.
#[derive(Debug)]
struct Watched {
    images: Arc<dyn ImageSource>,
    seen: Arc<Seen>,
}

impl ImageSource for Watched {
    fn open(&self, name: &str) -> Option<Box<dyn Read + Send>> {
        let image = self.images.open(name)?;
        if !decides(name) {
            return Some(image);
        }
        Some(Box::new(Cursor::new(self.seen.take(name, image))))
    }

    fn names(&self) -> Vec<String> {
        self.images.names()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Fixed;

    impl ImageSource for Fixed {
        fn open(&self, name: &str) -> Option<Box<dyn Read + Send>> {
            (name != "none.img").then(|| Box::new(Cursor::new(name.as_bytes().to_vec())) as Box<_>)
        }

        fn names(&self) -> Vec<String> {
            ["core-1.img", "seccomp.img", "pages-1.img"].map(String::from).into()
        }
    }

    #[test]
    fn what_criu_gets_is_what_was_looked_at() {
        let filters = Filters { seen: Arc::default(), own: Mutex::default() };
        let watched = filters.watch(Arc::new(Fixed));
        assert!(watched.open("none.img").is_none());
        for name in watched.names() {
            let mut content = String::new();
            watched.open(&name).unwrap().read_to_string(&mut content).unwrap();
            assert_eq!(content, name);
        }
        let seen: Vec<_> = ["core-1.img", "seccomp.img"].map(|n| (n.to_owned(), n.as_bytes().to_vec())).into();
        assert_eq!(filters.seen.all(), seen);
        filters.look_at(&Fixed);
        assert_eq!(filters.seen.all(), seen);
    }
}
