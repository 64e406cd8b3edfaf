//! How much more memory a container may hold: what arrives counts as its own.

use std::path::{Path, PathBuf};

use crate::tree::cgroup;

/// The names of limit and use, and the lines of `memory.stat` whose pages the kernel gives back when they are needed.
struct Names {
    limit: &'static str,
    usage: &'static str,
    cache: [&'static str; 2],
}

const V1: Names = Names {
    limit: "memory.limit_in_bytes",
    usage: "memory.usage_in_bytes",
    cache: ["total_inactive_file ", "total_active_file "],
};
const V2: Names =
    Names { limit: "memory.max", usage: "memory.current", cache: ["inactive_file ", "active_file "] };

/// Bytes that the container of process `pid` may still hold; nothing when no cgroup above it has a limit.
pub(super) fn of(pid: i32) -> Option<u64> {
    cgroup::directories_of(pid).ok()?.iter().filter_map(|directory| least_above(directory)).min()
}

/// The least of this cgroup's and of those that it is in.
fn least_above(directory: &Path) -> Option<u64> {
    let all = directory.ancestors().flat_map(|directory| [V1, V2].map(|names| left(directory, &names)));
    all.flatten().min()
}

fn left(directory: &Path, names: &Names) -> Option<u64> {
    let read = |name: &str| std::fs::read_to_string(directory.join(PathBuf::from(name))).ok();
    let limit: u64 = read(names.limit)?.trim().parse().ok()?;
    let usage: u64 = read(names.usage)?.trim().parse().ok()?;
    let stat = read("memory.stat").unwrap_or_default();
    let cache = names
        .cache
        .iter()
        .filter_map(|name| stat.lines().find_map(|line| line.strip_prefix(name))?.trim().parse::<u64>().ok());
    Some(limit.saturating_sub(usage.saturating_sub(cache.sum())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(directory: &Path, files: &[(&str, &str)]) {
        std::fs::create_dir_all(directory).unwrap();
        files.iter().for_each(|(name, content)| std::fs::write(directory.join(name), content).unwrap());
    }

    #[test]
    fn the_least_limit_counts_and_cache_does_not() {
        let root = tempfile::tempdir().unwrap();
        let (outer, inner) = (root.path().join("pod"), root.path().join("pod/container"));
        write(&outer, &[("memory.max", "5000\n"), ("memory.current", "3000\n"), ("memory.stat", "")]);
        write(&inner, &[("memory.max", "max\n"), ("memory.current", "3000\n")]);
        assert_eq!(least_above(&inner), Some(2000));
        let stat = "anon 2000\nfile 900\ninactive_file 600\nactive_file 300\n";
        write(&inner, &[("memory.max", "3500\n"), ("memory.stat", stat)]);
        assert_eq!(least_above(&inner), Some(1400));
    }

    #[test]
    fn the_older_kind_is_read_as_well() {
        let root = tempfile::tempdir().unwrap();
        let files = [("memory.limit_in_bytes", "100\n"), ("memory.usage_in_bytes", "200\n")];
        write(root.path(), &files);
        assert_eq!(least_above(root.path()), Some(0));
        assert_eq!(least_above(&root.path().join("none")), Some(0));
    }
}
