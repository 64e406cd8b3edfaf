//! The image of our own programs, whose memory the tests move: one static file on busybox.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::layer::Layer;
use super::{base_layer, busybox_tree, layout, recipe, reference, REVISION};
use crate::framework::cache::Cache;
use crate::framework::dist;
use crate::framework::mounts::remove_tree;

/// The image's name.
pub const NAME: &str = "programs";

/// The file, which takes the name of a program as its first argument.
pub const PROGRAM: &str = "/usr/local/bin/fastmig-test-programs";

/// The archive, made when the cache has none of the programs as they are now.
pub(super) fn archive(cache: &Cache) -> Result<PathBuf> {
    let program = dist::build_test_programs()?;
    let content = fs::read(&program).with_context(|| format!("cannot read {}", program.display()))?;
    let base = busybox_tree(cache)?;
    let hash = hex::encode(Sha256::digest(&content));
    cache.get("images", NAME, &format!("{REVISION}\n{}\n{hash}", base.display()), |target| {
        build(cache, &program, &base, target)
    })
}

fn build(cache: &Cache, program: &Path, base: &Path, target: &Path) -> Result<()> {
    let scratch = cache.root().join("images").join(format!(".{NAME}.build"));
    remove_tree(&scratch)?;
    let file = scratch.join("tree").join(PROGRAM.trim_start_matches('/'));
    fs::create_dir_all(file.parent().unwrap_or(&scratch))?;
    fs::copy(program, &file)?;
    let own = Layer::write(&scratch.join("tree"), &scratch.join("layer.tar"))?;
    let config = json!({ "Env": [recipe::PATH], "Cmd": [PROGRAM], "WorkingDir": "/" });
    layout::write(target, &reference(NAME), &config, &[base_layer(cache, recipe::BUSYBOX.name, base)?, own])?;
    remove_tree(&scratch)
}
