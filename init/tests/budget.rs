//! What every container pays: the size, the memory and the wake-ups of the init as it is shipped.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{root, Container, Setup};

const DISK_BUDGET: u64 = 1536 * 1024;
const MEMORY_BUDGET_KB: u64 = 1024;

/// The static program: the one given, or one built for this test.
fn shipped() -> PathBuf {
    if let Some(given) = std::env::var_os("FASTMIG_INIT") {
        return given.into();
    }
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("static");
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--locked", "--package", "fastmig-init", "--profile", "tiny"])
        .arg("--target-dir")
        .arg(&target)
        // Named even though it is the host: the flags must not reach build scripts and macros.
        .args(["--target", &triple])
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env("RUSTFLAGS", "-C target-feature=+crt-static -C relocation-model=static")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .unwrap();
    assert!(built.success());
    target.join(triple).join("tiny/fastmig-init")
}

fn number(text: &str, field: &str) -> u64 {
    let line = text.lines().find(|line| line.starts_with(field)).unwrap_or_else(|| panic!("no {field}"));
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn the_init_stays_within_its_budget() {
    let program = shipped();
    let bytes = fs::read(&program).unwrap();
    let size = u64::try_from(bytes.len()).unwrap();
    assert!(size <= DISK_BUDGET, "{size} bytes on disk");
    assert!(!bytes.windows(10).any(|window| window == b"/ld-linux-"), "it needs a dynamic loader");
    if !root() {
        return;
    }
    let setup = Setup { init: Some(program), ..Setup::default() };
    let container = Container::start_with(setup, &["sleep", "1000"]);
    let client = container.client();
    for state in ["standby", "running", "standby again"] {
        match state {
            "running" => drop(client.run()),
            "standby again" => client.stop(libc::SIGKILL),
            _ => {}
        }
        check_idle(&container, state, size);
    }
}

fn check_idle(container: &Container, state: &str, size: u64) {
    container.wait_until_idle();
    let read = |file: &str| fs::read_to_string(format!("/proc/{}/{file}", container.init)).unwrap();
    let status = read("status");
    let (resident, proportional) = (number(&status, "VmRSS"), number(&read("smaps_rollup"), "Pss:"));
    println!("{state}: {size} bytes on disk, VmRSS {resident} kB, Pss {proportional} kB");
    assert!(resident <= MEMORY_BUDGET_KB, "{resident} kB resident in {state}");
    assert_eq!(number(&status, "Threads"), 1);
}
