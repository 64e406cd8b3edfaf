//! Where the programs come from, and where they go.

use std::path::{Path, PathBuf};

use crate::{Error, Site};

/// Programs that no package manager brings.
const LOCAL_DIR: &str = "/usr/local/bin";

/// What containers see at `/dev/.fastmig`: the init and CRIU.
pub(crate) const RUNTIME_DIR: &str = "/usr/lib/fastmig/runtime";

/// The programs of a host, and the init.
pub(crate) const PROGRAMS: &[&str] =
    &["fastmig", "containerd-shim-fastmig-v1", "fastmigd", "fastmig-store", "fastmig-hook", "fastmig-report"];
pub(crate) const INIT: &str = "fastmig-init";

/// The programs that an installation is about.
#[derive(Debug, Clone)]
pub struct Source {
    /// The directory with `bin/` and `libexec/`; nothing when the programs are in their place already.
    pub(crate) from: Option<PathBuf>,
    /// Where the host finds the programs.
    pub(crate) programs_dir: PathBuf,
}

impl Source {
    /// A directory as `cargo xtask build` and `cargo xtask bundle` make it: `bin/` and `libexec/`.
    ///
    /// # Errors
    /// When something is missing there.
    pub fn directory(from: &Path) -> Result<Self, Error> {
        let programs = PROGRAMS.iter().map(|name| from.join("bin").join(name));
        let runtime = [INIT, "criu/bundle.json"].map(|name| from.join("libexec").join(name));
        match programs.chain(runtime).find(|path| !path.is_file()) {
            Some(missing) => Err(Error::NothingToInstall { missing }),
            None => Ok(Self { from: Some(from.to_owned()), programs_dir: LOCAL_DIR.into() }),
        }
    }

    /// What the program at `executable` belongs to: such a directory, or what a package has put into its place, which
    /// must be so in the tree that is installed into.
    ///
    /// # Errors
    /// When it lies alone.
    pub fn of_program(executable: &Path, site: &Site) -> Result<Self, Error> {
        let dir = executable.parent().unwrap_or(Path::new("/"));
        let around = dir.parent().unwrap_or(dir);
        if around.join("libexec").join(INIT).is_file() {
            return Self::directory(around);
        }
        let runtime = PathBuf::from(RUNTIME_DIR).join(INIT);
        match PROGRAMS.iter().map(|name| dir.join(name)).chain([runtime]).find(|path| !site.has_file(path)) {
            Some(missing) => Err(Error::NothingToInstall { missing }),
            None => Ok(Self { from: None, programs_dir: dir.to_owned() }),
        }
    }

    /// A shipped configuration, with the programs named where they are.
    pub(crate) fn in_place(&self, shipped: &str) -> String {
        shipped.replace(LOCAL_DIR, &self.programs_dir.to_string_lossy())
    }

    /// A program of the host.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.programs_dir.join(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("bin")).unwrap();
        std::fs::write(dir.path().join("bin/fastmig"), "").unwrap();
        let error = Source::directory(dir.path()).unwrap_err().to_string();
        assert!(error.contains("bin/containerd-shim-fastmig-v1") && error.contains("--from DIR"), "{error}");
        let host = Site::new(Path::new("/")).unwrap();
        let error = Source::of_program(&dir.path().join("bin/fastmig"), &host).unwrap_err().to_string();
        assert!(error.contains("bin/containerd-shim-fastmig-v1"), "{error}");
    }

    #[test]
    fn what_a_package_has_brought_must_be_in_the_tree() {
        let tree = tempfile::tempdir().unwrap();
        let site = Site::new(tree.path()).unwrap();
        let packaged = || Source::of_program(Path::new("/usr/bin/fastmig"), &site);
        assert!(matches!(packaged().unwrap_err(), Error::NothingToInstall { .. }));
        for name in PROGRAMS
            .iter()
            .map(|name| format!("usr/bin/{name}"))
            .chain([format!("{}/{INIT}", &RUNTIME_DIR[1..])])
        {
            let path = tree.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        assert_eq!(packaged().unwrap().from, None);
    }

    #[test]
    fn a_program_finds_the_directory_that_it_was_built_into() {
        let dir = tempfile::tempdir().unwrap();
        let programs = PROGRAMS.iter().map(|name| format!("bin/{name}"));
        for name in programs.chain(["libexec/fastmig-init".into(), "libexec/criu/bundle.json".into()]) {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let site = Site::new(dir.path()).unwrap();
        let source = Source::of_program(&dir.path().join("bin/fastmig"), &site).unwrap();
        assert_eq!(source.from.as_deref(), Some(dir.path()));
        assert_eq!(source.program("fastmig"), Path::new("/usr/local/bin/fastmig"));
    }
}
