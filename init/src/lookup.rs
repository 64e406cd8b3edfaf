//! Finds the image's command as runc does, which uses Go's `exec.LookPath`: same order, same refusals, same words.

use std::ffi::{CStr, CString};

use fastmig_control::{Errno, ExecFailure, ExecStep};
use nix::sys::stat::{stat, SFlag};
use nix::unistd::{eaccess, AccessFlags};

use crate::sys::wire_errno;

/// Resolves `name` along `path` (the value of `PATH`).
pub(crate) fn find(name: &CStr, path: &[u8]) -> Result<CString, ExecFailure> {
    if name.to_bytes().contains(&b'/') {
        return executable(name).map(|()| name.to_owned());
    }
    if !path.is_empty() {
        for directory in path.split(|byte| *byte == b':') {
            let candidate = join(directory, name);
            if executable(&candidate).is_err() {
                continue;
            }
            if !directory.starts_with(b"/") {
                return Err(ExecFailure { step: ExecStep::Relative, errno: Errno::NOT_FOUND });
            }
            return Ok(candidate);
        }
    }
    Err(ExecFailure { step: ExecStep::Search, errno: Errno::NOT_FOUND })
}

fn join(directory: &[u8], name: &CStr) -> CString {
    let directory = if directory.is_empty() { b"." } else { directory };
    // Neither part holds a NUL: both were C strings.
    CString::new([directory, b"/", name.to_bytes()].concat()).unwrap_or_default()
}

fn executable(file: &CStr) -> Result<(), ExecFailure> {
    let failure = |step| move |errno| ExecFailure { step, errno: wire_errno(errno) };
    let mode = stat(file).map_err(failure(ExecStep::Stat))?.st_mode;
    if SFlag::from_bits_truncate(mode & libc::S_IFMT) == SFlag::S_IFDIR {
        return Err(failure(ExecStep::Access)(nix::errno::Errno::EISDIR));
    }
    match eaccess(file, AccessFlags::X_OK) {
        // Seccomp profiles that do not know the call answer so; the permission bits must do then.
        Err(nix::errno::Errno::ENOSYS | nix::errno::Errno::EPERM) if mode & 0o111 != 0 => Ok(()),
        Err(nix::errno::Errno::ENOSYS | nix::errno::Errno::EPERM) => {
            Err(failure(ExecStep::Access)(nix::errno::Errno::EACCES))
        }
        result => result.map_err(failure(ExecStep::Access)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::*;

    fn script(directory: &Path, name: &str, mode: u32) {
        fs::create_dir_all(directory).unwrap();
        fs::write(directory.join(name), "#!/bin/sh\n").unwrap();
        fs::set_permissions(directory.join(name), Permissions::from_mode(mode)).unwrap();
    }

    fn c_path(path: &Path) -> CString {
        CString::new(path.as_os_str().as_bytes()).unwrap()
    }

    #[test]
    fn the_first_executable_file_on_the_path_is_taken() {
        let root = tempfile::tempdir().unwrap();
        let [a, b, c] = ["a", "b", "c"].map(|name| root.path().join(name));
        fs::create_dir_all(a.join("tool")).unwrap();
        script(&b, "tool", 0o644);
        script(&c, "tool", 0o755);
        let path = [a, b, c.clone()].map(|dir| dir.to_str().unwrap().to_owned()).join(":");
        assert_eq!(find(c"tool", path.as_bytes()), Ok(c_path(&c.join("tool"))));
    }

    #[test]
    fn what_is_not_on_the_path_is_not_found() {
        let missing = Err(ExecFailure { step: ExecStep::Search, errno: Errno::NOT_FOUND });
        for path in ["", "/nonexistent", ":::", "/bin:/usr/bin"] {
            assert_eq!(find(c"no-such-tool", path.as_bytes()), missing);
        }
        assert_eq!(find(c"sh", b""), missing);
        assert_eq!(find(c"", b"/bin"), missing);
    }

    #[test]
    fn a_relative_directory_is_refused_as_go_does() {
        let root = tempfile::tempdir_in(".").unwrap();
        script(root.path(), "tool", 0o755);
        let relative = Path::new(root.path().file_name().unwrap());
        let found = find(c"tool", relative.as_os_str().as_bytes());
        assert_eq!(found, Err(ExecFailure { step: ExecStep::Relative, errno: Errno::NOT_FOUND }));
    }

    #[test]
    fn a_name_with_a_slash_is_taken_as_it_is() {
        let root = tempfile::tempdir().unwrap();
        script(root.path(), "plain", 0o644);
        script(root.path(), "tool", 0o755);
        let failure = |step, errno| Err(ExecFailure { step, errno: Errno::new(errno).unwrap() });
        let at = |name: &str| find(&c_path(&root.path().join(name)), b"");
        assert_eq!(at("tool"), Ok(c_path(&root.path().join("tool"))));
        assert_eq!(at("plain"), failure(ExecStep::Access, libc::EACCES));
        assert_eq!(at("missing"), failure(ExecStep::Stat, libc::ENOENT));
        assert_eq!(at(""), failure(ExecStep::Access, libc::EISDIR));
    }
}
