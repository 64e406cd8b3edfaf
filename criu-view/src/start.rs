//! Before CRIU's `main`: the table is mapped, and what the engine passed is remembered.

use core::ffi::c_int;
use core::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use fastmig_criu_view_layout::{MAGIC, SIZE};

use crate::memory::{map_shared, word};
use crate::{sys, table};

/// What a restore has beside the table.
pub(crate) struct Restore {
    /// CRIU's first process, which makes the areas.
    pub(crate) main: i32,
    /// The socket on which the engine sends commands; -1 when that is over.
    pub(crate) socket: c_int,
    /// The inode of the socket on which CRIU gets its requests, under more than one number.
    pub(crate) rpc: u64,
}

static MAIN: AtomicI32 = AtomicI32::new(0);
static SOCKET: AtomicI32 = AtomicI32::new(-1);
static RPC: AtomicU64 = AtomicU64::new(0);

/// What a restore has; nothing in a dump, or when CRIU was not started by the engine.
pub(crate) fn restore() -> Option<Restore> {
    let main = MAIN.load(Ordering::Relaxed);
    let (socket, rpc) = (SOCKET.load(Ordering::Relaxed), RPC.load(Ordering::Relaxed));
    (main != 0).then_some(Restore { main, socket, rpc })
}

/// Hears no more commands.
pub(crate) fn close_socket() {
    let socket = SOCKET.swap(-1, Ordering::Relaxed);
    if socket >= 0 {
        sys::call(libc::SYS_close, word(socket), 0, 0, 0, 0, 0);
    }
}

/// The constructor. Without the variable, or with one that makes no sense, everything is forwarded: the engine finds its
/// table untouched then.
pub(crate) extern "C" fn start() {
    let Some(value) = sys::variable(c"FASTMIG_VIEW") else { return };
    let mut numbers = value.split(|byte| *byte == b',').map(number);
    let Some(Some(fd)) = numbers.next() else { return };
    if !map_table(fd) {
        return;
    }
    if let (Some(Some(socket)), Some(Some(rpc))) = (numbers.next(), numbers.next()) {
        // What CRIU executes must not hold it.
        sys::call(libc::SYS_fcntl, word(socket), word(libc::F_SETFD), word(libc::FD_CLOEXEC), 0, 0, 0);
        SOCKET.store(socket, Ordering::Relaxed);
        RPC.store(sys::identity(rpc).map_or(0, |(_, inode)| inode), Ordering::Relaxed);
        MAIN.store(sys::process(), Ordering::Relaxed);
    }
}

fn map_table(fd: c_int) -> bool {
    let Ok(length) = usize::try_from(SIZE) else { return false };
    let mapped = sys::size(fd) == Some(SIZE);
    let mapped = if mapped { map_shared(fd, length) } else { None };
    sys::call(libc::SYS_close, word(fd), 0, 0, 0, 0, 0);
    let Some(address) = mapped else { return false };
    table::set(address);
    let known = table::get().and_then(|table| table.word(0)).map(|word| word.load(Ordering::Acquire));
    if known != Some(MAGIC) {
        table::set(0);
    }
    known == Some(MAGIC)
}

/// A decimal number.
pub(crate) fn number(digits: &[u8]) -> Option<c_int> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0 as c_int, |value, digit| {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit < 10)?;
        value.checked_mul(10)?.checked_add(c_int::from(digit))
    })
}
