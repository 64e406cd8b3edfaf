//! Words for a human on standard error, which is the container's own stream and may be in any condition.

use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout};

/// A pipe that reports room has at least this much of it (`PIPE_BUF`).
const LONGEST: usize = 4096;

/// Writes one line, or nothing when that would block: nobody may be reading, and the init must not wait for them.
pub(crate) fn say(text: &str) {
    let stderr = std::io::stderr();
    let mut ready = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
    let writable = nix::poll::poll(&mut ready, PollTimeout::ZERO).is_ok()
        && ready[0].revents().is_some_and(|events| events.contains(PollFlags::POLLOUT));
    if writable {
        let mut line = text.as_bytes().to_vec();
        line.truncate(LONGEST - 1);
        line.push(b'\n');
        let _ = nix::unistd::write(&stderr, &line);
    }
}
