//! The validation programs of opencontainers/runtime-tools, built, with the root file system that they unpack.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{ensure, Context, Result};

use crate::framework::bundle::copy_tree;
use crate::framework::cache::Cache;
use crate::framework::{golang, image, Cmd};

const MODULE: &str = "github.com/opencontainers/runtime-tools";
const VERSION: &str = "v0.9.0";

const GO_MOD: &str = include_str!("../../../../fixtures/runtime-tools/go.mod");
const GO_SUM: &str = include_str!("../../../../fixtures/runtime-tools/go.sum");

/// Changes when the way of building does.
const REVISION: u32 = 1;

/// What the programs look for beside them: the program that looks around in a container, and a root file system.
const INSIDE: &str = "runtimetest";
const ROOT: &str = "rootfs-amd64.tar.gz";

/// The seccomp filter of the programs' containers knows no statx, without which a runc of today cannot finish a
/// container's set-up.
const FILTER: &str = "generate/seccomp/seccomp_default.go";
const KNOWN_CALL: &str = "\"stat\",";
const MISSING_CALL: &str = "\"statx\",";

/// The root file system is busybox with a shell that is a file, for hooks run it on the host.
const PACK_ROOT: &str = r#"
cp -a "$1" "$2"
cp --remove-destination "$2/usr/bin/busybox" "$2/usr/bin/sh"
tar -C "$2" -czf "$3" .
"#;

/// The directory that holds all of it, made when the cache has none.
pub(super) fn built(cache: &Cache) -> Result<PathBuf> {
    let root = image::busybox_tree(cache)?;
    let recipe = format!("{REVISION} {VERSION} {} {GO_MOD}{GO_SUM}{PACK_ROOT}", root.display());
    cache.get("programs", "runtime-tools", &recipe, |target| build(&root, target))
}

/// The programs by name, in order.
pub(super) fn names(dir: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let mut names: Vec<String> = entries.collect::<Result<_>>()?;
    names.retain(|name| name != INSIDE && name != ROOT);
    names.sort();
    Ok(names)
}

fn build(root: &Path, target: &Path) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let source = scratch.path().join("runtime-tools");
    copy_tree(&golang::module(MODULE, VERSION)?, &source)?;
    fs::write(source.join("go.mod"), GO_MOD)?;
    fs::write(source.join("go.sum"), GO_SUM)?;
    let filter = source.join(FILTER);
    let text = fs::read_to_string(&filter).with_context(|| format!("cannot read {FILTER}"))?;
    fs::remove_file(&filter)?;
    fs::write(&filter, with_statx(&text)?)?;
    fs::create_dir_all(target)?;
    let out = format!("{}/", target.display());
    golang::go(&source, ["build", "-ldflags=-s -w", "-o", &out, "./validation/...", "./cmd/runtimetest"])?;
    let paths =
        [root, &scratch.path().join("root"), &target.join(ROOT)].map(|path| path.display().to_string());
    let shell = ["sh", "-ec", PACK_ROOT, "sh"].map(String::from);
    Cmd::new(shell.into_iter().chain(paths)).ok().map(drop)
}

fn with_statx(text: &str) -> Result<String> {
    let count = text.matches(KNOWN_CALL).count();
    ensure!(count == 1, "{KNOWN_CALL} is {count} times in {FILTER}, not once: look again");
    Ok(text.replace(KNOWN_CALL, &format!("{KNOWN_CALL} {MISSING_CALL}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_missing_call_joins_the_one_that_is_known() {
        assert_eq!(with_statx("a \"stat\", b").unwrap(), "a \"stat\", \"statx\", b");
        assert!(with_statx("").is_err());
    }
}
