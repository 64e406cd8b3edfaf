//! Kills for want of memory, as the container's cgroup counts them: `memory.events` on cgroup v2, `memory.oom_control` on v1.

use std::path::{Path, PathBuf};

use super::journal::Journal;
use crate::tree::cgroup;

/// The file that counts.
#[derive(Debug)]
pub(super) struct OomKills {
    counter: Option<PathBuf>,
}

impl OomKills {
    /// Those in the memory cgroup of the container whose PID 1 is `init`.
    pub(super) fn of(init: i32) -> Self {
        let directories = cgroup::directories_of(init).unwrap_or_default();
        let files = ["memory.events", "memory.oom_control"];
        let counter = directories
            .iter()
            .flat_map(|directory| files.map(|file| directory.join(file)))
            .find(|file| count(file).is_some());
        Self { counter }
    }

    /// An application comes up: what was counted before is not its.
    pub(super) fn begin(&self, journal: &mut Journal) {
        let kills = self.count();
        if kills != journal.oom_kills() {
            journal.note_oom_kills(kills);
        }
    }

    /// Whether there was one since.
    pub(super) fn happened(&self, journal: &Journal) -> bool {
        self.count() > journal.oom_kills()
    }

    fn count(&self) -> u64 {
        self.counter.as_deref().and_then(count).unwrap_or(0)
    }
}

fn count(file: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_count_in_the_same_words() {
        let directory = tempfile::tempdir().unwrap();
        for (name, text, expected) in [
            ("memory.events", "low 0\nhigh 0\noom 3\noom_kill 2\noom_group_kill 0\n", Some(2)),
            ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 7\n", Some(7)),
            ("memory.other", "oom 1\n", None),
        ] {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            assert_eq!(count(&path), expected, "{name}");
        }
        assert_eq!(count(&directory.path().join("none")), None);
    }
}
