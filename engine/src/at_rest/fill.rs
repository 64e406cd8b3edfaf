//! A restore: what the content files have goes into the memory that waits in CRIU, each page looked at on its way.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::thread;

use fastmig_criu::ImageSource;
use fastmig_memory::fill::Origin;

use super::content::{pages_name, Content, Unread};
use super::later::Split;
use super::map::{self, Map};
use super::{PAGE, STEP, STEP_BYTES};
use crate::image::{open_nofollow, Image, ImageError};
use crate::migration::filled::Filled;
use crate::migration::plan::{Layout, Plan};
use crate::migration::Room;
use crate::Error;

/// Threads that read.
const WORKERS: usize = 4;

/// When an application's memory is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coming {
    /// All of it before the application runs.
    Before,
    /// As much as can be while it runs already, what it touches first.
    After,
}

/// Fills the memory of a CRIU that waits with what a checkpoint has of it. All else of the checkpoint was verified. Who has what
/// comes later.
///
/// # Errors
/// When a page is not what was written, by the name of its file; when there is no room.
pub(crate) fn fill(
    image: &Image,
    filled: &mut Filled,
    coming: Coming,
) -> Result<Option<Arc<dyn Origin>>, Error> {
    let (map, contents) = Map::open(&image.path)?;
    let Split { before, after } = match coming {
        Coming::Before => Split::nothing_later(&map),
        Coming::After => Split::most_later(&map),
    };
    let Plan { areas, shared, mappings, .. } = &map.plan;
    let (areas, shared, mappings) = (areas.clone(), shared.clone(), mappings.clone());
    let plan = |number| Plan { number, shared: shared.clone(), ..Plan::default() };
    let first = Plan { areas, pages: before, ..plan(1) };
    let later = !after.is_empty();
    let last = Plan { owed: after, mappings, ..plan(2) };

    let room = announce(image, filled, &first)?;
    let pages = Stored { map, contents, path: image.path.clone() };
    Filling { pages: &pages, layout: Layout::of(&first), room }.run()?;
    filled.round_is_there()?;
    announce(image, filled, &last)?;
    Ok(later.then(|| Arc::new(pages) as Arc<dyn Origin>))
}

fn announce(image: &Image, filled: &mut Filled, plan: &Plan) -> Result<Room, Error> {
    let damaged = |problem| {
        Error::from(ImageError::Damaged { path: image.path.clone(), file: map::NAME.into(), problem })
    };
    let plan = plan.encode().map_err(|_| damaged("says of memory what cannot be"))?;
    filled.round(&plan).map_err(|e| match e {
        // It names a stream, for that is where plans come from otherwise.
        Error::Image(ImageError::Damaged { problem, .. }) => damaged(problem),
        other => other,
    })
}

/// The pages of a checkpoint.
#[derive(Debug)]
struct Stored {
    map: Map,
    contents: Vec<Content>,
    path: PathBuf,
}

impl Stored {
    /// Fills `into` with what a process has from `address` on.
    fn read(&self, process: i32, address: u64, into: &mut [u8]) -> Result<(), Error> {
        let (page, count) = (address / PAGE, into.len() as u64 / PAGE);
        let mut rest = into;
        for piece in map::among(&self.map.places, process, page, count) {
            let length = usize::try_from(piece.count * PAGE).map_err(|_| self.invalid())?;
            let (part, after) = rest.split_at_mut(length);
            let content = &self.contents[usize::from(piece.file)];
            content.read(piece.index, part).map_err(|e| self.unread(content, e))?;
            rest = after;
        }
        if rest.is_empty() {
            Ok(())
        } else {
            Err(self.invalid())
        }
    }

    fn invalid(&self) -> Error {
        Error::io("fill memory from", &self.path, io::ErrorKind::InvalidInput.into())
    }

    fn unread(&self, content: &Content, why: Unread) -> Error {
        let file = pages_name(content.number);
        match why {
            Unread::Failed(source) => Error::io("read", &self.path.join(file), source),
            Unread::Damaged => {
                let problem = "has another content than was written";
                ImageError::Damaged { path: self.path.clone(), file, problem }.into()
            }
        }
    }
}

impl Origin for Stored {
    fn fetch(&self, process: i32, address: u64, into: &mut [u8], _urgent: bool) -> io::Result<()> {
        self.read(process, address, into).map_err(|e| io::Error::other(e.report()))
    }
}

struct Filling<'a> {
    pages: &'a Stored,
    layout: Layout,
    room: Room,
}

impl Filling<'_> {
    fn run(&self) -> Result<(), Error> {
        let steps: Vec<(String, u64, u64)> = self.layout.images().into_iter().flat_map(cut).collect();
        let next = AtomicUsize::new(0);
        let work = || {
            let mut buffer = vec![0; STEP_BYTES];
            while let Some((image, offset, length)) = steps.get(next.fetch_add(1, Ordering::Relaxed)) {
                let bytes = &mut buffer[..usize::try_from(*length).unwrap_or(0)];
                let filled = self.step(image, *offset, bytes);
                filled.inspect_err(|_| next.store(steps.len(), Ordering::Relaxed))?;
            }
            Ok(())
        };
        thread::scope(|scope| {
            let others: Vec<_> = (1..WORKERS.min(steps.len())).map(|_| scope.spawn(work)).collect();
            let panicked = || Err(Error::io("read", &self.pages.path, io::Error::other("a thread panicked")));
            let results = others.into_iter().map(|other| other.join().unwrap_or_else(|_| panicked()));
            results.fold(work(), Result::and)
        })
    }

    fn step(&self, image: &str, offset: u64, bytes: &mut [u8]) -> Result<(), Error> {
        let invalid = || self.pages.invalid();
        let mut rest = &mut *bytes;
        for run in self.layout.runs(image, offset, rest.len() as u64).ok_or_else(invalid)? {
            let length = usize::try_from(run.length).map_err(|_| invalid())?;
            let (part, after) = rest.split_at_mut(length);
            self.pages.read(run.process, run.address, part)?;
            rest = after;
        }
        let written = self.room.write(image, offset, bytes);
        written.map_err(|e| Error::io("fill memory from", &self.pages.path, e))
    }
}

fn cut((image, size): (String, u64)) -> impl Iterator<Item = (String, u64, u64)> {
    (0..size).step_by(STEP_BYTES).map(move |offset| (image.clone(), offset, (size - offset).min(STEP)))
}

/// CRIU's own images of a checkpoint whose memory was filled.
#[derive(Debug)]
pub(crate) struct Images {
    path: PathBuf,
    names: Vec<String>,
}

impl Images {
    /// Those that the manifest vouches for.
    pub(crate) fn of(image: &Image) -> Self {
        let names = image.manifest.files.iter().map(|entry| entry.name.clone());
        Self { path: image.path.clone(), names: names.filter(|name| name.ends_with(".img")).collect() }
    }
}

impl ImageSource for Images {
    fn open(&self, name: &str) -> Option<Box<dyn Read + Send>> {
        let file: File = open_nofollow(&self.path.join(name), 0).ok()?;
        Some(Box::new(file))
    }

    fn names(&self) -> Vec<String> {
        self.names.clone()
    }
}
