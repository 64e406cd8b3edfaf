//! A tree of processes, tracked over rounds.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::huge::Split;
use crate::process::{Frozen, Survey, Tracked};
use crate::spans::Spans;
use crate::{parallel, sharing};
use crate::{Content, Error, Last, Mapping, Method, Pages, Process, Round, Span};

/// Keeps track of what was sent of a tree of processes, and of what it has written since.
///
/// Dropped, it leaves the processes as they were, but for huge pages; see [`Tracker::end`].
#[derive(Debug)]
pub struct Tracker {
    method: Method,
    /// By their inner pids.
    processes: BTreeMap<i32, Tracked>,
    /// What was split of those that are not tracked any more.
    split: Vec<Split>,
    with_stacks: bool,
    /// Never listed.
    left: Vec<(i32, Span)>,
}

impl Tracker {
    /// Tracks nothing yet.
    #[must_use]
    pub fn new(method: Method) -> Self {
        Self { method, processes: BTreeMap::new(), split: Vec::new(), with_stacks: false, left: Vec::new() }
    }

    /// Lists also mappings that hold a thread's stack pointer, which are otherwise left to CRIU: of a program in Go that is
    /// its heap. Never the main thread's stack, which grows.
    #[must_use]
    pub fn with_stacks(self) -> Self {
        Self { with_stacks: true, ..self }
    }

    /// Lists no mapping of a process that has anything in common with one of these spans.
    #[must_use]
    pub fn leaving_out(self, left: Vec<(i32, Span)>) -> Self {
        Self { left, ..self }
    }

    /// Looks at the running processes, the whole tree as it is now: what is to be read and sent.
    ///
    /// Not while they are frozen: each that is new is stopped to begin tracking it, which then fails, and waits for 130 ms.
    /// A process that cannot be tracked costs nothing but that it is left to CRIU.
    ///
    /// # Errors
    /// When something of our own fails, such as a fork. What the receiver has is void then, and tracking begins anew.
    pub fn round(&mut self, processes: &[Process]) -> Result<Round, Error> {
        let result = self.try_round(processes);
        if result.is_err() {
            // Of some, what was written is told no more, and yet nobody has sent it.
            let tracked = std::mem::take(&mut self.processes);
            self.split.extend(tracked.into_values().filter_map(Tracked::end));
        }
        result
    }

    fn try_round(&mut self, processes: &[Process]) -> Result<Round, Error> {
        let begun = Instant::now();
        let mut round = Round::default();
        self.drop_others(processes, &mut round);
        let order = parents_first(processes);
        let mut surveys = BTreeMap::new();
        for process in &order {
            match self.survey(*process, &mut round) {
                Ok(survey) => {
                    surveys.insert(process.id, survey);
                }
                Err(e @ Error::Io { .. }) => return Err(e),
                Err(e) => {
                    tracing::debug!(process = process.id, error = %e, "a process is not tracked");
                    round.cost.untracked += 1;
                    self.forget(process.id, &mut round);
                }
            }
        }
        for process in &order {
            let Some(survey) = surveys.remove(&process.id) else { continue };
            let parent = process.parent.and_then(|id| surveys.get(&id));
            let shared = self.settle(process.id, &survey, parent, &mut round);
            if let Some(parent) = process.parent {
                push(&mut round.common, parent, shared);
            }
            // A parent comes before its children, which compare themselves with it.
            surveys.insert(process.id, survey);
        }
        round.areas.extend(surveys.into_values().flat_map(|survey| survey.areas));
        keep_sent(&mut round);
        round.cost.scan = begun.elapsed();
        Ok(round)
    }

    /// Stops tracking those that are not among `processes`, are others by now, or run another program.
    fn drop_others(&mut self, processes: &[Process], round: &mut Round) {
        let hosts: BTreeMap<i32, i32> = processes.iter().map(|process| (process.id, process.host)).collect();
        let stays = |id: &i32, tracked: &Tracked| hosts.get(id).is_some_and(|host| tracked.is_of(*host));
        let gone: Vec<i32> =
            self.processes.iter().filter(|(id, tracked)| !stays(id, tracked)).map(|(id, _)| *id).collect();
        for id in gone {
            self.forget(id, round);
        }
    }

    fn forget(&mut self, id: i32, round: &mut Round) {
        if let Some(tracked) = self.processes.remove(&id) {
            push(&mut round.forgotten, id, tracked.sent.clone());
            self.split.extend(tracked.end());
        }
    }

    fn survey(&mut self, process: Process, round: &mut Round) -> Result<Survey, Error> {
        if !self.processes.contains_key(&process.id) {
            let (tracked, stop) = Tracked::begin(self.method, process.host)?;
            round.cost.injected += 1;
            round.cost.stop = round.cost.stop.max(stop);
            self.processes.insert(process.id, tracked);
        }
        let tracked = self.processes.get_mut(&process.id).ok_or_else(|| {
            Error::process("find what is known", process.host)(std::io::ErrorKind::NotFound)
        })?;
        let left = self.left.iter().filter(|(id, _)| *id == process.id).map(|(_, span)| *span);
        let survey = tracked.survey(process.id, &left.collect::<Vec<_>>())?;
        round.cost.stop = round.cost.stop.max(survey.stop);
        Ok(survey)
    }

    /// What it has in common with its parent.
    fn settle(&mut self, id: i32, survey: &Survey, parent: Option<&Survey>, round: &mut Round) -> Spans {
        let Some(tracked) = self.processes.get_mut(&id) else { return Spans::default() };
        tracked.pairs.clear();
        let mut shared = Spans::default();
        for (span, look) in &survey.mappings {
            let Some(parent) = parent.filter(|parent| parent.is_pair(survey, *span)) else { continue };
            if tracked.whole.covers(*span) {
                continue;
            }
            let populated = look.now.clean.union(&look.now.written);
            let Ok(common) = sharing::shared(&parent.scanner, &survey.scanner, &populated) else { continue };
            if (populated.length() - common.length()) * 2 > populated.length() {
                tracked.whole = tracked.whole.union(&Spans::one(*span));
                continue;
            }
            tracked.pairs.push(*span);
            shared = shared.union(&common);
        }
        let (send, forgotten) = tracked.settle(survey, &shared);
        push(&mut round.pages, id, send);
        push(&mut round.forgotten, id, forgotten);
        shared
    }

    /// Looks at the same processes, which the caller has frozen: what is still to be read and sent, and what the receiver has
    /// then.
    ///
    /// Should they be thawed instead, rounds may go on.
    ///
    /// # Errors
    /// [`Error::NotFrozen`] when a thread runs.
    pub fn last(&mut self, processes: &[Process]) -> Result<Last, Error> {
        let begun = Instant::now();
        let mut last = Last::default();
        let order = parents_first(processes);
        let mut looks: BTreeMap<i32, Frozen> = BTreeMap::new();
        let looked = parallel::map_few(&order, |process| {
            let tracked = self.processes.get(&process.id).filter(|tracked| tracked.is_of(process.host));
            tracked.map(|tracked| tracked.look_frozen(self.with_stacks))
        });
        for (process, look) in order.iter().zip(looked) {
            match look {
                None => last.cost.untracked += 1,
                Some(Ok(frozen)) => drop(looks.insert(process.id, frozen)),
                Some(Err(e @ Error::NotFrozen { .. })) => return Err(e),
                Some(Err(e)) => {
                    tracing::warn!(process = process.id, error = %e, "the memory of a process is left to CRIU");
                    last.cost.untracked += 1;
                }
            }
        }
        for process in &order {
            self.conclude(*process, &mut looks, &mut last);
        }
        last.cost.scan = begun.elapsed();
        Ok(last)
    }

    /// Decides on the mappings of one process; its parent's have been decided on.
    fn conclude(&mut self, process: Process, looks: &mut BTreeMap<i32, Frozen>, last: &mut Last) {
        let Some(mut frozen) = looks.remove(&process.id) else { return };
        let Some(tracked) = self.processes.get_mut(&process.id) else { return };
        let parent = process.parent.and_then(|id| looks.get(&id));
        let (mut listed, mut own, mut written) = (Vec::new(), Vec::new(), Vec::new());
        let mappings = std::mem::take(&mut frozen.mappings);
        for (span, now) in mappings {
            let populated = now.clean.union(&now.written);
            let (shared, content) = if tracked.pairs.contains(&span) {
                // Without the parent's, what was not sent would have to be: CRIU does that as well.
                match parent.and_then(|parent| inherit(parent, &frozen, span, &populated)) {
                    Some(inherited) => inherited,
                    None => continue,
                }
            } else {
                (Spans::default(), Content::Own)
            };
            listed.push(span);
            own.extend(populated.without(&shared).iter());
            written.extend(now.written.iter());
            last.mappings.push(Mapping { process: process.id, start: span.start, end: span.end, content });
            frozen.mappings.push((span, now));
        }
        let [listed, own, written] = [listed, own, written].map(Spans::from_unsorted);
        let (send, discard) = tracked.settle_frozen(&listed, &own, &written);
        push(&mut last.pages, process.id, send);
        push(&mut last.discard, process.id, discard);
        last.smaps.push((process.id, tracked.smaps.clone()));
        looks.insert(process.id, frozen);
    }

    /// Sees what is written to shared memory by this mapping of a tracked process, from here on. Whether it does.
    pub(crate) fn watch_shared(&mut self, id: i32, host: i32, span: Span) -> bool {
        let tracked = self.processes.get_mut(&id).filter(|tracked| tracked.is_of(host));
        tracked.is_some_and(|tracked| tracked.watch_shared(span).unwrap_or(false))
    }

    /// What was written since by it; nothing where nobody knows.
    pub(crate) fn shared_written(&self, id: i32, host: i32, span: Span) -> Option<Spans> {
        self.processes.get(&id).filter(|tracked| tracked.is_of(host))?.shared_written(span)
    }

    /// Ends the tracking. When the processes go on where they are (`aborted`), the huge pages that tracking has split are joined
    /// again: some 130 ms per GiB, while they run.
    pub fn end(self, aborted: bool) {
        let mut split = self.split;
        split.extend(self.processes.into_values().filter_map(Tracked::end));
        if aborted {
            split.iter().for_each(Split::join);
        }
    }
}

impl Survey {
    /// Whether the child has a mapping in common with us, as far as CRIU can tell when it restores.
    fn is_pair(&self, child: &Survey, span: Span) -> bool {
        self.program.is_some()
            && self.program == child.program
            && self.mappings.iter().any(|(own, _)| *own == span)
    }
}

/// What a mapping shares with that of the parent, and how it differs; nothing where the parent's is not sent by us.
fn inherit(parent: &Frozen, child: &Frozen, span: Span, populated: &Spans) -> Option<(Spans, Content)> {
    let (_, of_parent) = parent.mappings.iter().find(|(own, _)| *own == span)?;
    if parent.program.is_none() || parent.program != child.program {
        return None;
    }
    let common = sharing::shared(&parent.scanner, &child.scanner, populated).ok()?;
    let own = populated.without(&common).into_vec();
    let absent = of_parent.clean.union(&of_parent.written).without(populated).into_vec();
    Some((common, Content::Inherited { own, absent }))
}

fn push(list: &mut Vec<Pages>, process: i32, spans: Spans) {
    if !spans.is_empty() {
        list.push(Pages { process, spans: spans.into_vec() });
    }
}

/// What was forgotten with a process, and is sent of the one that has taken its place, is not to be forgotten.
fn keep_sent(round: &mut Round) {
    for gone in &mut round.forgotten {
        let sent = round.pages.iter().filter(|pages| pages.process == gone.process);
        let sent = Spans::from_unsorted(sent.flat_map(|pages| pages.spans.clone()).collect());
        let spans = Spans::from_unsorted(std::mem::take(&mut gone.spans));
        gone.spans = spans.without(&sent).into_vec();
    }
    round.forgotten.retain(|gone| !gone.spans.is_empty());
}

/// Each after its parent.
fn parents_first(processes: &[Process]) -> Vec<Process> {
    let parents: BTreeMap<i32, Option<i32>> = processes.iter().map(|p| (p.id, p.parent)).collect();
    let depth = |process: &Process| {
        let up = |id: &i32| parents.get(id).copied().flatten();
        std::iter::successors(process.parent, up).take(processes.len()).count()
    };
    let mut order = processes.to_vec();
    order.sort_by_cached_key(depth);
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_come_first_and_a_circle_ends() {
        let process = |id, parent| Process { host: id, id, parent };
        let all = [process(3, Some(2)), process(2, Some(1)), process(1, None), process(4, Some(1))];
        let order: Vec<i32> = parents_first(&all).iter().map(|p| p.id).collect();
        assert_eq!(order, [1, 2, 4, 3]);
        assert_eq!(parents_first(&[process(1, Some(2)), process(2, Some(1))]).len(), 2);
    }
}
