//! Which seccomp filters a restored process runs under: the container's own, byte for byte, and what its image brings, which
//! only forbids more. Where the image has not got the container's, because it comes from a client with another default or
//! from an attacker, they are added on the image's way to CRIU.
//!
//! CRIU traces what it restores until that runs, and nobody else can read its filters meanwhile. So what CRIU was given is
//! looked at before anything runs.

use std::io::{Cursor, Read};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use fastmig_criu::seccomp::{self, decides, filters_of, Filter};
use fastmig_criu::ImageSource;
use procfs::process::Process;

use crate::container::Container;
use crate::Error;

/// Some KiB in truth: a filter has 4096 instructions at most.
const LARGEST: u64 = 64 << 20;

/// The container's filters, and what images say.
#[derive(Debug)]
pub(crate) struct Filters(Arc<Known>);

type Reader = JoinHandle<Result<Vec<Filter>, Error>>;

#[derive(Debug)]
struct Known {
    init: i32,
    /// The container's own are read while there is something else to do.
    reader: Mutex<Option<Reader>>,
    own: OnceLock<Result<Vec<Filter>, String>>,
    /// What CRIU was given.
    seen: Mutex<Vec<(String, Vec<u8>)>>,
}

impl Filters {
    /// Begins to read those of the container.
    pub(crate) fn of(container: &Container) -> Self {
        let init = container.pid();
        let reader = Mutex::new(Some(std::thread::spawn(move || own(init))));
        Self(Arc::new(Known { init, reader, own: OnceLock::new(), seen: Mutex::default() }))
    }

    /// `images`, as CRIU is to get them.
    pub(crate) fn watch(&self, images: Arc<dyn ImageSource>) -> Arc<dyn ImageSource> {
        Arc::new(Watched { images, known: Arc::clone(&self.0) })
    }

    /// Whether CRIU may read images by itself, from where nobody else can change them.
    pub(crate) fn fit(&self, images: &dyn ImageSource) -> Result<bool, Error> {
        let mut all = Vec::new();
        for name in images.names().into_iter().filter(|name| decides(name)) {
            all.extend(images.open(&name).map(|image| (name, content(image))));
        }
        let fit = self.0.require(&all).is_ok();
        if fit {
            *self.0.seen() = all;
        }
        self.0.own().map(|_| fit)
    }

    /// Whether all that CRIU was given has the container's.
    pub(crate) fn verify(&self, container: &Container) -> Result<(), Error> {
        let begun = Instant::now();
        let own = self.0.own()?;
        let result = self.0.require(&self.0.seen());
        tracing::debug!(filters = own.len(), took = ?begun.elapsed(), "seccomp filters are compared");
        result.map_err(|wrong| Error::OtherFilter { id: container.key().id().into(), wrong })
    }
}

impl Known {
    fn own(&self) -> Result<&[Filter], Error> {
        let own = self.own.get_or_init(|| {
            let reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner).take();
            let read = reader.map(JoinHandle::join).and_then(Result::ok);
            read.unwrap_or_else(|| Err(unreadable(self.init, "a thread panicked"))).map_err(|e| e.report())
        });
        own.as_deref().map_err(|reason| unreadable(self.init, reason))
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Vec<(String, Vec<u8>)>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn require(&self, images: &[(String, Vec<u8>)]) -> Result<(), seccomp::Wrong> {
        match self.own() {
            // What could not be read is told by its own error.
            Ok([]) | Err(_) => Ok(()),
            Ok(own) => seccomp::require(own, images),
        }
    }

    /// What CRIU gets in place of `image`. What is damaged stays so: CRIU or the last look at it refuses it.
    fn mended(&self, name: &str, image: Vec<u8>) -> Vec<u8> {
        let own = self.own().unwrap_or_default();
        match seccomp::is_list(name).then(|| seccomp::with_own(own, &image)).flatten() {
            Some(mended) if mended != image => {
                tracing::warn!("the application comes from under another seccomp filter: it gets its container's besides");
                mended
            }
            _ => image,
        }
    }
}

impl Drop for Known {
    /// Nobody else may want to trace the init while we do.
    fn drop(&mut self) {
        drop(self.reader.get_mut().unwrap_or_else(PoisonError::into_inner).take().map(JoinHandle::join));
    }
}

/// The filters of a container's PID 1, which is stopped for a moment if it has any.
fn own(init: i32) -> Result<Vec<Filter>, Error> {
    let status = Process::new(init).and_then(|process| process.status());
    let mode = status.map_err(|e| unreadable(init, &e.to_string()))?.seccomp.unwrap_or(0);
    if mode == 0 {
        return Ok(Vec::new());
    }
    filters_of(init).map_err(|e| unreadable(init, &e.to_string()))
}

fn unreadable(init: i32, reason: &str) -> Error {
    let source = std::io::Error::other(reason.to_owned());
    Error::io("read the seccomp filters of", &PathBuf::from(format!("/proc/{init}")), source)
}

/// What is too large or breaks off is there as far as it goes, and CRIU gets no more of it.
fn content(image: impl Read) -> Vec<u8> {
    let mut content = Vec::new();
    if let Err(error) = image.take(LARGEST).read_to_end(&mut content) {
        tracing::warn!(%error, "an image breaks off");
    }
    content
}

/// Images on their way to CRIU.
#[derive(Debug)]
struct Watched {
    images: Arc<dyn ImageSource>,
    known: Arc<Known>,
}

impl ImageSource for Watched {
    fn open(&self, name: &str) -> Option<Box<dyn Read + Send>> {
        let image = self.images.open(name)?;
        if !decides(name) {
            return Some(image);
        }
        let image = self.known.mended(name, content(image));
        self.known.seen().push((name.to_owned(), image.clone()));
        Some(Box::new(Cursor::new(image)))
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
        let own = OnceLock::from(Ok(Vec::new()));
        let known = Known { init: 1, reader: Mutex::default(), own, seen: Mutex::default() };
        let filters = Filters(Arc::new(known));
        let watched = filters.watch(Arc::new(Fixed));
        assert!(watched.open("none.img").is_none());
        for name in watched.names() {
            let mut content = String::new();
            watched.open(&name).unwrap().read_to_string(&mut content).unwrap();
            assert_eq!(content, name);
        }
        let seen: Vec<_> =
            ["core-1.img", "seccomp.img"].map(|n| (n.to_owned(), n.as_bytes().to_vec())).into();
        assert_eq!(*filters.0.seen(), seen);
    }

    #[test]
    fn what_does_not_fit_is_not_for_criu_to_read() {
        let filter = Filter { program: vec![1; 8], flags: 0 };
        for (own, fit) in [(Vec::new(), true), (vec![filter], false)] {
            let known = Known {
                init: 1,
                reader: Mutex::default(),
                own: OnceLock::from(Ok(own)),
                seen: Mutex::default(),
            };
            assert_eq!(Filters(Arc::new(known)).fit(&Fixed).unwrap(), fit);
        }
    }
}
