//! What is dumped and restored: the process tree below the init, and the streams that tie it to its container.

use std::collections::BTreeSet;
use std::fs::{read_link, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use procfs::process::Process;

use crate::image::Stream;

/// The application's first pid is one above: high enough that CRIU and exec sessions, which take pids from the
/// bottom, never hold one that a restore needs.
pub(crate) const PID_BASE: i32 = 1000;

/// All pids, thread ids, process groups and sessions of these host processes, as their container counts them.
pub(crate) fn inner_numbers(host_pids: &BTreeSet<i32>) -> BTreeSet<i32> {
    let mut numbers = BTreeSet::new();
    for &pid in host_pids {
        let Ok(process) = Process::new(pid) else { continue };
        if let Ok(status) = process.status() {
            let innermost = [status.nspid, status.nspgid, status.nssid].into_iter().flatten();
            numbers.extend(innermost.filter_map(|chain| chain.last().copied()).filter(|&n| n > 0));
        }
        for task in process.tasks().into_iter().flatten().flatten() {
            numbers.extend(inner_thread_id(pid, task.tid));
        }
    }
    numbers
}

fn inner_thread_id(pid: i32, tid: i32) -> Option<i32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    line.split_whitespace().next_back()?.parse().ok()
}

/// A process and its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Relation {
    /// As the host counts it.
    pub(crate) host: i32,
    /// As its container counts it.
    pub(crate) inner: i32,
    /// The parent, as the host counts it.
    pub(crate) parent: i32,
}

/// Who among these host processes is whose child; those that have ended are left out.
pub(crate) fn relations(pids: &BTreeSet<i32>) -> Vec<Relation> {
    let relation = |pid: &i32| {
        let status = Process::new(*pid).and_then(|process| process.status()).ok()?;
        let inner = *status.nspid?.last()?;
        (!status.state.starts_with('Z')).then_some(Relation { host: *pid, inner, parent: status.ppid })
    };
    pids.iter().filter_map(relation).collect()
}

/// How many threads host process `pid` has.
pub(crate) fn threads_of(pid: i32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count)
}

/// The host pid of the process that its container counts as `inner`, among `candidates`.
pub(crate) fn host_pid_of(inner: i32, candidates: impl IntoIterator<Item = i32>) -> Option<i32> {
    candidates.into_iter().find(|&pid| {
        let status = Process::new(pid).and_then(|process| process.status());
        status.is_ok_and(|status| status.nspid.is_some_and(|chain| chain.last() == Some(&inner)))
    })
}

/// The children of all threads of host process `pid`.
pub(crate) fn children_of(pid: i32) -> Vec<i32> {
    let tasks = Process::new(pid).and_then(|process| process.tasks());
    tasks
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|task| std::fs::read_to_string(format!("/proc/{pid}/task/{}/children", task.tid)).ok())
        .flat_map(|text| text.split_whitespace().filter_map(|word| word.parse().ok()).collect::<Vec<i32>>())
        .collect()
}

/// Host process `root` and all below it.
pub(crate) fn tree_of(root: i32) -> Vec<i32> {
    tree_without(root, None)
}

/// The same without the tree below `branch`, which is not looked at.
pub(crate) fn tree_without(root: i32, branch: Option<i32>) -> Vec<i32> {
    let mut tree = vec![root];
    let mut next = 0;
    while let Some(&pid) = tree.get(next) {
        tree.extend(children_of(pid).into_iter().filter(|child| Some(*child) != branch));
        next += 1;
    }
    tree
}

/// The command line of host process `pid`, for messages.
pub(crate) fn command_of(pid: i32) -> String {
    let command = Process::new(pid).and_then(|process| process.cmdline()).unwrap_or_default();
    command.join(" ")
}

/// The pid's start time, which tells it from a later process of the same number.
pub(crate) fn start_time(pid: i32) -> Option<u64> {
    Process::new(pid).and_then(|process| process.stat()).ok().map(|stat| stat.starttime)
}

/// Whether host process `pid` has ended and only waits to be reaped.
pub(crate) fn is_zombie(pid: i32) -> bool {
    Process::new(pid).and_then(|process| process.stat()).map_or(true, |stat| stat.state == 'Z')
}

/// Whether a thread of host process `pid` waits in vfork(2), as far as the kernel tells.
pub(crate) fn waits_for_child_to_begin(pid: i32) -> bool {
    // What calls and waits for the child, here and in older kernels; a fork that is over has left it.
    const WAITING: [&str; 3] = ["kernel_clone", "_do_fork", "wait_for_vfork_done"];
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    threads.flatten().any(|thread| {
        let stack = std::fs::read_to_string(thread.path().join("stack")).unwrap_or_default();
        WAITING.iter().any(|function| stack.contains(function))
    })
}

/// Whether host process `pid` was stopped by a signal, as all of its threads are then, and not continued since.
pub(crate) fn is_stopped(pid: i32) -> bool {
    // Frozen on cgroup v1 it is in state D since Linux 6.1; where it waits tells.
    const WAITING: &str = "do_signal_stop";
    let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
    let stat = read("stat");
    let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
    state == Some('T') || read("wchan") == WAITING
}

/// How ready the kernel is to kill host process `pid` when memory runs out.
pub(crate) fn oom_score_adj(pid: i32) -> Option<i32> {
    std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).ok()?.trim().parse().ok()
}

fn stream_path(init: i32, number: u8) -> PathBuf {
    PathBuf::from(format!("/proc/{init}/fd/{number}"))
}

/// What CRIU calls the init's standard streams; only those that lie outside the container have such a name.
pub(crate) fn streams(init: i32) -> io::Result<Vec<Stream>> {
    let mut streams = Vec::new();
    for number in 0..3 {
        let path = stream_path(init, number);
        if let Some(key) = criu_name(&path)? {
            streams.push(Stream { number, key });
        }
    }
    Ok(streams)
}

fn criu_name(path: &Path) -> io::Result<Option<String>> {
    let link = read_link(path)?.to_string_lossy().into_owned();
    let status = std::fs::metadata(path)?;
    if status.file_type().is_char_device() && link.starts_with("/dev/pts/") {
        return Ok(Some(format!("tty[{:x}:{:x}]", status.rdev(), status.dev())));
    }
    Ok((link.starts_with("pipe:") || link.starts_with("socket:")).then_some(link))
}

/// Opens the init's standard stream `number`, to become the application's.
pub(crate) fn open_stream(init: i32, number: u8) -> io::Result<OwnedFd> {
    let path = stream_path(init, number);
    let terminal = std::fs::metadata(&path)?.file_type().is_char_device();
    let mut options = File::options();
    // A pipe's end is what it was opened for; a terminal is both.
    options.read(number == 0 || terminal).write(number > 0 || terminal).custom_flags(libc::O_NOCTTY);
    Ok(options.open(&path)?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ones_own_numbers_are_found() {
        let me = i32::try_from(std::process::id()).unwrap();
        let numbers = inner_numbers(&BTreeSet::from([me]));
        assert!(numbers.contains(&me));
        assert_eq!(host_pid_of(me, [1, me]), Some(me));
        assert!(start_time(me).is_some());
    }

    #[test]
    fn only_pipes_and_terminals_lie_outside() {
        let (reader, _writer) = nix::unistd::pipe().unwrap();
        use std::os::fd::AsRawFd;
        let path = PathBuf::from(format!("/proc/self/fd/{}", reader.as_raw_fd()));
        assert!(criu_name(&path).unwrap().unwrap().starts_with("pipe:["));
        let null = File::open("/dev/null").unwrap();
        let path = PathBuf::from(format!("/proc/self/fd/{}", null.as_raw_fd()));
        assert_eq!(criu_name(&path).unwrap(), None);
    }
}
