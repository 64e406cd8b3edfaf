//! What `/proc` says of a process and its threads.

use std::fs;
use std::io;
use std::path::PathBuf;

use crate::Error;

/// When process `host` began, in ticks since boot: tells it from a later one with its pid.
pub(crate) fn start_time(host: i32) -> io::Result<u64> {
    let stat = fs::read(format!("/proc/{host}/stat"))?;
    // Fields are counted from behind the name, which may have anything in it. It is the 22nd.
    field(&stat, 22 - 3).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The program that process `host` runs, as it sees it.
pub(crate) fn program(host: i32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{host}/exe")).ok()
}

fn field(stat: &[u8], after_name: usize) -> Option<u64> {
    let name_ends = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(stat.get(name_ends + 2..)?).ok()?;
    rest.split_ascii_whitespace().nth(after_name)?.parse().ok()
}

/// The stack pointers of the threads of process `host`, all of which must stand still.
pub(crate) fn stack_pointers(host: i32) -> Result<Vec<u64>, Error> {
    let list = |e: io::Error| Error::process("list the threads", host)(e);
    let mut pointers = Vec::new();
    for thread in fs::read_dir(format!("/proc/{host}/task")).map_err(list)? {
        let name = thread.map_err(list)?.file_name();
        let Some(thread) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        if let Some(pointer) = stack_pointer(host, thread)? {
            pointers.push(pointer);
        }
    }
    Ok(pointers)
}

/// Nothing for a thread that is over.
///
/// From `syscall`: the field in `stat` (kstkesp) is zero for all that live.
fn stack_pointer(host: i32, thread: i32) -> Result<Option<u64>, Error> {
    const ATTEMPTS: u32 = 50;
    let directory = PathBuf::from(format!("/proc/{host}/task/{thread}"));
    for attempt in 0..ATTEMPTS {
        let state = match fs::read(directory.join("stat")) {
            Ok(stat) => stat.iter().rposition(|b| *b == b')').and_then(|at| stat.get(at + 2).copied()),
            Err(_) => return Ok(None),
        };
        if matches!(state, Some(b'Z' | b'X')) {
            return Ok(None);
        }
        let text = match fs::read_to_string(directory.join("syscall")) {
            Ok(text) => text,
            Err(e) if e.raw_os_error() == Some(libc::ESRCH) => return Ok(None),
            Err(e) => return Err(Error::process("read the stack pointers", host)(e)),
        };
        if let Some(pointer) = pointer_in(&text) {
            return Ok(Some(pointer));
        }
        // Frozen, but not off its processor yet.
        if attempt + 1 < ATTEMPTS {
            std::thread::sleep(std::time::Duration::from_micros(20));
        }
    }
    Err(Error::NotFrozen { process: host, thread })
}

/// `NUMBER SIX-ARGUMENTS SP PC`, or `-1 SP PC` outside of a call, or `running`.
fn pointer_in(text: &str) -> Option<u64> {
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let pointer = words.len().checked_sub(2).filter(|at| *at >= 1)?;
    u64::from_str_radix(words[pointer].strip_prefix("0x")?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stack_pointers_are_read_in_all_forms() {
        assert_eq!(pointer_in("7 0x1 0x2 0x3 0x4 0x5 0x6 0x7ffd10 0x7f00\n"), Some(0x7f_fd10));
        assert_eq!(pointer_in("-1 0x7ffd10 0x7f00\n"), Some(0x7f_fd10));
        assert_eq!(pointer_in("running\n"), None);
        assert_eq!(pointer_in(""), None);
    }

    #[test]
    fn a_name_with_parentheses_hides_no_field() {
        assert_eq!(field(b"12 (a) b) ) S 1 2 3", 1), Some(1));
        let me = i32::try_from(std::process::id()).unwrap();
        assert!(start_time(me).unwrap() > 0);
    }
}
