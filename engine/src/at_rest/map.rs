//! `memory.map`: which page of which process lies where, and what CRIU is to be shown of it. Read back it is hostile input.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::content::{pages_name, Content};
use crate::image::{open_nofollow, ImageError};
use crate::migration::plan::{Pages, Plan};

/// The file's name.
pub(super) const NAME: &str = "memory.map";

/// Of a hundred million pages that lie alone.
const LARGEST: u64 = 512 << 20;
/// The most content files of one checkpoint.
pub(super) const MOST_FILES: usize = 64;
/// The end of what a process can map, in pages.
const LAST_PAGE: u64 = 1 << 35;

/// Pages that lie together, in memory and in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    /// The first page's number in memory.
    pub(super) page: u64,
    pub(super) count: u64,
    /// Which file.
    pub(super) file: u16,
    /// The first page's number there.
    pub(super) index: u32,
}

impl Run {
    /// Whether this page, which lies there, is the next one.
    pub(super) fn goes_on(&self, page: u64, file: u16, index: u32) -> bool {
        page == self.page + self.count
            && file == self.file
            && u64::from(index) == u64::from(self.index) + self.count
    }

    /// What of it is among so many pages from `page` on.
    pub(super) fn cut(&self, page: u64, count: u64) -> Option<Self> {
        let (start, end) = (self.page.max(page), (self.page + self.count).min(page + count));
        let index = u32::try_from(u64::from(self.index) + start.checked_sub(self.page)?).ok()?;
        (start < end).then(|| Self { page: start, count: end - start, file: self.file, index })
    }
}

/// Of each process its runs, sorted and disjoint.
pub(super) type Places = BTreeMap<i32, Vec<Run>>;

/// The runs of a process that lie among so many pages from `page` on.
pub(super) fn among(places: &Places, process: i32, page: u64, count: u64) -> impl Iterator<Item = Run> + '_ {
    let runs = places.get(&process).map_or(&[][..], Vec::as_slice);
    let first = runs.partition_point(|run| run.page + run.count <= page);
    runs[first..].iter().map_while(move |run| run.cut(page, count))
}

/// The map of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Map {
    /// Numbers of content files.
    pub(super) files: Vec<u64>,
    /// Areas, mappings and shared memory; no pages.
    pub(super) plan: Plan,
    pub(super) places: Places,
}

/// A run as it is written: how many pages are left out before it, how many it has, in which file, and from where on.
type Step = (u64, u64, u16, u32);

/// As it is written.
#[derive(Serialize, Deserialize)]
struct Written {
    files: Vec<u64>,
    plan: Plan,
    places: Vec<(i32, Vec<Step>)>,
}

impl Map {
    /// Writes it into a checkpoint in the making.
    pub(super) fn write(&self, directory: &Path) -> io::Result<()> {
        let bytes = self.encode().map_err(io::Error::other)?;
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(directory.join(NAME))?;
        file.write_all(&bytes)
    }

    fn encode(&self) -> Result<Vec<u8>, postcard::Error> {
        let runs = |runs: &[Run]| {
            let mut at = 0;
            let step = |run: &Run| {
                let gap = run.page - at;
                at = run.page + run.count;
                (gap, run.count, run.file, run.index)
            };
            runs.iter().map(step).collect()
        };
        let places = self.places.iter().map(|(process, of)| (*process, runs(of))).collect();
        postcard::to_allocvec(&Written { files: self.files.clone(), plan: self.plan.clone(), places })
    }

    /// Reads one; nothing when it is damaged or says what cannot be.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let Written { files, plan, places } = postcard::from_bytes(bytes).ok()?;
        let different: BTreeSet<u64> = files.iter().copied().collect();
        let of_rest = plan.number == 1
            && plan.pages.is_empty()
            && plan.forgotten.is_empty()
            && plan.owed.is_empty()
            && plan.mappings.is_some();
        if files.len() > MOST_FILES || different.len() != files.len() || !of_rest || !plan.is_valid() {
            return None;
        }
        let mut all = Places::new();
        for (process, steps) in places {
            let mut at = 0_u64;
            let mut runs = Vec::new();
            for (gap, count, file, index) in steps {
                let page = at.checked_add(gap)?;
                at = page.checked_add(count).filter(|end| *end <= LAST_PAGE && count > 0)?;
                u64::from(index).checked_add(count).filter(|end| *end <= u64::from(u32::MAX))?;
                files.get(usize::from(file))?;
                runs.push(Run { page, count, file, index });
            }
            if all.insert(process, runs).is_some() {
                return None;
            }
        }
        Some(Self { files, plan, places: all })
    }

    /// Reads that of the checkpoint in `directory`, and opens its content files. That they are what their checkpoint's manifest
    /// says, but for the pages themselves, the caller has seen to.
    pub(super) fn open(directory: &Path) -> Result<(Self, Vec<Content>), ImageError> {
        let damaged = |file: String, problem| ImageError::Damaged { path: directory.into(), file, problem };
        let path = directory.join(NAME);
        let file = open_nofollow(&path, 0).map_err(|_| damaged(NAME.into(), "is missing or not a file"))?;
        let mut bytes = Vec::new();
        let read = file.take(LARGEST + 1).read_to_end(&mut bytes);
        read.map_err(|source| ImageError::Io { action: "read", path, source })?;
        if bytes.len() as u64 > LARGEST {
            return Err(damaged(NAME.into(), "is larger than any map"));
        }
        let map =
            Self::decode(&bytes).ok_or_else(|| damaged(NAME.into(), "says of memory what cannot be"))?;
        let (mut contents, mut counts) = (Vec::new(), Vec::new());
        for number in &map.files {
            let opened = Content::open(directory, *number);
            let (content, count) = opened.map_err(|_| {
                damaged(pages_name(*number), "is missing, or has not as many pages as hashes")
            })?;
            contents.push(content);
            counts.push(count);
        }
        if let Some(file) = map.exceeded(&counts) {
            return Err(damaged(pages_name(map.files[file]), "has fewer pages than the map says"));
        }
        Ok((map, contents))
    }

    /// The first file that has fewer pages than are said to lie there. No page is two, so that nobody is made to hold more
    /// than there is.
    fn exceeded(&self, counts: &[u64]) -> Option<usize> {
        let mut told = vec![0_u64; counts.len()];
        for run in self.places.values().flatten() {
            let file = usize::from(run.file);
            told[file] = told[file].saturating_add(run.count);
            if u64::from(run.index) + run.count > counts[file] {
                return Some(file);
            }
        }
        told.iter().zip(counts).position(|(told, there)| told > there)
    }

    /// All pages that lie somewhere, as a plan tells them.
    pub(super) fn pages(&self) -> Vec<Pages> {
        let bytes = |run: &Run| run.page * super::PAGE..(run.page + run.count) * super::PAGE;
        self.places.iter().map(|(process, runs)| Pages::new(*process, runs.iter().map(bytes))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::at_rest::content::{hash, Hash};
    use crate::migration::plan::Mapping;
    use proptest::prelude::*;

    fn map(files: Vec<u64>, places: Places) -> Map {
        let mapping = Mapping { process: 7, start: 0x1000, end: 0x9000, inherited: None };
        let plan = Plan { number: 1, mappings: Some(vec![mapping]), ..Plan::default() };
        Map { files, plan, places }
    }

    fn run(page: u64, count: u64, file: u16, index: u32) -> Run {
        Run { page, count, file, index }
    }

    fn example() -> Map {
        map(
            vec![4, 9],
            Places::from([(7, vec![run(1, 2, 0, 0), run(5, 3, 1, 0)]), (-1, vec![run(0, 1, 0, 2)])]),
        )
    }

    fn write_files(directory: &Path, numbers: &[u64], pages: u64) {
        for number in numbers {
            let name = pages_name(*number);
            std::fs::write(directory.join(&name), vec![1; usize::try_from(pages).unwrap() * 4096]).unwrap();
            let hashes: Vec<Hash> = (0..pages).map(|_| hash(&[1; 4096])).collect();
            std::fs::write(directory.join(name.replace(".pages", ".hashes")), hashes.as_flattened()).unwrap();
        }
    }

    #[test]
    fn what_is_written_reads_the_same() {
        let root = tempfile::tempdir().unwrap();
        write_files(root.path(), &[4, 9], 3);
        example().write(root.path()).unwrap();
        let (read, contents) = Map::open(root.path()).unwrap();
        assert_eq!(read, example());
        assert_eq!(contents.iter().map(|content| content.number).collect::<Vec<_>>(), [4, 9]);
        let bytes: u64 = read.pages().iter().flat_map(Pages::spans).map(|span| span.end - span.start).sum();
        assert_eq!(bytes, 6 * 4096);
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        let refused = |map: &Map, pages| {
            let root = tempfile::tempdir().unwrap();
            write_files(root.path(), &[4, 9], pages);
            map.write(root.path()).unwrap();
            Map::open(root.path()).unwrap_err().to_string()
        };
        assert!(refused(&example(), 2).contains(&pages_name(4)));
        let twice = map(vec![4], Places::from([(7, vec![run(1, 2, 0, 0)]), (8, vec![run(1, 2, 0, 0)])]));
        assert!(refused(&twice, 3).contains("fewer pages"));
        assert!(refused(&map(vec![5], Places::new()), 1).contains(&pages_name(5)));
        for wrong in [
            map(vec![4, 4], Places::new()),
            map((0..65).collect(), Places::new()),
            map(vec![4], Places::from([(7, vec![run(1, 0, 0, 0)])])),
            map(vec![4], Places::from([(7, vec![run(1, 1, 1, 0)])])),
            map(vec![4], Places::from([(7, vec![run(LAST_PAGE, 1, 0, 0)])])),
            map(vec![4], Places::from([(7, vec![run(1, 1, 0, u32::MAX)])])),
        ] {
            assert!(refused(&wrong, 3).contains("what cannot be"), "{wrong:?}");
        }
        let mut early = example();
        early.plan.mappings = None;
        assert!(refused(&early, 3).contains("what cannot be"));
    }

    #[test]
    fn runs_are_found_by_their_pages() {
        let places = Places::from([(1, vec![run(2, 4, 0, 10), run(8, 2, 1, 0), run(20, 1, 0, 3)])]);
        let found: Vec<Run> = among(&places, 1, 4, 5).collect();
        assert_eq!(found, [run(4, 2, 0, 12), run(8, 1, 1, 0)]);
        assert_eq!(among(&places, 1, 10, 10).count(), 0);
        assert_eq!(among(&places, 2, 0, 100).count(), 0);
    }

    proptest! {
        #[test]
        fn any_map_reads_the_same(
            runs in prop::collection::vec((-3..9_i32, prop::collection::vec((0..1000_u64, 1..50_u64, 0..3_u16, 0..5000_u32), 0..20)), 0..6)
        ) {
            let mut places = Places::new();
            for (process, steps) in runs {
                let mut at = 0;
                let runs = steps.into_iter().map(|(gap, count, file, index)| {
                    let page = at + gap;
                    at = page + count;
                    run(page, count, file, index)
                });
                places.insert(process, runs.collect());
            }
            let map = map(vec![1, 2, 3], places);
            prop_assert_eq!(Map::decode(&map.encode().unwrap()), Some(map));
        }

        /// Whatever becomes of one: it is refused, or makes sense.
        #[test]
        fn no_changed_map_is_too_strange(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
            let mut bytes = example().encode().unwrap();
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if let Some(read) = Map::decode(&bytes) {
                read.exceeded(&vec![3; read.files.len()]);
                prop_assert!(read.pages().iter().flat_map(Pages::spans).all(|span| span.start < span.end));
            }
        }

        #[test]
        fn random_bytes_are_no_map(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            drop(Map::decode(&bytes));
        }
    }
}
