//! What stands before CRIU on hosts of the fault tests: it waits, or injects one of CRIU's own faults, where a file beside it
//! says so for the container that it runs in; then it becomes CRIU.
//!
//! It is the loader of a host's bundle by name. `gate.loader` beside it names the real one; `gate.d/INODE.hold` and
//! `gate.d/INODE.fault` are for the container with that pid namespace.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// The name that it has there.
pub(crate) const NAME: &str = "gate";

/// A hold that nobody lifts ends by itself.
const LONGEST: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(2);

/// Becomes CRIU, if this was started in its place.
pub(crate) fn run_if_asked() -> Option<ExitCode> {
    let mut arguments = std::env::args_os();
    let ourselves = arguments.next()?;
    let ourselves = Path::new(&ourselves);
    if ourselves.file_name()? != NAME {
        return None;
    }
    let directory = ourselves.parent()?;
    let orders = directory.join("gate.d");
    let namespace = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    let inode: String = namespace.to_string_lossy().chars().filter(char::is_ascii_digit).collect();
    let held = orders.join(format!("{inode}.hold"));
    let begun = Instant::now();
    while held.exists() && begun.elapsed() < LONGEST {
        std::thread::sleep(LOOK);
    }
    let loader = std::fs::read_to_string(directory.join("gate.loader")).ok()?;
    let mut criu = Command::new(directory.join(loader.trim()));
    criu.args(arguments);
    if let Ok(fault) = std::fs::read_to_string(orders.join(format!("{inode}.fault"))) {
        criu.env("CRIU_FAULT", fault.trim());
    }
    let error = criu.exec();
    eprintln!("gate: {error}");
    Some(ExitCode::FAILURE)
}
