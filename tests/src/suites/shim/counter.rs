//! An application that counts where everybody can see it: whether it runs, stands or began anew is read from outside.

use anyhow::{ensure, Context, Result};

use super::stage::{Task, FASTMIG, SOON};
use crate::framework::process::wait_until;
use crate::framework::Host;

/// Counts in the target of a symbolic link, which is replaced whole, for a pause may come at any moment; notes a signal in a
/// file, ends with a code of its own. No file is open that a checkpoint could meet, for the files of a container do not move
/// along.
const IN_SHELL: &str = "trap 'echo usr1 >>/signals' USR1; trap 'exit 23' TERM; i=0; while :; do i=$((i+1)); \
                        ln -sfn $i /next 2>/dev/null; mv /next /count 2>/dev/null; sleep 0.02; done";

/// The same in one process; what it sets up comes before.
const IN_PYTHON: &str = "
import os, time
i = 0
while True:
    i += 1
    try:
        if os.path.lexists('/next'): os.unlink('/next')
        os.symlink(str(i), '/next')
        os.replace('/next', '/count')
    except OSError: pass # a restore came between
    time.sleep(0.01)
";

/// Starts a shell that counts.
pub(super) fn start<'a>(host: &'a Host, id: &str, options: &[&str]) -> Result<Task<'a>> {
    Task::start(host, FASTMIG, options, id, &["sh", "-c", IN_SHELL])
}

/// Starts a Python program that sets something up and then counts.
pub(super) fn start_python<'a>(host: &'a Host, id: &str, options: &[&str], setup: &str) -> Result<Task<'a>> {
    let program = format!("{setup}{IN_PYTHON}");
    Task::start_of("python", host, FASTMIG, options, id, &["python3", "-c", &program])
}

/// How far the application below this PID 1 has counted.
pub(super) fn count_of(host: &Host, pid: i32) -> Result<u64> {
    let link = host.outside(&format!("/proc/{pid}/root/count"));
    let mut found = None;
    // Before the first number there is none.
    wait_until(SOON, || {
        found = std::fs::read_link(&link).ok().and_then(|target| target.to_str()?.parse().ok());
        found.is_some()
    })
    .with_context(|| format!("nothing counts in {}", link.display()))?;
    found.context("no count")
}

/// Fails unless it counts on.
pub(super) fn goes_on(host: &Host, pid: i32) -> Result<()> {
    let before = count_of(host, pid)?;
    let more = || count_of(host, pid).is_ok_and(|now| now > before);
    wait_until(SOON, more).with_context(|| format!("the counter stands at {before}"))
}

/// Waits until it has counted to something, so that a restored one must begin above nought.
pub(super) fn counted(task: &Task<'_>) -> Result<u64> {
    let pid = task.pid()?;
    wait_until(SOON, || count_of(task.host, pid).is_ok_and(|count| count > 20))
        .context("it does not count")?;
    count_of(task.host, pid)
}

/// Fails unless it went on from there, and did not begin anew.
pub(super) fn went_on(task: &Task<'_>, from: u64) -> Result<()> {
    let pid = task.pid()?;
    let above = || count_of(task.host, pid).is_ok_and(|count| count > from);
    wait_until(SOON, above).with_context(|| format!("it does not go on from {from}"))?;
    let now = count_of(task.host, pid)?;
    ensure!(now < from + 2000, "it counted from {from} to {now}: not the same counter");
    Ok(())
}
