//! While CRIU waits for its request, the engine's commands are served.

use core::ffi::c_int;

use fastmig_criu_view_layout::command;

use crate::{areas, family, huge, shared, start, sys};

/// Serves commands until the socket `fd` can be read; at once when it is not the one that CRIU gets its requests on.
pub(crate) fn until_readable(fd: c_int) {
    let Some(restore) = start::restore() else { return };
    let is_rpc = || sys::identity(fd).is_some_and(|(_, inode)| inode == restore.rpc);
    if sys::process() != restore.main || !is_rpc() {
        return;
    }
    family::looks_for_message();
    if restore.socket < 0 {
        return;
    }
    loop {
        match sys::readable(fd, restore.socket) {
            Some((true, _)) => return end(),
            Some((_, true)) if serve(restore.socket) => {}
            Some(_) => return end(),
            None if sys::error() == libc::EINTR => {}
            None => return,
        }
    }
}

/// The engine has filled what there is. What restored processes map is no longer mapped here: it may have to be sealed.
fn end() {
    start::close_socket();
    shared::unmap_segments();
}

/// Serves one command; no when the engine has closed its end.
fn serve(socket: c_int) -> bool {
    let mut message = [0; command::WORDS];
    if usize::try_from(sys::receive(socket, &mut message)) != Ok(size_of_val(&message)) {
        return false;
    }
    let [what, first, second, _] = message;
    let answer = match what {
        command::LAY_OUT => [error(areas::lay_out()), 0, 0, 0],
        command::DISCARD => [error(areas::discard(first)), 0, 0, 0],
        command::COLLAPSE => {
            let (area, offset) = huge::collapse(first, second);
            [0, area, offset, 0]
        }
        command::MAKE_HUGE => [error(huge::prepare(first)), 0, 0, 0],
        command::MAKE_SEGMENTS => [error(shared::make_segments(first)), 0, 0, 0],
        _ => [error(libc::ENOSYS), 0, 0, 0],
    };
    sys::send(socket, &answer);
    true
}

fn error(number: c_int) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
