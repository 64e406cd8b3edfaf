//! A receiver as simple as can be: pages by process and address. What it has is compared with what is there.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::os::unix::fs::FileExt;

use fastmig_memory::{Content, Last, Mapping, Pages, Process, Reader, Round, Span};

const PAGE: u64 = 4096;

#[derive(Debug, Default)]
pub(crate) struct Receiver {
    pages: BTreeMap<i32, BTreeMap<u64, Vec<u8>>>,
    /// Pages ever taken.
    pub(crate) taken: u64,
}

/// What a comparison has covered, in pages.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Covered {
    pub(crate) own: u64,
    pub(crate) inherited: u64,
}

impl Receiver {
    pub(crate) fn take_round(&mut self, round: &Round, processes: &[Process]) {
        self.forget(&round.forgotten);
        let sent: HashSet<(i32, u64)> = each(&round.pages).collect();
        assert!(each(&round.forgotten).all(|page| !sent.contains(&page)), "sent and forgotten at once");
        let in_area = |id: i32, page: u64| {
            round.areas.iter().any(|area| area.process == id && (area.start..area.end).contains(&page))
        };
        assert!(each(&round.pages).all(|(id, page)| in_area(id, page)), "a page outside of all areas");
        for (id, pages) in &mut self.pages {
            pages.retain(|page, _| in_area(*id, *page));
        }
        self.read(&round.pages, processes, true);
    }

    pub(crate) fn take_last(&mut self, last: &Last, processes: &[Process]) {
        self.forget(&last.discard);
        self.read(&last.pages, processes, false);
    }

    fn forget(&mut self, list: &[Pages]) {
        for (id, page) in each(list) {
            let gone = self.pages.get_mut(&id).and_then(|pages| pages.remove(&page));
            assert!(gone.is_some(), "page {page:x} of {id} was never sent");
        }
    }

    fn read(&mut self, list: &[Pages], processes: &[Process], running: bool) {
        for pages in list {
            let host = processes.iter().find(|process| process.id == pages.process).unwrap().host;
            let reader = Reader::open(host);
            assert!(running || reader.is_ok(), "a frozen process is gone");
            for Span { start, end } in &pages.spans {
                let mut bytes = vec![0; usize::try_from(end - start).unwrap()];
                if let Ok(reader) = &reader {
                    reader.read(*start, &mut bytes).unwrap();
                }
                for (page, bytes) in (*start..).step_by(4096).zip(bytes.chunks(4096)) {
                    self.pages.entry(pages.process).or_default().insert(page, bytes.to_vec());
                    self.taken += 1;
                }
            }
            assert!(
                running || reader.is_ok_and(|reader| reader.lost() == 0),
                "a page of a frozen process is gone"
            );
        }
    }

    /// Every page of every mapping, with that of the frozen processes.
    pub(crate) fn compare(&self, last: &Last, processes: &[Process]) -> Covered {
        let mappings: HashMap<(i32, u64), &Mapping> =
            last.mappings.iter().map(|m| ((m.process, m.start), m)).collect();
        assert_eq!(mappings.len(), last.mappings.len());
        let mut covered = Covered::default();
        for mapping in &last.mappings {
            let process = processes.iter().find(|process| process.id == mapping.process).unwrap();
            let lines = std::fs::read_to_string(format!("/proc/{}/maps", process.host)).unwrap();
            let header = format!("{:x}-{:x} ", mapping.start, mapping.end);
            assert!(lines.lines().any(|line| line.starts_with(&header)), "no mapping {header}");
            let memory = File::open(format!("/proc/{}/mem", process.host)).unwrap();
            let mut there = vec![0; usize::try_from(mapping.end - mapping.start).unwrap()];
            memory.read_exact_at(&mut there, mapping.start).unwrap();
            for (page, there) in (mapping.start..mapping.end).step_by(4096).zip(there.chunks(4096)) {
                let (here, inherited) = self.resolve(process, page, mapping.start, &mappings, processes);
                let same = here.map_or_else(|| there.iter().all(|byte| *byte == 0), |here| here == there);
                let head = |bytes: &[u8]| u64::from_ne_bytes(bytes[..8].try_into().unwrap());
                assert!(
                    same,
                    "page {page:x} of {process:?} differs: {:?} here, {:x} there; {:?}, inherited {inherited}",
                    here.map(|here| head(here)),
                    head(there),
                    mapping.content
                );
                match (here.is_some(), inherited) {
                    (true, true) => covered.inherited += 1,
                    (true, false) => covered.own += 1,
                    _ => {}
                }
            }
        }
        covered
    }

    /// The content, or zeros; and whether it is a forebear's.
    fn resolve(
        &self,
        process: &Process,
        page: u64,
        start: u64,
        mappings: &HashMap<(i32, u64), &Mapping>,
        processes: &[Process],
    ) -> (Option<&Vec<u8>>, bool) {
        let within = |spans: &[Span]| spans.iter().any(|span| (span.start..span.end).contains(&page));
        match &mappings[&(process.id, start)].content {
            Content::Inherited { own, absent } if !within(own) => {
                let held = self.pages.get(&process.id).is_some_and(|pages| pages.contains_key(&page));
                assert!(!held, "page {page:x} of {process:?} is inherited, and yet here");
                if within(absent) {
                    return (None, true);
                }
                let parent = processes.iter().find(|p| Some(p.id) == process.parent).unwrap();
                (self.resolve(parent, page, start, mappings, processes).0, true)
            }
            _ => (self.pages.get(&process.id).and_then(|pages| pages.get(&page)), false),
        }
    }
}

fn each(list: &[Pages]) -> impl Iterator<Item = (i32, u64)> + '_ {
    list.iter().flat_map(|pages| {
        let starts =
            pages.spans.iter().flat_map(|span| (span.start..span.end).step_by(PAGE.try_into().unwrap()));
        starts.map(|page| (pages.process, page))
    })
}
