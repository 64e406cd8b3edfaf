//! The CRIU that FastMig ships: the newest Debian package's program with its loader and libraries, in one directory.
//!
//! Run as `LOADER --inhibit-cache --library-path LIB criu`, it needs nothing of the system that it runs on.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::cache::Cache;
use super::command::Cmd;
use super::dist;
use super::mounts::remove_tree;
use super::recipe::{Equipment, Generation};
use super::rootfs::host_root;

/// The generation whose CRIU is shipped: the first one that can dump TCP sockets on today's kernels.
const SOURCE: Generation = Generation::Forky;

/// Changes when the way of making the bundle does.
const REVISION: u32 = 5;

const PROGRAM: &str = "criu";
const LOADER: &str = "ld-linux-x86-64.so.2";
const LIBRARIES: &str = "lib";
const PLUGINS: &str = "plugins";
/// What keeps that directory there where packages know files only: CRIU does not start without it.
const NO_PLUGINS: (&str, &str) =
    ("plugins/README", "CRIU finds its plug-ins here, and nowhere else. FastMig brings none.\n");
const VIEW: &str = "lib/libfastmig_view.so";

/// A path compiled into a program, and the one that takes its place.
///
/// Our CRIU runs in the mount namespace of a container that may be hostile, whose files must decide nothing.
struct Redirection {
    from: &'static [u8],
    to: &'static [u8],
}

/// The loader's list of libraries to preload: in the directory that FastMig mounts read-only there.
const PRELOAD: Redirection = Redirection { from: b"/etc/ld.so.preload\0", to: b"/dev/.fastmig/pre1\0" };

/// What CRIU has learnt of the kernel: in its working directory, which lies on the host. The name changes with what there is to
/// learn.
const KERNEL_CACHE: Redirection = Redirection { from: b"/run/criu.kdat\0", to: b"criu-2.kdat\0" };

/// Whether the kernel has AppArmor: no container shows it. FastMig says it in CRIU's working directory.
const APPARMOR: Redirection = Redirection { from: b"/sys/kernel/security/apparmor\0", to: b"apparmor\0" };

/// What `bundle.json` says.
#[derive(Debug, Serialize)]
struct Manifest {
    criu_version: String,
    debian_package: String,
    loader: &'static str,
    libraries: &'static str,
    program: &'static str,
    plugins: &'static str,
    files: BTreeMap<String, String>,
}

/// The bundle in the cache: a directory that holds `criu/`.
pub fn cached(cache: &Cache) -> Result<PathBuf> {
    let root = host_root(cache, SOURCE, Equipment::Plain)?;
    let recipe = format!("{REVISION}\n{}", root.display());
    cache.get("bundles", "criu", &recipe, |target| make(&root, &target.join("criu")))
}

/// Copies the bundle to `out/criu`, in place of an older one.
pub fn export(cache: &Cache, out: &Path) -> Result<PathBuf> {
    let source = cached(cache)?;
    let target = out.join("criu");
    fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    remove_tree(&target)?;
    copy_tree(&source.join("criu"), &target)?;
    add_view(&target)?;
    Ok(target)
}

/// Adds the library that CRIU is started under, which is ours and no part of the cache, to a copy of the bundle.
pub(crate) fn add_view(bundle: &Path) -> Result<()> {
    let content = fs::read(dist::view()?)?;
    let path = bundle.join(VIEW);
    fs::write(&path, &content)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    let manifest = bundle.join("bundle.json");
    let mut description: serde_json::Value = serde_json::from_slice(&fs::read(&manifest)?)?;
    description["view"] = VIEW.into();
    description["files"][VIEW] = hex::encode(Sha256::digest(&content)).into();
    fs::write(&manifest, serde_json::to_string_pretty(&description)? + "\n")?;
    Ok(())
}

/// Copies a tree with its attributes.
pub(crate) fn copy_tree(source: &Path, target: &Path) -> Result<()> {
    let (source, target) = (source.to_str(), target.to_str());
    let (source, target) = source.zip(target).context("a path that is not UTF-8")?;
    Cmd::new(["cp", "-a", "--", source, target]).ok().map(drop)
}

fn make(root: &Path, target: &Path) -> Result<()> {
    fs::create_dir_all(target.join(LIBRARIES))?;
    fs::create_dir_all(target.join(PLUGINS))?;
    fs::write(target.join(NO_PLUGINS.0), NO_PLUGINS.1)?;
    let mut files = BTreeMap::new();
    for (source, name) in parts(root)? {
        let content = fs::read(root.join(source.trim_start_matches('/')))
            .with_context(|| format!("cannot read {source}"))?;
        let content = match name.as_str() {
            LOADER => PRELOAD.apply(content)?,
            PROGRAM => APPARMOR.apply(KERNEL_CACHE.apply(content)?)?,
            _ => content,
        };
        fs::write(target.join(&name), &content)?;
        fs::set_permissions(target.join(&name), fs::Permissions::from_mode(0o755))?;
        files.insert(name, hex::encode(Sha256::digest(&content)));
    }
    let manifest = Manifest {
        criu_version: version(target)?,
        debian_package: in_root(root, &["dpkg-query", "-W", "-f", "${Version}", "criu"])?,
        loader: LOADER,
        libraries: LIBRARIES,
        program: PROGRAM,
        plugins: PLUGINS,
        files,
    };
    fs::write(target.join("bundle.json"), serde_json::to_string_pretty(&manifest)? + "\n")?;
    Ok(())
}

/// What goes in: where it is in the root file system, and its name in the bundle.
fn parts(root: &Path) -> Result<Vec<(String, String)>> {
    let program = in_root(root, &["sh", "-c", "command -v criu"])?.trim().to_owned();
    let listing = in_root(root, &["ldd", &program])?;
    let mut parts = vec![(program, PROGRAM.to_owned())];
    parts.extend(libraries(&listing)?);
    Ok(parts)
}

/// The loader and libraries in the answer of `ldd`.
fn libraries(listing: &str) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for line in listing.lines().map(str::trim) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [name, "=>", "not", "found"] => bail!("CRIU's library {name} is missing"),
            [name, "=>", path, _] => found.push(((*path).to_owned(), format!("{LIBRARIES}/{name}"))),
            [path, _] if path.ends_with(LOADER) => found.push(((*path).to_owned(), LOADER.to_owned())),
            _ => {}
        }
    }
    if !found.iter().any(|(_, name)| name == LOADER) {
        bail!("CRIU's loader is not in the answer of ldd:\n{listing}");
    }
    Ok(found)
}

fn in_root(root: &Path, argv: &[&str]) -> Result<String> {
    let root = root.to_str().context("a path that is not UTF-8")?;
    Cmd::new([&["chroot", root], argv].concat()).ok()
}

/// Asks the bundle itself, which shows that it runs.
fn version(bundle: &Path) -> Result<String> {
    let path = |name: &str| bundle.join(name).to_string_lossy().into_owned();
    let (loader, libraries, program) = (path(LOADER), path(LIBRARIES), path(PROGRAM));
    let argv = [&loader, "--inhibit-cache", "--library-path", &libraries, &program, "--version"];
    let answer = Cmd::new(argv).ok().context("the bundled CRIU does not run")?;
    let version = answer.lines().find_map(|line| line.strip_prefix("Version: "));
    Ok(version.with_context(|| format!("no version in {answer:?}"))?.trim().to_owned())
}

impl Redirection {
    /// Replaces the path, which must be there exactly once, and leaves every other byte where it was: the path's own end may
    /// be another text of the program's, for which linkers keep no second copy.
    fn apply(&self, mut program: Vec<u8>) -> Result<Vec<u8>> {
        let places: Vec<usize> =
            (0..program.len()).filter(|&at| program[at..].starts_with(self.from)).collect();
        let [place] = places.as_slice() else {
            bail!(
                "{:?} is in the program {} times, not once",
                self.from.escape_ascii().to_string(),
                places.len()
            );
        };
        program[*place..*place + self.to.len()].copy_from_slice(self.to);
        Ok(program)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_moves_and_nothing_else_changes() {
        let loader = b"ELF...\0/etc/ld.so.preload\0/etc/ld.so.cache\0".to_vec();
        assert_eq!(PRELOAD.apply(loader).unwrap(), b"ELF...\0/dev/.fastmig/pre1\0/etc/ld.so.cache\0");
        assert_eq!(KERNEL_CACHE.apply(b"a/run/criu.kdat\0b".to_vec()).unwrap(), b"acriu-2.kdat\0at\0b");
    }

    #[test]
    fn a_program_without_the_path_or_with_two_is_refused() {
        assert!(PRELOAD.apply(b"ELF".to_vec()).is_err());
        assert!(PRELOAD.apply(b"/etc/ld.so.preload.d\0".to_vec()).is_err());
        assert!(PRELOAD.apply(b"/etc/ld.so.preload\0/etc/ld.so.preload\0".to_vec()).is_err());
    }

    #[test]
    fn libraries_are_found_and_missing_ones_reported() {
        let listing = "\tlinux-vdso.so.1 (0x1)\n\tlibc.so.6 => /usr/lib/libc.so.6 (0x2)\n\t/lib64/ld-linux-x86-64.so.2 (0x3)\n";
        let found = libraries(listing).unwrap();
        assert_eq!(found[0], ("/usr/lib/libc.so.6".to_owned(), "lib/libc.so.6".to_owned()));
        assert_eq!(found[1], ("/lib64/ld-linux-x86-64.so.2".to_owned(), LOADER.to_owned()));
        assert!(libraries("\tlibx.so => not found\n").is_err());
        assert!(libraries("").is_err());
    }
}
