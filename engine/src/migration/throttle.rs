//! An application that writes faster than its memory can travel gets less of the processor for a while.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::container::{Container, Operation};
use crate::tree::cgroup;
use crate::Error;

/// What the kernel counts processor time in, unless the container has something else.
const PERIOD_US: u64 = 100_000;
/// The least that is left, in microseconds of a period: the kernel takes no less.
const LEAST_US: u64 = 1_000;
const V1_QUOTA: &str = "cpu.cfs_quota_us";
const V1_PERIOD: &str = "cpu.cfs_period_us";
const V2: &str = "cpu.max";
const V1_USAGE: &str = "cpuacct.usage";
const V2_USAGE: &str = "cpu.stat";
/// What is used within less says little: the kernel counts in ticks.
const SHORTEST: Duration = Duration::from_millis(20);

/// What is to be undone, also by whoever comes after us.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Throttle {
    file: PathBuf,
    before: String,
}

/// How much processor time a container uses, as long as nothing is taken from it.
#[derive(Debug, Default)]
pub(super) struct Usage {
    last: Option<(Instant, Duration)>,
    /// The most of late, in processors.
    used: Option<f64>,
}

impl Usage {
    /// Looks at it: before each round.
    pub(super) fn look(&mut self, container: &Container) {
        let Some(total) = used_by(container) else { return };
        self.note(Instant::now(), total);
    }

    fn note(&mut self, now: Instant, total: Duration) {
        if let Some((then, before)) = self.last {
            let passed = now.duration_since(then);
            if passed < SHORTEST {
                return;
            }
            let used = total.saturating_sub(before).as_secs_f64() / passed.as_secs_f64();
            // It may have waited for something just in the last round.
            self.used = Some(self.used.map_or(used, |most| used.max((most + used) / 2.0)));
        }
        self.last = Some((now, total));
    }

    /// What is left of it, in microseconds of each `period`, without `percent`; never more than `allowed`.
    fn left(&self, allowed: u64, period: u64, percent: u32) -> u64 {
        let used = self.used.map_or(allowed, |processors| microseconds(processors, period).min(allowed));
        (used.saturating_mul(u64::from(100_u32.saturating_sub(percent))) / 100).max(LEAST_US)
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast saturates")]
fn microseconds(processors: f64, period: u64) -> u64 {
    (processors * period as f64) as u64
}

/// Leaves the container's application `100 - percent` percent of the processor time that it used before.
pub(super) fn throttle(
    container: &Container,
    operation: &mut Operation,
    usage: &Usage,
    percent: u32,
) -> Result<(), Error> {
    let throttle = match operation.record.throttle.clone() {
        Some(throttle) => throttle,
        None => find(container)?,
    };
    let (allowed, period) = allowance(&throttle).map_err(|e| Error::io("read", &throttle.file, e))?;
    operation.record.throttle = Some(throttle.clone());
    operation.save()?;
    let left = usage.left(allowed, period, percent);
    tracing::debug!(percent, left, period, used = ?usage.used, "the application gets less processor time");
    throttle.set(left, period).map_err(|e| Error::io("set the processor time by", &throttle.file, e))
}

impl Throttle {
    fn set(&self, left: u64, period: u64) -> io::Result<()> {
        let value = if self.file.ends_with(V2) { format!("{left} {period}") } else { left.to_string() };
        std::fs::write(&self.file, value)
    }
}

/// The application has all of its time again.
pub(crate) fn undo(operation: &mut Operation) -> Result<(), Error> {
    let Some(throttle) = operation.record.throttle.take() else { return Ok(()) };
    let undone = std::fs::write(&throttle.file, &throttle.before);
    match undone {
        // It went with its container.
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => {
            operation.record.throttle = Some(throttle.clone());
            return Err(Error::io("set the processor time by", &throttle.file, e));
        }
        Ok(()) => {}
    }
    operation.save()
}

fn find(container: &Container) -> Result<Throttle, Error> {
    let directories = cgroup::directories_of(container.pid());
    let directories = directories.map_err(|e| Error::io("find the cgroups of", Path::new("/proc"), e))?;
    let throttle =
        |file: &Path, before: &str| Some(Throttle { file: file.into(), before: before.trim().to_owned() });
    if let Some(throttle) = first_of(&directories, [V1_QUOTA, V2], throttle) {
        return Ok(throttle);
    }
    let missing =
        io::Error::new(io::ErrorKind::NotFound, "the container has no cgroup that limits its processor time");
    Err(Error::io("slow down the application in", Path::new(container.key().id()), missing))
}

/// What `read` makes of the first of `names` that is in one of the directories and that it can read.
fn first_of<T>(
    directories: &[PathBuf],
    names: [&str; 2],
    read: impl Fn(&Path, &str) -> Option<T>,
) -> Option<T> {
    // Names first: beside the older kind there may be an empty hierarchy of the newer.
    let mut candidates =
        names.iter().flat_map(|name| directories.iter().map(move |directory| directory.join(name)));
    candidates.find_map(|file| read(&file, &std::fs::read_to_string(&file).ok()?))
}

/// The processor time that the container has used in all; nothing where it is not counted.
fn used_by(container: &Container) -> Option<Duration> {
    first_of(&cgroup::directories_of(container.pid()).ok()?, [V1_USAGE, V2_USAGE], used)
}

fn used(file: &Path, content: &str) -> Option<Duration> {
    if file.ends_with(V1_USAGE) {
        return content.trim().parse().ok().map(Duration::from_nanos);
    }
    let line = content.lines().find_map(|line| line.strip_prefix("usage_usec "))?;
    line.trim().parse().ok().map(Duration::from_micros)
}

/// Quota and period in microseconds, as they were before.
fn allowance(throttle: &Throttle) -> io::Result<(u64, u64)> {
    let (quota, period) = if throttle.file.ends_with(V2) {
        let (quota, period) = throttle.before.split_once(' ').unwrap_or((&throttle.before, ""));
        (quota.parse().ok(), period.parse().unwrap_or(PERIOD_US))
    } else {
        let period = std::fs::read_to_string(throttle.file.with_file_name(V1_PERIOD))?;
        (throttle.before.parse().ok(), period.trim().parse().unwrap_or(PERIOD_US))
    };
    let processors = std::thread::available_parallelism()?.get() as u64;
    Ok((quota.unwrap_or(period * processors), period))
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    fn processors() -> u64 {
        std::thread::available_parallelism().unwrap().get() as u64
    }

    #[test]
    fn what_was_allowed_before_is_the_measure() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(V1_PERIOD), "50000\n").unwrap();
        let with =
            |name: &str, before: &str| Throttle { file: directory.path().join(name), before: before.into() };
        assert_eq!(allowance(&with(V1_QUOTA, "-1")).unwrap(), (50_000 * processors(), 50_000));
        assert_eq!(allowance(&with(V1_QUOTA, "20000")).unwrap(), (20_000, 50_000));
        assert_eq!(allowance(&with(V2, "max 100000")).unwrap(), (100_000 * processors(), 100_000));
        assert_eq!(allowance(&with(V2, "30000 60000")).unwrap(), (30_000, 60_000));
    }

    #[test]
    fn both_kinds_of_cgroups_say_what_was_used() {
        assert_eq!(used(Path::new("/cg/cpuacct.usage"), "1500000\n"), Some(Duration::from_micros(1500)));
        let v2 = "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\n";
        assert_eq!(used(Path::new("/cg/cpu.stat"), v2), Some(Duration::from_micros(1500)));
        // That of v1 says something else.
        assert_eq!(used(Path::new("/cg/cpu.stat"), "nr_periods 0\nnr_throttled 0\n"), None);
    }

    #[test]
    fn what_is_left_is_a_share_of_what_was_used() {
        let begun = Instant::now();
        let mut usage = Usage::default();
        assert_eq!(usage.left(400_000, 100_000, 20), 320_000);
        usage.note(begun, Duration::ZERO);
        usage.note(begun + Duration::from_secs(2), Duration::from_secs(1));
        assert_eq!(usage.left(400_000, 100_000, 20), 40_000);
        assert_eq!(usage.left(30_000, 100_000, 20), 24_000);
        assert_eq!(usage.left(400_000, 100_000, 100), LEAST_US);
        // One quiet round counts for half, no more.
        usage.note(begun + Duration::from_secs(4), Duration::from_secs(1));
        assert_eq!(usage.left(400_000, 100_000, 0), 25_000);
    }

    /// A process that uses one processor, in cgroups of its own.
    struct Busy {
        directories: Vec<PathBuf>,
        process: Child,
    }

    impl Busy {
        /// Nothing where the test cannot make cgroups that count and limit.
        fn start() -> Option<Self> {
            let me = i32::try_from(std::process::id()).unwrap();
            let all = cgroup::directories_of(me).ok()?;
            let useful = |directory: &PathBuf| {
                [V1_QUOTA, V1_USAGE, V2].iter().any(|name| directory.join(name).exists())
            };
            let of_test = |above: PathBuf| above.join(format!("fastmig-test-throttle-{me}"));
            let directories: Vec<_> = all.into_iter().filter(useful).map(of_test).collect();
            let made = directories.iter().try_for_each(std::fs::create_dir);
            let process = Command::new("sh").args(["-c", "while :; do :; done"]).stdin(Stdio::null()).spawn();
            let busy = Self { directories, process: process.unwrap() };
            let pid = busy.process.id().to_string();
            let join = |directory: &PathBuf| std::fs::write(directory.join("cgroup.procs"), &pid);
            let joined = made.and_then(|()| busy.directories.iter().try_for_each(join));
            let counted = first_of(&busy.directories, [V1_USAGE, V2_USAGE], used).is_some();
            (joined.is_ok() && counted && busy.throttle().is_some()).then_some(busy)
        }

        fn throttle(&self) -> Option<Throttle> {
            first_of(&self.directories, [V1_QUOTA, V2], |file, before| {
                Some(Throttle { file: file.into(), before: before.trim().to_owned() })
            })
        }

        fn look(&self, usage: &mut Usage) {
            usage.note(Instant::now(), first_of(&self.directories, [V1_USAGE, V2_USAGE], used).unwrap());
        }

        /// Processors that it uses now.
        fn uses(&self) -> f64 {
            let mut usage = Usage::default();
            self.look(&mut usage);
            std::thread::sleep(Duration::from_millis(600));
            self.look(&mut usage);
            usage.used.unwrap()
        }
    }

    impl Drop for Busy {
        fn drop(&mut self) {
            self.process.kill().unwrap();
            self.process.wait().unwrap();
            // Some may not have been made.
            self.directories.iter().for_each(|directory| drop(std::fs::remove_dir(directory)));
        }
    }

    #[test]
    fn one_thread_of_many_processors_slows_down() {
        let Some(busy) = Busy::start() else {
            eprintln!("skipped: no cgroup that limits processor time can be made here");
            return;
        };
        let throttle = busy.throttle().unwrap();
        let mut usage = Usage::default();
        busy.look(&mut usage);
        std::thread::sleep(Duration::from_millis(400));
        busy.look(&mut usage);
        let before = usage.used.unwrap();
        let (allowed, period) = allowance(&throttle).unwrap();
        throttle.set(usage.left(allowed, period, 80), period).unwrap();
        let slowed = busy.uses();
        std::fs::write(&throttle.file, &throttle.before).unwrap();
        let after = busy.uses();
        assert!(before > 0.2, "it used {before:.2} processors");
        assert!(slowed < before * 0.4, "{before:.2} processors became {slowed:.2}");
        assert!(after > slowed * 1.5, "{slowed:.2} processors stayed {after:.2}");
    }
}
