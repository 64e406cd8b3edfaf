//! An application of the init's own user must not get at the control socket.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use common::{init_binary, root, Container, Setup};

/// Set for the copy of this test program that runs as the application.
const ROLE: &str = "FASTMIG_TEST_THIEF";

/// Takes every descriptor of `pid` that it can, by number.
fn steal(pid: u32) -> Vec<i32> {
    // SAFETY: takes no pointer.
    let process = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    assert!(process >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: takes no pointer.
    (0..64).filter(|fd| unsafe { libc::syscall(libc::SYS_pidfd_getfd, process, *fd, 0) } >= 0).collect()
}

/// Not a test by itself: what the application does in the test below.
#[test]
fn thief() {
    if std::env::var_os(ROLE).is_none() {
        return;
    }
    let mut victim = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    let from_victim = steal(victim.id());
    victim.kill().unwrap();
    victim.wait().unwrap();
    let readable = ["mem", "environ", "maps", "fd", "exe"]
        .into_iter()
        .filter(|file| {
            let path = Path::new("/proc/1").join(file);
            fs::read_dir(&path).is_ok() || fs::read_link(&path).is_ok() || fs::File::open(&path).is_ok()
        })
        .collect::<Vec<_>>();
    println!("victim {from_victim:?} init {:?} files {readable:?}.", steal(1));
}

#[test]
fn the_control_socket_cannot_be_taken() {
    if !root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
    let copy = |from: PathBuf, name: &str| {
        let to = directory.path().join(name);
        fs::copy(from, &to).unwrap();
        fs::set_permissions(&to, Permissions::from_mode(0o755)).unwrap();
        to
    };
    let program = copy(std::env::current_exe().unwrap(), "thief");
    let user = ["setpriv", "--reuid=12345", "--regid=12345", "--clear-groups", "--inh-caps=-all", "--"];
    let setup = Setup {
        wrapper: user.iter().map(Into::into).collect(),
        init: Some(copy(init_binary(), "fastmig-init")),
        env: vec![(ROLE, "1".into())],
        ..Setup::default()
    };
    let program = program.to_str().unwrap();
    let mut container = Container::start_with(setup, &[program, "--exact", "thief", "--nocapture"]);
    container.run();
    assert_eq!(container.exit_code(), 0, "{}", container.file("stdout"));
    let output = container.file("stdout");
    // The same means work on another process, so it is the init that refuses.
    assert!(output.contains("victim [0, 1, 2"), "{output}");
    assert!(output.contains("init [] files []."), "{output}");
}
