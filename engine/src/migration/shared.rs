//! Shared memory in rounds. In a plan it takes the place of a process with a number below zero, and offsets that of addresses.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use fastmig_criu::view::{HiddenFile, RestoreView, SegmentSpec, Span, ViewError};
use fastmig_memory::{SharedPages, SharedReader, SharedRound};

use super::plan::{is_holder, Pages, Plan, Run, SharedArea};

/// What the shared memory with this number is counted as.
fn holder(number: u32) -> i32 {
    -1 - i32::try_from(number).unwrap_or(i32::MAX - 1)
}

/// What the destination is told of what there is.
pub(super) fn areas(round: &SharedRound) -> Vec<SharedArea> {
    let area = |area: &fastmig_memory::SharedArea| SharedArea {
        holder: holder(area.number),
        // CRIU names its images by inodes.
        id: area.inode,
        size: area.size,
        name: area.name.clone(),
    };
    round.areas.iter().map(area).collect()
}

pub(super) fn pages(pages: &[SharedPages]) -> impl Iterator<Item = Pages> + '_ {
    pages
        .iter()
        .map(|pages| Pages::new(holder(pages.number), pages.spans.iter().map(|span| span.start..span.end)))
}

/// What CRIU shall not see.
pub(super) fn hidden(round: &SharedRound) -> Vec<HiddenFile> {
    round.areas.iter().map(|area| HiddenFile { device: area.device, inode: area.inode }).collect()
}

/// Bytes of all.
pub(super) fn size(round: &SharedRound) -> u64 {
    round.areas.iter().map(|area| area.size).sum()
}

/// The content of a round's shared memory, at the source.
#[derive(Debug, Default)]
pub(super) struct Readers(BTreeMap<i32, Arc<SharedReader>>);

impl Readers {
    pub(super) fn of(round: SharedRound) -> Self {
        Self(round.readers.into_iter().map(|(number, reader)| (holder(number), reader)).collect())
    }

    pub(super) fn read(&self, run: &Run, into: &mut [u8]) -> io::Result<()> {
        let reader = self.0.get(&run.process).ok_or(io::ErrorKind::InvalidInput)?;
        reader.read(run.address, into)
    }
}

/// The shared memory that waits at the destination.
#[derive(Debug, Clone, Default)]
pub(super) struct Segments(Vec<SharedArea>);

impl Segments {
    /// Makes what is new in a plan, gives up what is not in it any more, and empties what is forgotten.
    pub(super) fn follow(&mut self, view: &mut RestoreView, plan: &Plan) -> Result<(), ViewError> {
        let mut gone = self.0.iter().filter(|area| !plan.shared.contains(area));
        gone.try_for_each(|area| view.drop_segment(area.id))?;
        let new = plan.shared.iter().filter(|area| !self.0.contains(area)).map(spec);
        let new: Vec<SegmentSpec> = new.collect();
        if !new.is_empty() {
            view.make_segments(&new)?;
        }
        self.0.clone_from(&plan.shared);
        let mut forgotten = plan.forgotten.iter().filter(|pages| is_holder(pages.process));
        forgotten.try_for_each(|pages| self.empty(view, pages))
    }

    /// What is forgotten of what is given up is so already.
    fn empty(&self, view: &RestoreView, pages: &Pages) -> Result<(), ViewError> {
        let Some(id) = self.id(pages.process) else { return Ok(()) };
        let spans: Vec<Span> = pages.spans().map(|span| Span { start: span.start, end: span.end }).collect();
        let failed = |source| ViewError::Prepare { what: "empty shared memory", source };
        view.empty_segment(id, &spans).map_err(failed)
    }

    /// Puts content where it belongs.
    pub(super) fn write(&self, view: &RestoreView, run: &Run, content: &[u8]) -> io::Result<()> {
        let id = self.id(run.process).ok_or(io::ErrorKind::InvalidInput)?;
        view.write_segment(id, run.address, content)
    }

    fn id(&self, holder: i32) -> Option<u64> {
        self.0.iter().find(|area| area.holder == holder).map(|area| area.id)
    }
}

fn spec(area: &SharedArea) -> SegmentSpec {
    SegmentSpec { id: area.id, size: area.size, name: area.name.clone() }
}
