//! An application that counts where everybody can see it: whether it runs, stands or began anew is read from outside.

use anyhow::{ensure, Context, Result};

use super::stage::{Task, FASTMIG, SOON};
use crate::framework::process::wait_until;
use crate::framework::Host;

/// Counts in a file, notes a signal in another, ends with a code of its own.
const IN_SHELL: &str = "trap 'echo usr1 >>/signals' USR1; trap 'exit 23' TERM; i=0; \
                        while :; do i=$((i+1)); echo $i >/count; sleep 0.02; done";

/// The same in one process; what it sets up comes before.
const IN_PYTHON: &str = "\nimport time\ni = 0\nwhile True:\n    i += 1\n    open('/count', 'w').write(str(i))\n    time.sleep(0.01)\n";

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
    let file = format!("/proc/{pid}/root/count");
    let mut found = None;
    // The application empties the file before it writes it.
    wait_until(SOON, || {
        let text = host.read_file(&file).map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned());
        found = text.ok().and_then(|text| text.parse().ok());
        found.is_some()
    })
    .with_context(|| format!("nothing counts in {file}"))?;
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
