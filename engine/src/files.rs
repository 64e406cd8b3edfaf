//! Files that are never half written.

use std::fs::File;
use std::io::Write;
use std::path::Path;

/// Writes a file that is either the old one or the new one, never half of it.
pub(crate) fn replace(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = File::create(&temporary)?;
    file.write_all(content)?;
    file.sync_data()?;
    std::fs::rename(&temporary, path)
}
