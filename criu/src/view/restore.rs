//! A restore that finds its memory filled: areas in the CRIU that waits for its request.

use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use fastmig_criu_view_layout::{
    area, command, mapping, process_word, segment, AREAS, FAMILY, MAPPINGS, RANGES, REMAINDERS, SEGMENTS,
    SPANS, WANTED,
};
use nix::unistd::Pid;

use super::areas::{self, in_area, Area, SPAN_WORDS};
use super::commands::Commands;
use super::dump::{entries, field, only_some, HiddenMapping};
use super::segments::{self, Segment};
use super::table::Table;
use super::{memory, AreaSpec, Placed, SegmentSpec, Span, ViewError};

/// What a restore may ask of CRIU's process.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes in all areas, and as many in shared memory.
    pub bytes: u64,
    /// How long one command may take.
    pub command: Duration,
}

/// Memory that is filled in the CRIU that waits for its request. Handed over with
/// [`Launch::with_restore_view`](crate::Launch::with_restore_view); the commands are for the time between the start and the
/// request.
#[derive(Debug)]
pub struct RestoreView {
    table: Table,
    limits: Limits,
    commands: Commands,
    /// CRIU's process, once it has answered.
    process: Option<Pid>,
    areas: Vec<Area>,
    segments: Vec<Segment>,
    placed: u64,
    /// Held for a command that leaves this view as it is: others are alone by having all of it.
    asking: Mutex<()>,
}

impl RestoreView {
    /// A view without any memory.
    ///
    /// # Errors
    /// When the system has no memory to share.
    pub fn new(limits: Limits) -> Result<Self, ViewError> {
        Ok(Self {
            table: Table::new()?,
            limits,
            commands: Commands::new(limits.command)?,
            process: None,
            areas: Vec::new(),
            segments: Vec::new(),
            placed: 0,
            asking: Mutex::new(()),
        })
    }

    /// What CRIU gets: table and socket.
    pub(crate) fn descriptors(&self) -> io::Result<(OwnedFd, OwnedFd)> {
        let socket = self.commands.take_other_end();
        let socket = socket.ok_or_else(|| io::Error::other("CRIU was started with this view before"))?;
        Ok((self.table.descriptor()?, socket))
    }

    /// Makes the areas what `wanted` says. Content stays where old and new areas overlap; everything else is empty.
    ///
    /// # Errors
    /// When areas overlap, are too much, or CRIU cannot make them; after the latter they are of no use any more.
    pub fn lay_out(&mut self, wanted: &[AreaSpec]) -> Result<(), ViewError> {
        let wanted = areas::sorted(wanted, self.limits.bytes)?;
        self.table.write(WANTED, "areas", 0, &areas::words(&wanted))?;
        self.areas.clear();
        self.command("lay out areas", [command::LAY_OUT, 0, 0, 0])?;
        let words = self.table.read(AREAS, wanted.len() as u64)?;
        let locations = entries(&words, area::WORDS).map(|entry| field(entry, area::LOCATION));
        self.areas =
            wanted.into_iter().zip(locations).map(|(spec, location)| Area { spec, location }).collect();
        Ok(())
    }

    /// Makes segments of shared memory besides those that there are. They are empty.
    ///
    /// # Errors
    /// When one is there already, they are too much, or CRIU cannot make them.
    pub fn make_segments(&mut self, wanted: &[SegmentSpec]) -> Result<(), ViewError> {
        let words = segments::words(wanted, &self.segments, self.limits.bytes)?;
        let first = self.segments.len() as u64;
        self.table.write(SEGMENTS, "segments of shared memory", first, &words)?;
        self.command("make shared memory", [command::MAKE_SEGMENTS, first, 0, 0])?;
        let all = self.table.read(SEGMENTS, first + wanted.len() as u64)?;
        for (spec, entry) in wanted.iter().zip(entries(&all, segments::WORDS).skip(self.segments.len())) {
            let location = field(entry, segment::LOCATION);
            self.segments.push(Segment { spec: spec.clone(), location });
        }
        Ok(())
    }

    /// Writes content at an address of a process, also over several areas that adjoin; any number of threads may, but not two at
    /// one place.
    ///
    /// # Errors
    /// When no areas hold all of it (`InvalidInput`), or CRIU is gone.
    pub fn write(&self, process: i32, address: u64, content: &[u8]) -> io::Result<()> {
        let criu = self.process()?;
        let mut parts = self.locate(process, address, content.len())?.into_iter();
        parts.try_for_each(|(location, part)| memory::write(criu, location, &content[part]))
    }

    /// Reads what was filled.
    ///
    /// # Errors
    /// When no areas hold all of it (`InvalidInput`), or CRIU is gone.
    pub fn read(&self, process: i32, address: u64, content: &mut [u8]) -> io::Result<()> {
        let criu = self.process()?;
        let mut parts = self.locate(process, address, content.len())?.into_iter();
        parts.try_for_each(|(location, part)| memory::read(criu, location, &mut content[part]))
    }

    /// Writes content into segment `id`.
    ///
    /// # Errors
    /// When there is no such segment or it is shorter (`InvalidInput`), or CRIU is gone.
    pub fn write_segment(&self, id: u64, offset: u64, content: &[u8]) -> io::Result<()> {
        let segment = self.segments.iter().find(|segment| segment.spec.id == id);
        let end = offset.checked_add(content.len() as u64);
        let inside = segment.filter(|segment| end.is_some_and(|end| end <= segment.spec.size));
        let segment = inside.ok_or(io::ErrorKind::InvalidInput)?;
        memory::write(self.process()?, segment.location + offset, content)
    }

    /// Empties spans of segment `id`.
    ///
    /// # Errors
    /// When there is no such segment or it is shorter (`InvalidInput`), or CRIU is gone.
    pub fn empty_segment(&self, id: u64, spans: &[Span]) -> io::Result<()> {
        let index = self.segments.iter().position(|segment| segment.spec.id == id);
        let index = index.ok_or(io::ErrorKind::InvalidInput)?;
        let size = self.segments[index].spec.size;
        if spans.iter().any(|span| span.start >= span.end || span.end > size) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let file = segments::open(&self.table, self.process()?, index as u64)?;
        spans.iter().try_for_each(|span| segments::empty(&file, *span))
    }

    /// Gives up segments: CRIU restores what has such an `id` from the images, and their memory is free again.
    ///
    /// # Errors
    /// When there is no such segment (`InvalidInput`), or CRIU is gone.
    pub fn drop_segment(&mut self, id: u64) -> Result<(), ViewError> {
        let failed = |source| ViewError::Prepare { what: "give up shared memory", source };
        let index = self.segments.iter().position(|segment| segment.spec.id == id);
        let index = index.ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
        let process = self.process().map_err(failed)?;
        let file = segments::open(&self.table, process, index as u64).map_err(failed)?;
        segments::empty(&file, Span { start: 0, end: self.segments[index].spec.size }).map_err(failed)?;
        // Its entry stays, for others are counted behind it.
        self.table.set(SEGMENTS, index as u64, segment::ID, segments::DROPPED)?;
        self.segments[index].spec.id = segments::DROPPED;
        Ok(())
    }

    fn process(&self) -> io::Result<Pid> {
        self.process.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Where so many bytes from an address of a process on lie: in one area or in several that adjoin.
    fn locate(&self, process: i32, address: u64, length: usize) -> io::Result<Vec<(u64, Range<usize>)>> {
        let mut parts = Vec::new();
        let mut done = 0;
        while done < length {
            let start = address.checked_add(done as u64).filter(|start| *start < u64::MAX);
            let start = start.ok_or(io::ErrorKind::InvalidInput)?;
            let area = areas::find(&self.areas, process, Span { start, end: start + 1 });
            let area = area.ok_or(io::ErrorKind::InvalidInput)?;
            let there = usize::try_from(area.spec.end - start).unwrap_or(usize::MAX);
            let end = length.min(done.saturating_add(there));
            parts.push((area.location + (start - area.spec.start), done..end));
            done = end;
        }
        Ok(parts)
    }

    /// Empties spans of a process, each within an area.
    ///
    /// # Errors
    /// When no area holds one of them, or CRIU is gone.
    pub fn discard(&mut self, process: i32, spans: &[Span]) -> Result<(), ViewError> {
        spans.iter().try_for_each(|span| in_area(&self.areas, process, *span))?;
        for part in spans.chunks(usize::try_from(RANGES.entries).unwrap_or(1)) {
            let words: Vec<u64> =
                part.iter().flat_map(|span| [process_word(process), span.start, span.end]).collect();
            self.table.write(RANGES, "spans", 0, &words)?;
            self.command("empty memory", [command::DISCARD, part.len() as u64, 0, 0])?;
        }
        Ok(())
    }

    /// Makes huge pages of spans of processes before they are filled: only of whole blocks of 2 MiB, of those spans that lie in
    /// one area, and as far as there are any to be had. Others may write there meanwhile. At most as many spans as a command
    /// takes.
    ///
    /// # Errors
    /// When CRIU is gone.
    pub fn make_huge(&self, spans: &[(i32, Span)]) -> Result<(), ViewError> {
        let of_one_area = |(process, span): &&(i32, Span)| in_area(&self.areas, *process, *span).is_ok();
        let spans: Vec<_> = spans.iter().filter(of_one_area).collect();
        let words: Vec<u64> =
            spans.iter().flat_map(|(process, span)| [process_word(*process), span.start, span.end]).collect();
        let _one_at_a_time = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        self.table.write(RANGES, "spans", 0, &words)?;
        self.commands.ask("make huge pages", [command::MAKE_HUGE, spans.len() as u64, 0, 0]).map(drop)
    }

    /// Makes huge pages where 2 MiB are filled without a hole, as far as there are any to be had and `limit` allows: with
    /// them, forks and moves of CRIU take less time. Whether all was looked at.
    ///
    /// # Errors
    /// When CRIU is gone.
    pub fn collapse(&mut self, limit: Duration) -> Result<bool, ViewError> {
        let end = Instant::now() + limit;
        let (mut index, mut offset) = (0, 0);
        while index != u64::MAX {
            if Instant::now() > end {
                return Ok(false);
            }
            let answer = self.command("make huge pages", [command::COLLAPSE, index, offset, 0])?;
            [index, offset] = [answer[1], answer[2]];
        }
        Ok(true)
    }

    /// Says where CRIU's own place for a process's mappings shall lie, modulo 2 MiB
    /// ([`images::place_remainder`](super::images::place_remainder)), so that huge pages survive being moved through it.
    ///
    /// # Errors
    /// When there are too many processes.
    pub fn align(&mut self, remainders: &[(i32, u64)]) -> Result<(), ViewError> {
        let mut sorted = remainders.to_vec();
        sorted.sort_unstable();
        let huge = fastmig_criu_view_layout::HUGE;
        let words: Vec<u64> = sorted
            .iter()
            .flat_map(|(process, remainder)| [process_word(*process), (remainder % huge) & !0xfff])
            .collect();
        self.table.write(REMAINDERS, "processes", 0, &words)
    }

    /// Says who is whose parent (process, parent), so that no process inherits, with its page tables, what its branch of the
    /// tree does not need.
    ///
    /// # Errors
    /// When there are too many processes.
    pub fn relate(&mut self, family: &[(i32, i32)]) -> Result<(), ViewError> {
        let mut sorted = family.to_vec();
        sorted.sort_unstable();
        let words: Vec<u64> = sorted
            .iter()
            .flat_map(|(process, parent)| [process_word(*process), process_word(*parent)])
            .collect();
        self.table.write(FAMILY, "processes", 0, &words)
    }

    /// Says which mappings of the restored processes get which content: all of them, right before the request. In the
    /// images these must be keyed ([`images::key_mappings`](super::images::key_mappings)).
    ///
    /// # Errors
    /// When mappings overlap, are too many, or need memory that no area holds.
    pub fn arrange(&mut self, mappings: &[Placed]) -> Result<(), ViewError> {
        let (words, spans) = areas::mapping_words(mappings, &self.areas)?;
        debug_assert_eq!(SPANS.words, SPAN_WORDS);
        self.table.write(SPANS, "spans", 0, &spans)?;
        self.table.write(MAPPINGS, "mappings", 0, &words)?;
        self.placed = mappings.len() as u64;
        Ok(())
    }

    /// Whether CRIU has taken all memory that was arranged for it. To be asked when everything is restored, and before
    /// anything of it runs.
    ///
    /// # Errors
    /// Names the first mapping or segment that it has not taken exactly once.
    pub fn taken(&self) -> Result<(), ViewError> {
        let words = self.table.read(MAPPINGS, self.placed)?;
        let look = |entry: &[u64]| {
            let pid = i32::try_from(field(entry, mapping::PROCESS)).unwrap_or(0);
            let (start, end) = (field(entry, mapping::START), field(entry, mapping::END));
            (HiddenMapping { pid, start, end }, field(entry, mapping::TAKEN))
        };
        let looks = entries(&words, mapping::WORDS).map(look);
        let amiss: Vec<_> = looks.filter(|(_, times)| *times != 1).collect();
        if let Some((HiddenMapping { pid: process, start, end }, times)) = amiss.first().copied() {
            let placed = usize::try_from(self.placed).unwrap_or(usize::MAX);
            let all = only_some(amiss.iter().map(|(mapping, _)| *mapping).collect(), placed);
            return Err(ViewError::NotTaken { process, start, end, times, all });
        }
        let words = self.table.read(SEGMENTS, self.segments.len() as u64)?;
        for entry in entries(&words, segment::WORDS) {
            let times = field(entry, segment::TAKEN);
            if times != 1 && field(entry, segment::ID) != segments::DROPPED {
                return Err(ViewError::SegmentNotTaken { id: field(entry, segment::ID), times });
            }
        }
        Ok(())
    }

    fn command(
        &mut self,
        what: &'static str,
        words: [u64; command::WORDS],
    ) -> Result<[u64; command::WORDS], ViewError> {
        let (answer, process) = self.commands.ask(what, words)?;
        self.process = Some(process);
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> RestoreView {
        let limits = Limits { bytes: 1 << 20, command: Duration::from_millis(50) };
        RestoreView::new(limits).unwrap()
    }

    /// One page of process 1, which lies in `memory` of this process.
    fn area(start: u64, no_huge: bool, memory: &[u8]) -> Area {
        let spec = AreaSpec { process: 1, start, end: start + 0x1000, no_reserve: false, no_huge };
        Area { spec, location: memory.as_ptr() as u64 }
    }

    #[test]
    fn a_criu_that_says_nothing_runs_out_of_time() {
        let mut view = view();
        let error = view.lay_out(&[]).unwrap_err();
        assert!(matches!(error, ViewError::TimedOut { .. }), "{error}");
    }

    #[test]
    fn a_criu_that_is_gone_is_noticed() {
        let mut view = view();
        drop(view.descriptors().unwrap());
        let error = view.lay_out(&[]).unwrap_err();
        assert!(matches!(error, ViewError::Gone { .. }), "{error}");
        assert!(view.descriptors().is_err());
    }

    #[test]
    fn nothing_is_written_outside_areas() {
        let mut view = view();
        view.process = Some(nix::unistd::getpid());
        let memory = vec![0_u8; 0x1000];
        view.areas = vec![area(0x1000, false, &memory)];
        view.write(1, 0x1ff0, b"here").unwrap();
        let mut found = [0; 4];
        view.read(1, 0x1ff0, &mut found).unwrap();
        assert_eq!((&found, &memory[0xff0..0xff4]), (b"here", &b"here"[..]));
        for (process, address) in [(1, 0xfff), (1, 0x1ffd), (2, 0x1000), (1, u64::MAX - 1)] {
            assert!(view.write(process, address, b"here").is_err(), "{process} {address:#x}");
        }
    }

    #[test]
    fn what_lies_in_adjoining_areas_is_written_to_each() {
        let mut view = view();
        view.process = Some(nix::unistd::getpid());
        let memory = [vec![0_u8; 0x1000], vec![0_u8; 0x1000]];
        view.areas = vec![area(0x1000, false, &memory[0]), area(0x2000, true, &memory[1])];
        view.write(1, 0x1ffe, b"both").unwrap();
        let mut found = [0; 4];
        view.read(1, 0x1ffe, &mut found).unwrap();
        assert_eq!((&found, &memory[0][0xffe..], &memory[1][..2]), (b"both", &b"bo"[..], &b"th"[..]));
        assert!(view.write(1, 0x2ffe, b"both").is_err(), "nothing adjoins");
    }
}
