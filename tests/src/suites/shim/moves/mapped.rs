//! What an application writes through shared mappings of its files is there after a move: such writes leave no trace in a
//! file's times.

use std::time::Duration;

use anyhow::{ensure, Context, Result};

use super::hosts;
use crate::apps::container::{Container, Setup};
use crate::apps::moving::move_application;
use crate::framework::process::wait_until;
use crate::framework::{Ctx, Generation};
use crate::suites::shim::stage::nothing_is_left;

/// Counts in its own memory, and in files that it maps: in the root file system, and in two file systems in memory. It
/// says so when they differ.
const PROGRAM: &str = r#"
import mmap, os, time
files = {}
for path in ["/mapped", "/cache/mapped", "/dev/shm/mapped"]:
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    os.ftruncate(file, 1 << 20)
    files[path] = mmap.mmap(file, 1 << 20)
count = 0
while True:
    for path, content in files.items():
        found = int.from_bytes(content[:8], "little")
        if found != count:
            print("lost:", path, "has", found, "and not", count, flush=True)
    count += 1
    for content in files.values():
        content[:8] = count.to_bytes(8, "little")
    if count % 20 == 0:
        print("count", count, flush=True)
    time.sleep(0.0005)
"#;

/// Its first writes are to lie back for more than two seconds, so that their time says nothing; and it is to write between
/// any two steps of a checkpoint.
const BEFORE: u64 = 4000;
const LIMIT: Duration = Duration::from_secs(30);

pub(super) fn travel(ctx: &Ctx, generations: [Generation; 2]) -> Result<()> {
    let [from, to] = hosts(ctx, generations, "python")?;
    let setup = Setup::of("python")
        .with(["--mount", "type=tmpfs,dst=/cache,options=rw"])
        .running(["python3", "-c", PROGRAM]);
    let source = Container::run(&from, "mapped-1", &setup)?;
    let destination = Container::run(&to, "mapped-2", &setup.in_standby())?;
    wait_until(LIMIT, || count(&source) > BEFORE).context("the program does not count")?;

    move_application(&source, &destination)?;
    let moved_at = count(&source);
    wait_until(LIMIT, || count(&destination) > moved_at).context("the program does not go on counting")?;
    let output = String::from_utf8(destination.output()?)?;
    let lost: Vec<&str> = output.lines().filter(|line| line.starts_with("lost")).collect();
    ensure!(lost.is_empty(), "after count {moved_at}: {lost:#?}");
    for container in [source, destination] {
        container.remove()?;
    }
    nothing_is_left(&from)?;
    nothing_is_left(&to)
}

/// The last count that it has printed.
fn count(container: &Container) -> u64 {
    let output = container.output().unwrap_or_default();
    let output = String::from_utf8_lossy(&output);
    output.lines().rev().find_map(|line| line.strip_prefix("count ")?.parse().ok()).unwrap_or(0)
}
