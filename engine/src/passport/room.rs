//! Memory, disk and tasks: what the application has, against what the destination has left.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fastmig_rootfs::Room;
use procfs::process::Process;
use procfs::{Current, Meminfo};
use serde::{Deserialize, Serialize};

use super::{Destination, Reasons, Source};
use crate::tree::cgroup;
use crate::Error;

/// More than any container has mounted.
const MOST: usize = 10_000;

/// What the application needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Needs {
    /// Bytes of memory of its own, swapped out or not.
    memory: u64,
    /// Processes and threads.
    tasks: u64,
    /// Bytes of files that travel, by where their file system is mounted.
    files: BTreeMap<String, u64>,
}

impl Needs {
    pub(super) fn of(source: &Source<'_>) -> Result<Self, Error> {
        let threads = |pid: &i32| {
            Process::new(*pid).and_then(|process| process.stat()).map_or(1, |stat| stat.num_threads)
        };
        let tasks = source.processes.iter().map(|pid| u64::try_from(threads(pid)).unwrap_or(1)).sum();
        let rooms = source.survey.rooms()?;
        let files =
            rooms.into_iter().map(|room| (room.at.to_string_lossy().into_owned(), room.used)).collect();
        Ok(Self { memory: source.processes.iter().map(|&pid| memory_of(pid)).sum(), tasks, files })
    }

    pub(super) fn is_excessive(&self) -> bool {
        self.files.len() > MOST
    }

    pub(super) fn check(&self, here: &Destination<'_>, reasons: &mut Reasons) {
        let Some(rooms) = reasons.take(here.survey.rooms().map_err(Error::from)) else { return };
        let in_memory = self.check_files(&rooms, reasons);
        let needed = self.memory.saturating_add(in_memory);
        let free = Meminfo::current()
            .map_or(u64::MAX, |info| info.mem_available.unwrap_or(u64::MAX).saturating_add(info.swap_free));
        if needed > free {
            reasons.add(
                format!("the application needs {} of memory, {} are free", bytes(needed), bytes(free)),
                "free memory here, or choose another destination",
            );
        }
        let directories = cgroup::directories_of(here.container.pid()).unwrap_or_default();
        let limit = directories.iter().filter_map(|group| memory_limit(group)).min();
        if let Some(limit) = limit.filter(|limit| needed > *limit) {
            reasons.add(
                format!(
                    "the application needs {} of memory, the container may use {}",
                    bytes(needed),
                    bytes(limit)
                ),
                "give the container more (--memory)",
            );
        }
        let tasks = directories.iter().filter_map(|group| tasks_left(group)).min();
        if let Some(left) = tasks.filter(|left| self.tasks > *left) {
            reasons.add(
                format!(
                    "the application has {} processes and threads, the container may have {left} more",
                    self.tasks
                ),
                "give the container more (--pids-limit)",
            );
        }
    }

    /// Whether all files find their room; how many bytes of them are in memory here.
    fn check_files(&self, rooms: &[Room], reasons: &mut Reasons) -> u64 {
        let root = rooms.iter().find(|room| room.at == Path::new("/"));
        let mut needed = BTreeMap::<u64, (u64, Vec<&Room>)>::new();
        for (at, wanted) in &self.files {
            let Some(room) = rooms.iter().find(|room| room.at == Path::new(at)).or(root) else { continue };
            let (sum, same) = needed.entry(room.device).or_default();
            *sum = sum.saturating_add(*wanted);
            if !same.contains(&room) {
                same.push(room);
            }
        }
        let mut in_memory = 0_u64;
        for (sum, same) in needed.values() {
            // What is there gives way.
            let given_back: u64 = same.iter().map(|room| room.used).sum();
            let free = same.first().map_or(0, |room| room.free).saturating_add(given_back);
            if sum > &free {
                let at: Vec<String> = same.iter().map(|room| room.at.display().to_string()).collect();
                reasons.add(
                    format!(
                        "{} of files go to {} of the container, {} are free there",
                        bytes(*sum),
                        at.join(", "),
                        bytes(free)
                    ),
                    "make room there, or choose another destination",
                );
            }
            if same.iter().any(|room| room.in_memory) {
                in_memory = in_memory.saturating_add(sum.saturating_sub(given_back));
            }
        }
        in_memory
    }
}

/// What a process has that is no file's: it must be found anew. Shared memory counts in part for each who shares it.
fn memory_of(pid: i32) -> u64 {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    sum_of(&rollup, &["Pss_Anon", "Pss_Shmem", "SwapPss"])
}

/// The sum of these fields, in bytes.
fn sum_of(rollup: &str, fields: &[&str]) -> u64 {
    let kibibytes = rollup.lines().filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        let number = value.split_whitespace().next()?.parse::<u64>().ok()?;
        fields.contains(&name).then_some(number)
    });
    kibibytes.sum::<u64>().saturating_mul(1024)
}

/// The lowest limit of memory in this cgroup or one above it.
fn memory_limit(group: &Path) -> Option<u64> {
    ["memory.max", "memory.limit_in_bytes"]
        .iter()
        .filter_map(|name| lowest(group, |above| number(&above.join(name))))
        .min()
}

/// How many tasks may come into this cgroup.
fn tasks_left(group: &Path) -> Option<u64> {
    lowest(group, |above| {
        let (most, now) = (number(&above.join("pids.max"))?, number(&above.join("pids.current"))?);
        Some(most.saturating_sub(now))
    })
}

fn lowest(group: &Path, read: impl Fn(&Path) -> Option<u64>) -> Option<u64> {
    group.ancestors().take_while(|above| above.join("cgroup.procs").exists()).filter_map(read).min()
}

/// A limit that is none is no number.
fn number(path: &PathBuf) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn bytes(count: u64) -> String {
    format!("{} MiB", count.div_ceil(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(at: &str, device: u64, used: u64, free: u64) -> Room {
        Room { at: at.into(), device, in_memory: device == 9, used, free }
    }

    fn needs(files: &[(&str, u64)]) -> Needs {
        let files = files.iter().map(|(at, size)| ((*at).to_owned(), *size)).collect();
        Needs { memory: 0, tasks: 1, files }
    }

    #[test]
    fn files_on_one_file_system_need_room_together() {
        let rooms = [room("/", 1, 0, 100), room("/data", 1, 0, 100), room("/cache", 9, 0, 10)];
        let told = |files: &[(&str, u64)]| {
            let mut reasons = Reasons::default();
            needs(files).check_files(&rooms, &mut reasons);
            reasons.to_string()
        };
        assert_eq!(told(&[("/", 50), ("/data", 50), ("/cache", 10)]), "");
        assert!(told(&[("/", 51), ("/data", 50)]).contains("/, /data"));
        assert!(told(&[("/cache", 11)]).contains("/cache"));
        // What has no place of its own goes into the root.
        assert!(told(&[("/", 1), ("/elsewhere", 100)]).contains('/'));
    }

    #[test]
    fn what_is_there_gives_way() {
        let rooms = [room("/", 1, 60, 40), room("/cache", 9, 5, 0)];
        let mut reasons = Reasons::default();
        assert_eq!(needs(&[("/", 100), ("/cache", 5)]).check_files(&rooms, &mut reasons), 0);
        assert_eq!(reasons, Reasons::default());
    }

    #[test]
    fn ones_own_memory_is_counted() {
        let mine = std::hint::black_box(vec![1_u8; 20 << 20]);
        let me = i32::try_from(std::process::id()).unwrap();
        // As long as a child of another test's has not begun, half of every page is its.
        let is_counted = || memory_of(me) >= mine.len() as u64;
        let waited = (0..500).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(4));
            is_counted()
        });
        assert!(waited, "{}", memory_of(me));
        assert_eq!(
            sum_of("Pss_Anon:   3 kB\nPss_File: 9 kB\nSwapPss: 1 kB\n", &["Pss_Anon", "SwapPss"]),
            4096
        );
    }

    #[test]
    fn the_lowest_limit_of_all_holds() {
        let top = tempfile::tempdir().unwrap();
        let inner = top.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        for (directory, limit) in [(top.path(), "100\n"), (inner.as_path(), "max\n")] {
            std::fs::write(directory.join("cgroup.procs"), "").unwrap();
            std::fs::write(directory.join("memory.max"), limit).unwrap();
            std::fs::write(directory.join("pids.max"), limit).unwrap();
            std::fs::write(directory.join("pids.current"), "60").unwrap();
        }
        assert_eq!((memory_limit(&inner), tasks_left(&inner)), (Some(100), Some(40)));
    }
}
