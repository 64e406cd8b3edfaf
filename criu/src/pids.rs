//! Which pid the next process of a pid namespace gets: `ns_last_pid`, written from inside that namespace.

use std::fs::File;
use std::io;
use std::path::Path;

use nix::sched::{setns, CloneFlags};
use nix::unistd::write;

use crate::sys;

/// The kernel applies a write to the writer's own pid namespace, whatever `/proc` it goes through.
const LAST_PID: &str = "/proc/sys/kernel/ns_last_pid";

/// Makes `last + 1` the first pid that the kernel tries next in the pid namespace of process `pid`.
///
/// Needs CAP_CHECKPOINT_RESTORE (Linux 5.9) in the user namespace of that pid namespace.
///
/// # Errors
/// When the namespace is gone or the kernel refuses.
pub fn set_last_pid(pid: i32, last: i32) -> io::Result<()> {
    let namespace = File::open(Path::new("/proc").join(pid.to_string()).join("ns/pid"))?;
    let file = File::options().write(true).open(LAST_PID)?;
    let value = last.to_string();
    // A thread, for it stays there; and a child of it, for only that is in the namespace.
    let thread = std::thread::Builder::new().name("last-pid".into()).spawn(move || {
        setns(&namespace, CloneFlags::CLONE_NEWPID)?;
        sys::in_child(|| write(&file, value.as_bytes()).map(drop))
    })?;
    thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread that sets the last pid panicked")))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_namespace_that_is_gone_is_told() {
        let mut gone = Command::new("true").spawn().unwrap();
        let pid = i32::try_from(gone.id()).unwrap();
        gone.wait().unwrap();
        assert_eq!(set_last_pid(pid, 4000).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn the_next_process_gets_the_next_pid() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return;
        }
        // A fresh pid namespace whose init prints the pid of a child after we have set the last one.
        let mut holder = Command::new("unshare")
            .args(["--pid", "--fork", "--kill-child", "sh", "-c", "read line; sh -c 'echo $$'; true"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let children = format!("/proc/{0}/task/{0}/children", holder.id());
        let init = loop {
            if let Ok(pid) = std::fs::read_to_string(&children).unwrap().trim().parse() {
                break pid;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        };
        set_last_pid(init, 4000).unwrap();
        drop(holder.stdin.take());
        let output = holder.wait_with_output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), "4001");
    }
}
