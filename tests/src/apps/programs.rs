//! Our own small programs that run in unmodified images: bound into the container, the same on both hosts.

use std::fs;

use anyhow::{Context, Result};

use crate::framework::Session;

/// All of them, and their names.
const PROGRAMS: &[(&str, &str)] = &[
    ("count.js", include_str!("../../fixtures/apps/count.js")),
    ("count.py", include_str!("../../fixtures/apps/count.py")),
    ("heap.js", include_str!("../../fixtures/apps/heap.js")),
    ("numbers.py", include_str!("../../fixtures/apps/numbers.py")),
    ("talk.py", include_str!("../../fixtures/apps/talk.py")),
    ("tree.py", include_str!("../../fixtures/apps/tree.py")),
];

/// Their directory, as hosts see it and as containers do.
const ON_HOST: &str = "/shared/apps";
const IN_CONTAINER: &str = "/app";

/// Puts them where every host of the run sees them.
pub fn provide(session: &Session) -> Result<()> {
    let dir = session.shared_dir().join("apps");
    fs::create_dir_all(&dir)?;
    for (name, source) in PROGRAMS {
        let target = dir.join(name);
        // Written once: a container may have it open.
        if !fs::read_to_string(&target).is_ok_and(|text| text == *source) {
            fs::write(&target, source).with_context(|| format!("cannot write {}", target.display()))?;
        }
    }
    Ok(())
}

/// Arguments of `ctr run` that show them to a container.
pub fn mount() -> Vec<String> {
    vec!["--mount".into(), format!("type=bind,src={ON_HOST},dst={IN_CONTAINER},options=rbind:ro")]
}

/// The path of one of them as the container sees it.
pub fn in_container(name: &str) -> String {
    format!("{IN_CONTAINER}/{name}")
}
