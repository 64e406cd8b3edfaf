//! An application that writes faster than its memory can travel gets less of the processor for a while.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::container::{Container, Operation};
use crate::{cgroup, Error};

/// What the kernel counts processor time in, unless the container has something else.
const PERIOD_US: u64 = 100_000;
/// The least that is left, in microseconds of a period: the kernel takes no less.
const LEAST_US: u64 = 1_000;
const V1_QUOTA: &str = "cpu.cfs_quota_us";
const V1_PERIOD: &str = "cpu.cfs_period_us";
const V2: &str = "cpu.max";

/// What is to be undone, also by whoever comes after us.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Throttle {
    file: PathBuf,
    before: String,
}

/// Leaves the container's application `100 - percent` percent of the processor time that it may use without.
pub(super) fn throttle(container: &Container, operation: &mut Operation, percent: u32) -> Result<(), Error> {
    let throttle = match operation.record.throttle.clone() {
        Some(throttle) => throttle,
        None => find(container)?,
    };
    let allowed = allowance(&throttle).map_err(|e| Error::io("read", &throttle.file, e))?;
    operation.record.throttle = Some(throttle.clone());
    operation.save()?;
    let (quota, period) = allowed;
    let left = (quota * u64::from(100_u32.saturating_sub(percent)) / 100).max(LEAST_US);
    let value = if throttle.file.ends_with(V2) { format!("{left} {period}") } else { left.to_string() };
    std::fs::write(&throttle.file, value)
        .map_err(|e| Error::io("set the processor time by", &throttle.file, e))
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
    let candidates = directories.iter().flat_map(|directory| [V1_QUOTA, V2].map(|name| directory.join(name)));
    for file in candidates {
        if let Ok(before) = std::fs::read_to_string(&file) {
            return Ok(Throttle { file, before: before.trim().to_owned() });
        }
    }
    let missing =
        io::Error::new(io::ErrorKind::NotFound, "the container has no cgroup that limits its processor time");
    Err(Error::io("slow down the application in", Path::new(container.key().id()), missing))
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
    use super::*;

    #[test]
    fn what_was_allowed_before_is_the_measure() {
        let directory = tempfile::tempdir().unwrap();
        let processors = std::thread::available_parallelism().unwrap().get() as u64;
        std::fs::write(directory.path().join(V1_PERIOD), "50000\n").unwrap();
        let with =
            |name: &str, before: &str| Throttle { file: directory.path().join(name), before: before.into() };
        assert_eq!(allowance(&with(V1_QUOTA, "-1")).unwrap(), (50_000 * processors, 50_000));
        assert_eq!(allowance(&with(V1_QUOTA, "20000")).unwrap(), (20_000, 50_000));
        assert_eq!(allowance(&with(V2, "max 100000")).unwrap(), (100_000 * processors, 100_000));
        assert_eq!(allowance(&with(V2, "30000 60000")).unwrap(), (30_000, 60_000));
    }
}
