//! What is kept in the cache, where every host of a realm sees it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::command::Cmd;
use super::host::Host;

/// By links where source and target share a file system. Arguments: the two.
const COPY: &str =
    r#"rm -rf "$2" && { cp -al "$1" "$2" 2>/dev/null || { rm -rf "$2" && cp -a "$1" "$2"; }; }"#;

impl Host {
    /// Puts an entry of the cache into `/shared`, and answers its path there. The hosts are to read it only.
    pub(crate) fn share(&self, entry: &Path) -> Result<String> {
        let name = entry.file_name().and_then(|name| name.to_str()).context("a path that is not UTF-8")?;
        let shared = self.shared_dir().join(name);
        if !shared.exists() {
            let part = self.shared_dir().join(format!(".{name}.part"));
            let (source, target) = entry.to_str().zip(part.to_str()).context("a path that is not UTF-8")?;
            Cmd::new(["sh", "-c", COPY, "sh", source, target]).ok()?;
            fs::rename(&part, &shared).with_context(|| format!("cannot make {}", shared.display()))?;
        }
        Ok(format!("/shared/{name}"))
    }
}
