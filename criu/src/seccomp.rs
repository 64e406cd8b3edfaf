//! Seccomp filters: those that a process runs under, and those that images would give to what is restored.
//!
//! Clients of different versions have different default filters, and an image could bring any. So whatever it brings, the
//! container's own are added ([`with_own`]): of all filters of a thread the strictest answer counts, in whatever order.
//!
//! The kernel shows filters to whoever traces a process alone, and restored ones are traced by CRIU until they run. So what
//! their images say is looked at ([`require`]): the bytes that CRIU was given, by the rules by which it reads them.

use std::collections::BTreeSet;
use std::io;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{waitpid, WaitPidFlag, WaitStatus};
use nix::unistd::Pid;

use crate::message::{fields, messages, number_of, put_bytes, put_number, Content, Field, HEADER};
use crate::sys;

/// The image that has the filters of all threads.
const FILTERS: &str = "seccomp.img";

/// `SECCOMP_MODE_FILTER`
const MODE_FILTER: u64 = 2;
/// `SECCOMP_FILTER_FLAG_TSYNC`: how CRIU gives a filter to all threads of a process at once, and nothing of the filter's own.
const TOGETHER: u64 = 1;

/// A container has one filter or two; the kernel's own limit is on their length.
const MOST: usize = 128;
/// A process stops within microseconds, unless it is deep in the kernel.
const STOPS_WITHIN: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_micros(50);

/// The largest number of a field. CRIU's parser drops the bits above.
const LARGEST_FIELD: u64 = (1 << 29) - 1;

// Fields of CRIU's images.
const ENTRY_FILTERS: u64 = 1;
const PROGRAM: u64 = 1;
const NEXT: u64 = 2;
const FLAGS: u64 = 3;
const TASK: u64 = 3;
const THREAD: u64 = 5;
const THREAD_MODE: u64 = 11;
const THREAD_FILTER: u64 = 12;
/// Where CRIU kept them before 2.0 or so; it would still believe them.
const TASK_OLD: [u64; 2] = [11, 12];

/// One filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// Its instructions, as the kernel has them.
    pub program: Vec<u8>,
    /// `SECCOMP_FILTER_FLAG_LOG`, or nothing.
    pub flags: u64,
}

/// The filters of process `pid`, the oldest first. It is stopped for some 50 microseconds.
///
/// # Errors
/// When it cannot be traced, is gone, or does not stop.
pub fn filters_of(pid: i32) -> io::Result<Vec<Filter>> {
    let pid = Pid::from_raw(pid);
    ptrace::seize(pid, ptrace::Options::empty())?;
    let stopped = ptrace::interrupt(pid).map_err(io::Error::from).and_then(|()| stop(pid));
    let (signal, found) = match stopped {
        Ok(signal) => (signal, read_all(pid)),
        Err(e) => (None, Err(e)),
    };
    // What has not stopped is let go when this thread ends.
    ptrace::detach(pid, signal).or_else(|e| if found.is_err() { Ok(()) } else { Err(e) })?;
    found
}

/// Waits for it. A signal that came first is to be handed on.
fn stop(pid: Pid) -> io::Result<Option<Signal>> {
    let begun = Instant::now();
    loop {
        match waitpid(pid, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Stopped(_, signal)) => return Ok(Some(signal)),
            Ok(WaitStatus::PtraceEvent(..)) => return Ok(None),
            Ok(WaitStatus::StillAlive) | Err(Errno::EINTR) => {}
            Ok(_) => return Err(io::ErrorKind::NotFound.into()),
            Err(e) => return Err(e.into()),
        }
        if begun.elapsed() > STOPS_WITHIN {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "it does not stop"));
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

fn read_all(pid: Pid) -> io::Result<Vec<Filter>> {
    let mut found = Vec::new();
    while let Some(program) = sys::seccomp_filter(pid.as_raw(), found.len())? {
        let flags = sys::seccomp_flags(pid.as_raw(), found.len())?;
        found.push(Filter { program, flags });
        if found.len() > MOST {
            return Err(io::Error::other("it has too many seccomp filters"));
        }
    }
    Ok(found)
}

/// Whether an image has a word in which filter a thread gets.
#[must_use]
pub fn decides(image: &str) -> bool {
    image == FILTERS || (image.starts_with("core-") && image.ends_with(".img"))
}

/// What is wrong with images, by the one that is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// It is damaged, or says what no CRIU writes.
    #[error("{0} says of seccomp filters what cannot be")]
    Damaged(String),
    /// A thread would run without one of the container's filters.
    #[error("{0} would leave out a seccomp filter of the container's")]
    Without(String),
}

/// Looks at all of `images`, by name and content, that [`decides`] names: each thread that has filters has those of `own`, and
/// what else it has can only forbid more.
///
/// # Errors
/// When one does not.
pub fn require(own: &[Filter], images: &[(String, Vec<u8>)]) -> Result<(), Wrong> {
    let lists = images.iter().filter(|(name, _)| name == FILTERS);
    let lists: Vec<Vec<Listed<'_>>> = lists
        .map(|(name, image)| listed(image).ok_or_else(|| Wrong::Damaged(name.clone())))
        .collect::<Result<_, _>>()?;
    for (name, image) in images.iter().filter(|(name, _)| name != FILTERS) {
        let entries = entries(image).ok_or_else(|| Wrong::Damaged(name.clone()))?;
        // Of several lists nobody says which one CRIU has taken.
        let fits = |entry: usize| !lists.is_empty() && lists.iter().all(|list| has_all(own, list, entry));
        if !entries.into_iter().all(fits) {
            return Err(Wrong::Without(name.clone()));
        }
    }
    Ok(())
}

/// Whether an image has the list of filters, which [`with_own`] is for.
#[must_use]
pub fn is_list(image: &str) -> bool {
    image == FILTERS
}

/// The list of filters `image`, with those of `own` before each chain that has not got them; nothing when it is damaged.
#[must_use]
pub fn with_own(own: &[Filter], image: &[u8]) -> Option<Vec<u8>> {
    let list = listed(image)?;
    let followers: BTreeSet<usize> = list.iter().filter_map(|filter| filter.next).collect();
    let lacks = |place: &usize| !followers.contains(place) && !has_all(own, &list, *place);
    let lacking: Vec<usize> = (0..list.len()).filter(lacks).collect();
    let Some((first, others)) = own.split_first().filter(|_| !lacking.is_empty()) else {
        return Some(image.to_vec());
    };
    let mut entries: Vec<Vec<u8>> = list.iter().map(|f| entry(f.program, f.all_flags, f.next)).collect();
    for place in lacking {
        // Threads name this place: their chain begins there, and what was there comes last of ours.
        let together = list[place].all_flags & TOGETHER;
        let next = Some(entries.len());
        let old = std::mem::replace(&mut entries[place], entry(&first.program, first.flags | together, next));
        for filter in others {
            let next = Some(entries.len() + 1);
            entries.push(entry(&filter.program, filter.flags | together, next));
        }
        entries.push(old);
    }
    let mut message = Vec::new();
    entries.iter().for_each(|entry| put_bytes(&mut message, ENTRY_FILTERS, entry));
    let length = u32::try_from(message.len()).ok()?.to_le_bytes();
    Some([image.get(..HEADER)?, &length, &message].concat())
}

fn entry(program: &[u8], flags: u64, next: Option<usize>) -> Vec<u8> {
    let mut entry = Vec::with_capacity(program.len() + 24);
    put_bytes(&mut entry, PROGRAM, program);
    let next = next.map(|next| (NEXT, next as u64));
    for (field, value) in next.into_iter().chain([(FLAGS, flags)]) {
        put_number(&mut entry, field << 3);
        put_number(&mut entry, value);
    }
    entry
}

/// A filter of the list, and the place of the one that is added after it.
struct Listed<'a> {
    program: &'a [u8],
    /// Those of its own.
    flags: u64,
    all_flags: u64,
    next: Option<usize>,
}

fn listed(image: &[u8]) -> Option<Vec<Listed<'_>>> {
    let messages = messages(image)?;
    let message = match messages[..] {
        [] => return Some(Vec::new()),
        [message] => message,
        // CRIU would read the first alone.
        _ => return None,
    };
    let mut found = Vec::new();
    for entry in all_bytes(message, &known(message)?, ENTRY_FILTERS) {
        let fields = known(entry)?;
        let all_flags = short(number_of(&fields, FLAGS).unwrap_or_default());
        found.push(Listed {
            program: all_bytes(entry, &fields, PROGRAM).pop()?,
            flags: all_flags & !TOGETHER,
            all_flags,
            next: number_of(&fields, NEXT).map(short).and_then(|next| usize::try_from(next).ok()),
        });
    }
    Some(found)
}

/// Where the filters of the threads in an image begin.
fn entries(image: &[u8]) -> Option<Vec<usize>> {
    let mut found = Vec::new();
    for message in messages(image)? {
        let parts = known(message)?;
        // Parts of one field are one, as if they followed each other.
        let task = all_bytes(message, &parts, TASK).concat();
        if known(&task)?.iter().any(|field| TASK_OLD.contains(&field.number)) {
            return None;
        }
        let thread = all_bytes(message, &parts, THREAD).concat();
        let thread = known(&thread)?;
        if number_of(&thread, THREAD_MODE).map(short) == Some(MODE_FILTER) {
            found.push(usize::try_from(short(number_of(&thread, THREAD_FILTER).unwrap_or_default())).ok()?);
        }
    }
    Some(found)
}

/// The oldest comes first, and each names the one that follows. A chain that leads nowhere or in a circle has none.
fn has_all(own: &[Filter], list: &[Listed<'_>], entry: usize) -> bool {
    let mut chain = Vec::new();
    let mut at = Some(entry);
    while let Some(place) = at {
        let Some(found) = list.get(place).filter(|_| chain.len() < list.len()) else { return false };
        chain.push(found);
        at = found.next;
    }
    let has = |own: &Filter| chain.iter().any(|f| f.program == own.program && f.flags == own.flags);
    own.iter().all(has)
}

/// The fields of a message that CRIU would read as we do.
fn known(message: &[u8]) -> Option<Vec<Field>> {
    fields(message).filter(|fields| fields.iter().all(|field| field.number <= LARGEST_FIELD))
}

fn all_bytes<'a>(message: &'a [u8], fields: &[Field], number: u64) -> Vec<&'a [u8]> {
    let mine = fields.iter().filter(|field| field.number == number);
    mine.filter_map(|field| match &field.content {
        Content::Bytes(range) => message.get(range.clone()),
        Content::Number(_) => None,
    })
    .collect()
}

/// Of a number that has 32 bits CRIU drops those above.
fn short(number: u64) -> u64 {
    number & 0xffff_ffff
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    fn filter(program: &[u8]) -> Filter {
        Filter { program: program.into(), flags: 0 }
    }

    fn put_field(message: &mut Vec<u8>, field: u64, value: u64) {
        put_number(message, field << 3);
        put_number(message, value);
    }

    fn image(message: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 8];
        image.extend(u32::try_from(message.len()).unwrap().to_le_bytes());
        image.extend(message);
        image
    }

    /// Programs, flags, and who comes after.
    fn list(filters: &[(&[u8], u64, Option<u64>)]) -> (String, Vec<u8>) {
        let mut message = Vec::new();
        for (program, flags, next) in filters {
            let mut entry = Vec::new();
            put_bytes(&mut entry, PROGRAM, program);
            next.iter().for_each(|next| put_field(&mut entry, NEXT, *next));
            put_field(&mut entry, FLAGS, *flags);
            put_bytes(&mut message, ENTRY_FILTERS, &entry);
        }
        (FILTERS.into(), image(&message))
    }

    fn core(mode: u64, entry: u64) -> (String, Vec<u8>) {
        let mut thread = Vec::new();
        put_field(&mut thread, THREAD_MODE, mode);
        put_field(&mut thread, THREAD_FILTER, entry);
        let mut message = Vec::new();
        put_bytes(&mut message, THREAD, &thread);
        ("core-1001.img".into(), image(&message))
    }

    const STRICT: &[u8] = &[1; 16];
    const WEAK: &[u8] = &[2; 8];

    #[test]
    fn the_same_filter_fits_and_more_may_be_with_it() {
        let own = [filter(STRICT)];
        let alone = list(&[(STRICT, TOGETHER, None)]);
        assert_eq!(require(&own, &[alone.clone(), core(2, 0)]), Ok(()));
        // As CRIU writes them: the newest first, each named by the one before it in time.
        let more = list(&[(WEAK, 0, None), (STRICT, 0, Some(0))]);
        assert_eq!(require(&own, &[more.clone(), core(2, 1)]), Ok(()));
        // Who is under none is the kernel's to see.
        assert_eq!(require(&own, &[more.clone(), core(0, 0)]), Ok(()));
        for (_, fitting) in [alone, more] {
            assert_eq!(with_own(&own, &fitting), Some(fitting));
        }
    }

    #[test]
    fn weaker_shorter_and_missing_chains_are_refused() {
        let own = [filter(STRICT), filter(WEAK)];
        let without = Err(Wrong::Without("core-1001.img".into()));
        let both: &[(&[u8], u64, Option<u64>)] = &[(WEAK, 0, None), (STRICT, 0, Some(0))];
        assert_eq!(require(&own, &[list(both), core(2, 1)]), Ok(()));
        // From the middle, from nowhere, without the second, with a longer or shorter first, with another flag, in a circle.
        assert_eq!(require(&own, &[list(both), core(2, 0)]), without);
        assert_eq!(require(&own, &[list(both), core(2, 2)]), without);
        assert_eq!(require(&own, &[list(&[(STRICT, 0, None)]), core(2, 0)]), without);
        assert_eq!(require(&own, &[list(&[(WEAK, 0, None), (&[1; 24], 0, Some(0))]), core(2, 1)]), without);
        assert_eq!(require(&own, &[list(&[(WEAK, 0, None), (STRICT, 4, Some(0))]), core(2, 1)]), without);
        assert_eq!(require(&own, &[list(&[(WEAK, 0, Some(1)), (STRICT, 0, Some(0))]), core(2, 0)]), without);
        // No list at all; and two, of which one does not fit.
        assert_eq!(require(&own, &[core(2, 1)]), without);
        let two = [list(both), list(&[(WEAK, 0, None), (WEAK, 0, Some(0))]), core(2, 1)];
        assert_eq!(require(&own, &two), without);
    }

    #[test]
    fn the_container_s_own_come_before_chains_without_them() {
        let own = [filter(STRICT), Filter { program: vec![3; 8], flags: 2 }];
        // Two threads: one chain of two filters for all of its process, and one of one.
        let (name, image) = list(&[(WEAK, 1, None), (WEAK, 1, Some(0)), (WEAK, 0, None)]);
        let mended = with_own(&own, &image).unwrap();
        let list = listed(&mended).unwrap();
        let chain = |mut at: usize| {
            let mut found = vec![(list[at].program[0], list[at].all_flags)];
            while let Some(next) = list[at].next {
                found.push((list[next].program[0], list[next].all_flags));
                at = next;
            }
            found
        };
        assert_eq!(chain(1), [(1, 1), (3, 3), (2, 1), (2, 1)]);
        assert_eq!(chain(2), [(1, 0), (3, 2), (2, 0)]);
        for entry in [1, 2] {
            assert_eq!(require(&own, &[(name.clone(), mended.clone()), core(2, entry)]), Ok(()));
        }
        // Whoever begins in the middle is refused all the same.
        assert!(require(&own, &[(name, mended.clone()), core(2, 0)]).is_err());
        assert_eq!(with_own(&own, &mended), Some(mended));
        assert_eq!(with_own(&own, &image[..20]), None);
    }

    #[test]
    fn what_criu_would_read_otherwise_is_refused() {
        let own = [filter(STRICT)];
        let good = list(&[(STRICT, 0, None), (WEAK, 0, None)]);
        let damaged = Err(Wrong::Damaged("core-1001.img".into()));
        // A second part of the thread counts too.
        let (name, mut bytes) = core(2, 0);
        let mut part = Vec::new();
        put_field(&mut part, THREAD_FILTER, 1);
        let mut message = bytes.split_off(12);
        put_bytes(&mut message, THREAD, &part);
        let twice = (name, image(&message));
        assert_eq!(require(&own, &[good.clone(), twice]), Err(Wrong::Without("core-1001.img".into())));
        // The filter's number above 32 bits.
        assert_eq!(require(&own, &[good.clone(), core(2 | 1 << 32, 1 << 32)]), Ok(()));
        assert!(require(&own, &[good.clone(), core(2 | 1 << 32, 1 | 1 << 32)]).is_err());
        // A field whose number has bits that CRIU drops; and the places of old.
        let mut thread = Vec::new();
        put_field(&mut thread, THREAD_FILTER | 1 << 29, 1);
        let mut message = Vec::new();
        put_bytes(&mut message, THREAD, &thread);
        let hidden = ("core-1001.img".into(), image(&message));
        assert_eq!(require(&own, &[good.clone(), hidden]), damaged);
        let mut task = Vec::new();
        put_field(&mut task, TASK_OLD[1], 1);
        let mut message = Vec::new();
        put_bytes(&mut message, TASK, &task);
        let old = ("core-1001.img".into(), image(&message));
        assert_eq!(require(&own, &[good, old]), damaged);
        let cut = (FILTERS.to_owned(), vec![0; 11]);
        assert_eq!(require(&own, &[cut, core(2, 0)]), Err(Wrong::Damaged(FILTERS.into())));
    }

    #[test]
    fn the_images_that_decide_are_known_by_name() {
        assert!(decides("seccomp.img") && decides("core-1001.img"));
        assert!(!decides("pages-1.img") && !decides("core-1001.txt") && !decides("files.img"));
    }

    #[test]
    fn a_process_without_filters_has_none_and_runs_on() {
        let mut child = Command::new("sleep").arg("100").stdout(Stdio::null()).spawn().unwrap();
        let pid = child.id().cast_signed();
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        if status.contains("Seccomp:\t0") && nix::unistd::geteuid().is_root() {
            assert_eq!(filters_of(pid).unwrap(), []);
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            assert!(status.contains("TracerPid:\t0"), "{status}");
        } else {
            eprintln!("skipped: needs root, and no filter of its own");
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(filters_of(pid).is_err());
    }
}
