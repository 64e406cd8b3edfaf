//! The bundle that runc gets: the client's, but for the `config.json`.
//!
//! The client's own files are never written to: it may use its bundle again, compare it, or keep it read-only.
//! runc gets a directory of ours with the rewritten `config.json` and a link to each other entry of the client's.

use std::io;
use std::os::unix::fs::{symlink, DirBuilderExt};
use std::path::{Path, PathBuf};

use crate::spec::Spec;
use crate::Error;

/// Its name in a container's directory.
const NAME: &str = "bundle";

/// The file that runc reads.
pub(crate) const SPEC: &str = "config.json";

/// Makes, in a container's `directory`, the stand-in for the client's `original`, and returns its path.
pub(crate) fn stand_in(directory: &Path, original: &Path, spec: &mut Spec) -> Result<PathBuf, Error> {
    // A relative root would lead through one of our links, and runc refuses a root that is reached through a link.
    let original = original.canonicalize().map_err(|e| Error::io("find", original, e))?;
    spec.make_root_absolute(&original);
    let bundle = directory.join(NAME);
    link_entries(&original, &bundle).map_err(|e| Error::io("make", &bundle, e))?;
    spec.store(&bundle.join(SPEC))?;
    Ok(bundle)
}

fn link_entries(original: &Path, bundle: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().mode(0o700).create(bundle)?;
    for entry in original.read_dir()? {
        let name = entry?.file_name();
        if name != SPEC {
            symlink(original.join(&name), bundle.join(&name))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{json, Value};

    #[test]
    fn the_clients_bundle_stays_as_it_was_and_is_seen_through_links() {
        let client = tempfile::tempdir().unwrap();
        let ours = tempfile::tempdir().unwrap();
        let text = json!({ "root": { "path": "rootfs" }, "process": { "args": ["true"] } }).to_string();
        std::fs::write(client.path().join(SPEC), &text).unwrap();
        std::fs::create_dir(client.path().join("rootfs")).unwrap();
        std::fs::write(client.path().join("secret"), "s").unwrap();

        let mut spec = Spec::load(client.path(), &crate::Config::default()).unwrap();
        spec.put_init_above(Path::new("/r"), 3).unwrap();
        let bundle = stand_in(ours.path(), client.path(), &mut spec).unwrap();

        assert_eq!(std::fs::read_to_string(client.path().join(SPEC)).unwrap(), text);
        assert_eq!(std::fs::read_to_string(bundle.join("secret")).unwrap(), "s");
        let made: Value = serde_json::from_slice(&std::fs::read(bundle.join(SPEC)).unwrap()).unwrap();
        let root = client.path().canonicalize().unwrap().join("rootfs");
        assert_eq!(made["root"]["path"], json!(root));
        assert_eq!(made["process"]["args"][4], json!("true"));
    }
}
