//! Kills what an ended application left to the init.

use std::os::fd::OwnedFd;

use fastmig_control::{Pid, Signal};
use nix::fcntl::{open, OFlag};
use nix::sys::stat::Mode;

use crate::sys;

/// The kernel's list of PID 1's children: numbers, each followed by a space. By way of `self`, a /proc that belongs
/// to another pid namespace leads nowhere instead of to the wrong processes.
const LIST: &str = "/proc/self/task/1/children";

/// Whether the init has no child, dead or alive.
pub(crate) fn none_left() -> bool {
    !sys::has_child(None)
}

/// Sends SIGKILL to every child. Each death brings a SIGCHLD and, with it, the children that the dead one had.
pub(crate) fn kill_all() {
    if kill_listed().is_err() {
        // Without that list (no /proc, or a kernel without CONFIG_PROC_CHILDREN) the only way to reach the children
        // is to reach everyone. Sessions started from outside suffer, but the application does not half live on.
        sys::kill_everyone();
    }
}

fn kill_listed() -> nix::Result<()> {
    let list = open(LIST, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    while kill_some(&list)? {}
    Ok(())
}

/// Kills those of the next piece of the list. A number cut at the end of a piece is left for the next round, which
/// the deaths of this one start.
fn kill_some(list: &OwnedFd) -> nix::Result<bool> {
    let mut piece = [0; 1024];
    let length = nix::unistd::read(list, &mut piece)?;
    for pid in whole_numbers(&piece[..length]) {
        // Those that are gone already, and those of a user whom the init may not signal, cannot be helped.
        let _ = sys::kill(pid, Signal::KILL);
    }
    Ok(length > 0)
}

/// The numbers that a space follows.
fn whole_numbers(list: &[u8]) -> impl Iterator<Item = Pid> + '_ {
    list.split_inclusive(|byte| *byte == b' ').filter_map(|number| {
        let digits = number.strip_suffix(b" ")?;
        Pid::new(std::str::from_utf8(digits).ok()?.parse().ok()?).ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_is_cut_off_is_not_another_number() {
        let pids: Vec<_> = whole_numbers(b"17 1000 4 23").map(Pid::get).collect();
        assert_eq!(pids, [17, 1000, 4]);
        assert_eq!(whole_numbers(b"").count(), 0);
    }
}
