//! `cargo xtask lint`: what a change must satisfy besides its tests. All checks run; all failures are told.

use anyhow::{bail, Result};
use fastmig_tests::framework::dist::{cargo, repository};
use fastmig_tests::framework::Cmd;

pub(crate) fn run() -> Result<()> {
    let root = repository().to_string_lossy().into_owned();
    let check = |arguments: &[&str]| Cmd::new([&[cargo().as_str()], arguments].concat()).dir(root.as_str());
    let checks = [
        check(&["fmt", "--all", "--check"]),
        check(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]),
        check(&["doc", "--workspace", "--no-deps", "--document-private-items"])
            .env("RUSTDOCFLAGS", "-Dwarnings"),
    ];
    let mut failures = Vec::new();
    for check in checks {
        if !check.pass_through()?.success() {
            failures.push(check.line());
        }
    }
    if !failures.is_empty() {
        bail!("{} of 3 checks failed:\n  {}", failures.len(), failures.join("\n  "));
    }
    println!("format, clippy and documentation are clean");
    Ok(())
}
