//! Debian trees in the cache: one for each generation and equipment of hosts, read-only by agreement.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::cache::Cache;
use super::command::Cmd;
use super::recipe::{Equipment, Generation, Recipe};
use super::tools;

/// A tree of a host, made when the cache has none.
pub fn host_root(cache: &Cache, generation: Generation, equipment: Equipment) -> Result<PathBuf> {
    let name = match equipment {
        Equipment::Plain => generation.suite().to_owned(),
        Equipment::Clients => format!("{generation}-clients"),
    };
    root(cache, &name, &Recipe::host(generation, equipment))
}

/// A tree made by `recipe`, kept under `name`.
pub fn root(cache: &Cache, name: &str, recipe: &Recipe) -> Result<PathBuf> {
    cache.get("roots", name, &recipe.arguments().join("\n"), |target| make(recipe, target))
}

/// In a mount namespace of its own, so that an interrupted build leaves no mounts behind.
fn make(recipe: &Recipe, target: &Path) -> Result<()> {
    tools::ensure(tools::FOR_ROOTS)?;
    let target = target.to_str().context("a path that is not UTF-8")?;
    let argv = ["unshare", "--mount", "--propagation", "private", "mmdebstrap"].map(String::from);
    let argv = argv.into_iter().chain(recipe.arguments()).chain([target.to_owned()]);
    Cmd::new(argv).timeout(Duration::from_secs(900)).ok()?;
    Ok(())
}
