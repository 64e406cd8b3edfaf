//! Is the container's command there? runc finds out when it creates a container, but with an init above the
//! command it would find the init. This asks the same question, of the container's own files, in runc's words.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{openat2, OFlag, OpenHow, ResolveFlag};
use nix::sys::stat::{fstat, Mode, SFlag};

use crate::{Error, Key};

/// Checks that `command` can be found in the root of process `pid`, as Go's `exec.LookPath` would find it.
///
/// # Errors
/// [`Error::Command`] with runc's sentence when it cannot.
pub(crate) fn check_command(
    key: &Key,
    pid: i32,
    command: &str,
    search_path: Option<&str>,
    cwd: &str,
) -> Result<(), Error> {
    let root_path = PathBuf::from(format!("/proc/{pid}/root"));
    let root = File::open(&root_path).map_err(|e| Error::io("open", &root_path, e))?;
    let executable = |path: &Path| is_executable(&root, path);
    if command.contains('/') {
        return executable(&Path::new(cwd).join(command)).map_err(|errno| {
            let reason = words(errno);
            tracing::debug!(container = key.id(), command, reason, "command not executable");
            Error::Command(match errno {
                Errno::EACCES => format!("exec: {command:?}: {reason}"),
                Errno::EISDIR => format!("exec: {command:?}: is a directory"),
                _ => format!("exec: {command:?}: stat {command}: {reason}"),
            })
        });
    }
    let found = search_path
        .unwrap_or_default()
        .split(':')
        .any(|directory| executable(&Path::new(cwd).join(directory).join(command)).is_ok());
    if found {
        return Ok(());
    }
    Err(Error::Command(format!("exec: {command:?}: executable file not found in $PATH")))
}

/// A regular file with an execute bit, reached without leaving `root`.
fn is_executable(root: &impl AsFd, path: &Path) -> Result<(), Errno> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let file = openat2(root, path, how)?;
    let status = fstat(&file)?;
    if status.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits() {
        return Err(Errno::EISDIR);
    }
    let any_execute = (Mode::S_IXUSR | Mode::S_IXGRP | Mode::S_IXOTH).bits();
    if status.st_mode & any_execute == 0 {
        return Err(Errno::EACCES);
    }
    Ok(())
}

/// An errno as Go writes it.
fn words(errno: Errno) -> String {
    errno.desc().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(command: &str, path: Option<&str>) -> Result<(), String> {
        let key = Key::new("n", "c").unwrap();
        let pid = i32::try_from(std::process::id()).unwrap();
        check_command(&key, pid, command, path, "/").map_err(|e| e.to_string())
    }

    #[test]
    fn a_command_is_found_as_runc_finds_it() {
        assert_eq!(check("sh", Some("/nonexistent:/bin")), Ok(()));
        assert_eq!(check("/bin/sh", None), Ok(()));
        assert_eq!(check("bin/sh", None), Ok(()));
    }

    #[test]
    fn what_is_missing_is_said_in_runcs_words() {
        assert_eq!(
            check("nope", Some("/bin")).unwrap_err(),
            r#"exec: "nope": executable file not found in $PATH"#
        );
        assert_eq!(
            check("/nope", None).unwrap_err(),
            r#"exec: "/nope": stat /nope: no such file or directory"#
        );
        assert_eq!(check("/etc/passwd", None).unwrap_err(), r#"exec: "/etc/passwd": permission denied"#);
        assert_eq!(check("/etc", None).unwrap_err(), r#"exec: "/etc": is a directory"#);
    }
}
