//! The periodic checkpoints that are there: what they take of the disk, and which have to go.
//!
//! The newest of a container always stays. Beyond that so many of each container stay, and of all containers no more than the
//! budget allows; the oldest go first. One whose container nobody knows any more stays for a week: a host that lost its power
//! makes the container again, and wants it.

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use fastmig_api::{Code, ErrorInfo};
use fastmig_engine::config::periodic::PREFIX;
use fastmig_engine::{image, state, Key};

use crate::checkpoints::{Origin, ORIGIN};
use crate::daemon::Daemon;

/// How long those of a container that is gone stay.
const REMEMBERED: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The unit of a file's blocks.
const BLOCK: u64 = 512;

/// The periodic checkpoints of this host.
#[derive(Debug)]
pub(super) struct Shelf {
    /// The oldest first.
    all: Vec<Kept>,
    budget: u64,
    place: PathBuf,
}

/// One of them.
#[derive(Debug, Clone)]
struct Kept {
    name: String,
    container: String,
    taken: SystemTime,
    /// Files by device and inode, with what each takes: those that two have in common take it once.
    files: HashMap<(u64, u64), u64>,
}

impl Shelf {
    /// As it is now.
    pub(super) fn of(daemon: &Daemon) -> Self {
        let place = &daemon.config.daemon.checkpoint_dir;
        Self { all: read(place), budget: daemon.config.periodic.budget, place: place.clone() }
    }

    /// For how long the newest of a container has been there.
    pub(super) fn age_of_last(&self, key: &Key) -> Option<Duration> {
        let last = self.all.iter().rev().find(|kept| kept.container == key.id())?;
        last.taken.elapsed().ok()
    }

    /// Refuses where even the newest ones alone leave nothing of the budget.
    ///
    /// # Errors
    /// What is taken, and what can be done.
    pub(super) fn require_room(&self, key: &Key) -> Result<(), ErrorInfo> {
        let staying: Vec<&Kept> = self.newest().filter(|kept| kept.container != key.id()).collect();
        let taken = bytes(staying);
        if self.budget == 0 || taken < self.budget {
            return Ok(());
        }
        let text = format!(
            "the newest periodic checkpoints of other containers take {taken} bytes, and periodic.budget is {}",
            self.budget
        );
        Err(ErrorInfo::new(Code::Refused, text)
            .with_remedy("raise periodic.budget, or delete checkpoints that nobody needs"))
    }

    /// Takes away what has to go now that container `key` has a new one and keeps `keep`; answers what is taken then.
    pub(super) fn prune(&self, daemon: &Daemon, key: &Key, keep: u32) -> u64 {
        let fresh = Self::of(daemon);
        let known = state::list(&daemon.config).unwrap_or_default();
        let known: HashSet<&str> = known.iter().map(Key::id).collect();
        let is_over = |kept: &Kept| {
            !known.contains(kept.container.as_str()) && kept.taken.elapsed().is_ok_and(|age| age > REMEMBERED)
        };
        let old = too_many(&fresh.all, key.id(), keep)
            .into_iter()
            .chain(fresh.all.iter().filter(|kept| is_over(kept)));
        let mut gone: HashSet<String> = old.map(|kept| kept.name.clone()).collect();
        gone.extend(over_budget(&fresh.all, &gone, self.budget));
        for name in &gone {
            if let Err(e) = daemon.checkpoints.delete(name) {
                tracing::warn!(checkpoint = name, error = e.message, "a periodic checkpoint stays");
            }
        }
        let taken = bytes(fresh.all.iter().filter(|kept| !gone.contains(&kept.name)));
        if self.budget > 0 && taken > self.budget {
            tracing::warn!(
                taken,
                budget = self.budget,
                "the newest periodic checkpoints alone take more than their budget"
            );
        }
        taken
    }

    /// One that was complete and not noted yet when its daemon was killed is nobody's.
    pub(super) fn sweep(&self, daemon: &Daemon) {
        let known: HashSet<&str> = self.all.iter().map(|kept| kept.name.as_str()).collect();
        for name in names(&self.place) {
            if !known.contains(name.as_str()) && image::is_ours(&self.place.join(&name)) {
                tracing::info!(checkpoint = name, "a checkpoint whose maker was killed goes");
                if let Err(e) = daemon.checkpoints.delete(&name) {
                    tracing::warn!(checkpoint = name, error = e.message, "it stays");
                }
            }
        }
        daemon.metrics.periodic_bytes(bytes(self.all.iter()));
    }

    fn newest(&self) -> impl Iterator<Item = &Kept> {
        newest(&self.all).into_iter()
    }
}

/// The newest of each container.
fn newest(all: &[Kept]) -> Vec<&Kept> {
    let mut newest: HashMap<&str, &Kept> = HashMap::new();
    for kept in all {
        newest.insert(&kept.container, kept);
    }
    newest.into_values().collect()
}

/// Those of a container that are more than it keeps.
fn too_many<'a>(all: &'a [Kept], container: &str, keep: u32) -> Vec<&'a Kept> {
    let of_it: Vec<&Kept> = all.iter().filter(|kept| kept.container == container).collect();
    let excess = of_it.len().saturating_sub(usize::try_from(keep.max(1)).unwrap_or(usize::MAX));
    of_it.into_iter().take(excess).collect()
}

/// Those that go, the oldest first, until the others fit into the budget. The newest of each container stays.
fn over_budget(all: &[Kept], gone: &HashSet<String>, budget: u64) -> Vec<String> {
    let mut left: Vec<&Kept> = all.iter().filter(|kept| !gone.contains(&kept.name)).collect();
    let staying: HashSet<&str> = newest(all).iter().map(|kept| kept.name.as_str()).collect();
    let mut more = Vec::new();
    while budget > 0 && bytes(left.iter().copied()) > budget {
        let Some(oldest) = left.iter().position(|kept| !staying.contains(kept.name.as_str())) else { break };
        more.push(left.remove(oldest).name.clone());
    }
    more
}

/// What they take together.
fn bytes<'a>(all: impl IntoIterator<Item = &'a Kept>) -> u64 {
    let mut files: HashMap<(u64, u64), u64> = HashMap::new();
    for kept in all {
        files.extend(&kept.files);
    }
    files.values().sum()
}

fn names(place: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(place).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    // What is in the making has its maker's number in its name.
    names.filter(|name| name.starts_with(PREFIX) && !name.contains(".partial-")).collect()
}

fn read(place: &Path) -> Vec<Kept> {
    let read = |name: String| {
        let path = place.join(&name);
        let origin: Origin = crate::files::read_json(&path.join(ORIGIN)).ok().flatten()?;
        let taken = std::fs::metadata(path.join(image::MANIFEST)).ok()?.modified().ok()?;
        let files = std::fs::read_dir(&path).into_iter().flatten().flatten();
        let metadata = files.filter_map(|entry| entry.metadata().ok());
        let files = metadata.map(|file| ((file.dev(), file.ino()), file.blocks() * BLOCK)).collect();
        origin.periodic.then_some(Kept { name, container: origin.container, taken, files })
    };
    let mut all: Vec<Kept> = names(place).into_iter().filter_map(read).collect();
    all.sort_by(|a, b| (a.taken, &a.name).cmp(&(b.taken, &b.name)));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The `number`th, of a container, with a file of its own and one that all of the container have.
    fn kept(number: u64, container: &str) -> Kept {
        let common = container.bytes().map(u64::from).sum::<u64>();
        Kept {
            name: format!("{container}{number}"),
            container: container.into(),
            taken: SystemTime::UNIX_EPOCH + Duration::from_secs(number),
            files: HashMap::from([((1, 1000 + number), 10), ((2, common), 100)]),
        }
    }

    #[test]
    fn so_many_of_a_container_stay() {
        let all: Vec<Kept> = [(1, "a"), (2, "b"), (3, "a"), (4, "a")].map(|(n, c)| kept(n, c)).into();
        let names = |gone: Vec<&Kept>| gone.iter().map(|kept| kept.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(too_many(&all, "a", 2)), ["a1"]);
        assert!(too_many(&all, "a", 3).is_empty());
        // The last one is never too many.
        assert_eq!(names(too_many(&all, "b", 0)), [] as [&str; 0]);
    }

    #[test]
    fn the_oldest_go_until_the_rest_fits_and_the_newest_of_each_stays() {
        let all: Vec<Kept> = [(1, "b"), (2, "a"), (3, "a"), (4, "a")].map(|(n, c)| kept(n, c)).into();
        // What two have in common counts once.
        assert_eq!(bytes(&all), 240);
        let none = HashSet::new();
        assert!(over_budget(&all, &none, 240).is_empty() && over_budget(&all, &none, 0).is_empty());
        assert_eq!(over_budget(&all, &none, 235), ["a2"]);
        assert_eq!(over_budget(&all, &none, 1), ["a2", "a3"]);
        let gone = HashSet::from(["a2".to_owned()]);
        assert!(over_budget(&all, &gone, 230).is_empty());
    }
}
