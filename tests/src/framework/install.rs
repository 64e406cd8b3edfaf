//! Puts FastMig into a host: its runtime directory, which containers see read-only, and its programs.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::bundle::{add_view, copy_tree};
use super::fixture;
use super::host::Host;

/// The directory of a host that is mounted into containers.
pub const RUNTIME_DIR: &str = "/usr/lib/fastmig/runtime";

/// Where a host has FastMig's programs.
pub const PROGRAMS_DIR: &str = "/usr/local/bin";

/// Puts CRIU, and the fixture where one is needed, into a host.
pub(crate) fn runtime(host: &Host, bundle: &Path) -> Result<()> {
    let criu = host.outside(RUNTIME_DIR).join("criu");
    copy_tree(&bundle.join("criu"), &criu)?;
    add_view(&criu)?;
    fixture::install(host)
}

impl Host {
    /// Puts FastMig's programs, as [`super::dist::build`] left them in `dist`, into the host.
    pub fn install(&self, dist: &Path) -> Result<()> {
        copy_programs(&dist.join("bin"), &self.outside(PROGRAMS_DIR))?;
        copy_programs(&dist.join("libexec"), &self.outside(RUNTIME_DIR))
    }
}

/// Copies the files in `source`, and renames them into place: a program that runs cannot be overwritten.
fn copy_programs(source: &Path, target: &Path) -> Result<()> {
    let entries = fs::read_dir(source)
        .with_context(|| format!("cannot read {}: cargo xtask build", source.display()))?;
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            let (temporary, name) = (target.join(".part"), target.join(entry.file_name()));
            fs::copy(entry.path(), &temporary)
                .with_context(|| format!("cannot copy {}", entry.path().display()))?;
            fs::rename(&temporary, &name).with_context(|| format!("cannot make {}", name.display()))?;
        }
    }
    Ok(())
}
