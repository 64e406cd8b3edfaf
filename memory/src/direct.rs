//! Memory that devices write by themselves: direct I/O. The page tables tell of it when it begins, not when it ends.

use std::fs;

use crate::mappings::Known;

/// `O_DIRECT`, as `fdinfo` tells it.
const O_DIRECT: u32 = 0o40000;

/// Whether the process may have given memory to the kernel to be filled later, by nobody's call: a ring of `io_setup`.
pub(crate) fn is_asynchronous(mappings: &[Known]) -> bool {
    mappings.iter().any(|mapping| mapping.name.starts_with("/[aio]"))
}

/// Whether process `host` has a file open for direct I/O, and so may be in a call that a device works for.
pub(crate) fn is_possible(host: i32) -> bool {
    let Ok(files) = fs::read_dir(format!("/proc/{host}/fdinfo")) else { return false };
    files.flatten().any(|file| fs::read_to_string(file.path()).is_ok_and(|text| has_flag(&text)))
}

fn has_flag(fdinfo: &str) -> bool {
    let flags = fdinfo.lines().find_map(|line| line.strip_prefix("flags:"));
    flags
        .and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok())
        .is_some_and(|flags| flags & O_DIRECT != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_is_found() {
        assert!(has_flag("pos:\t0\nflags:\t02140000\nmnt_id:\t5\n"));
        assert!(!has_flag("pos:\t0\nflags:\t02100000\nmnt_id:\t5\n"));
        assert!(!has_flag(""));
    }

    #[test]
    fn a_ring_is_known_by_its_name() {
        let ring = Known { name: "/[aio] (deleted)".into(), ..Known::default() };
        assert!(is_asynchronous(&[Known::default(), ring]));
        assert!(!is_asynchronous(&[Known::default()]));
    }
}
