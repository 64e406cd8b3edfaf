//! Files that are never half written, and directories as descriptors.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::Path;

use crate::Error;

pub(crate) fn open_directory(path: &Path) -> Result<OwnedFd, Error> {
    File::open(path).map(OwnedFd::from).map_err(|e| Error::io("open", path, e))
}

/// Writes a file that is either the old one or the new one, never half of it.
pub(crate) fn replace(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = File::create(&temporary)?;
    file.write_all(content)?;
    file.sync_data()?;
    std::fs::rename(&temporary, path)
}

/// An executable shell script for tests. Another program writes it: a descriptor of ours, open for writing, could be
/// inherited by what another test is just starting, and the kernel executes no file that somebody writes (ETXTBSY).
#[cfg(test)]
pub(crate) fn write_script(path: &Path, script: &str) {
    let made = std::process::Command::new("sh")
        .args(["-c", "printf '#!/bin/sh\\n%s\\n' \"$1\" > \"$0\" && chmod 755 \"$0\""])
        .arg(path)
        .arg(script)
        .status();
    assert!(made.is_ok_and(|status| status.success()));
}
