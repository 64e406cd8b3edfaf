//! The CRIU that FastMig ships: forky's program with its own loader and libraries, so that it runs on any
//! host and, through a read-only mount, inside any container (musl, static, distroless, ...).

use std::path::{Path, PathBuf};

use serde::Deserialize;

/// Where the bundle lies and how it is started.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// The bundle's directory as the caller sees it.
    pub host_dir: PathBuf,
    /// The same directory as CRIU sees it after it has joined the container's mount namespace.
    pub inner_dir: PathBuf,
    description: Description,
}

/// `bundle.json`, written when the bundle is made.
#[derive(Debug, Clone, Deserialize)]
struct Description {
    criu_version: String,
    loader: String,
    libraries: String,
    program: String,
    /// The library that shows CRIU memory otherwise; older bundles have none.
    #[serde(default)]
    view: Option<String>,
}

/// Why there is no usable bundle.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The description is missing or unreadable.
    #[error("no CRIU bundle at {path:?}: install FastMig's runtime directory")]
    Missing {
        /// The description that was looked for.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The description is not what `bundle.json` must be.
    #[error("the CRIU bundle's description {path:?} is damaged: install FastMig's runtime directory again")]
    Damaged {
        /// The description.
        path: PathBuf,
        /// Where it is wrong.
        source: serde_json::Error,
    },
}

impl Bundle {
    /// Reads the bundle in `host_dir`, which containers see at `inner_dir`.
    ///
    /// # Errors
    /// When the description is missing or damaged.
    pub fn open(host_dir: &Path, inner_dir: &Path) -> Result<Self, BundleError> {
        let path = host_dir.join("bundle.json");
        let text =
            std::fs::read(&path).map_err(|source| BundleError::Missing { path: path.clone(), source })?;
        let description =
            serde_json::from_slice(&text).map_err(|source| BundleError::Damaged { path, source })?;
        Ok(Self { host_dir: host_dir.into(), inner_dir: inner_dir.into(), description })
    }

    /// The CRIU version that the bundle was made from.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.description.criu_version
    }

    /// The loader's file on the host: it is what gets executed.
    #[must_use]
    pub fn loader(&self) -> PathBuf {
        self.host_dir.join(&self.description.loader)
    }

    /// The library that shows CRIU memory otherwise ([`view`](crate::view)), on the host; older bundles have none.
    #[must_use]
    pub fn view(&self) -> Option<PathBuf> {
        self.description.view.as_ref().map(|view| self.host_dir.join(view))
    }

    /// The command line up to and without CRIU's own arguments, for a CRIU that runs with the bundle at `dir`, under the
    /// library if `viewed`.
    ///
    /// `--inhibit-cache` keeps the loader from reading the container's `/etc/ld.so.cache`; the bundle's loader
    /// is also patched not to read its `/etc/ld.so.preload`.
    fn loader_arguments(&self, dir: &Path, viewed: bool) -> Vec<String> {
        let inside = |name: &str| dir.join(name).to_string_lossy().into_owned();
        let mut arguments = vec![
            inside(&self.description.loader),
            "--inhibit-cache".into(),
            "--library-path".into(),
            inside(&self.description.libraries),
        ];
        if let Some(view) = self.description.view.as_ref().filter(|_| viewed) {
            arguments.extend(["--preload".into(), inside(view)]);
        }
        arguments.push(inside(&self.description.program));
        arguments
    }

    /// The command line of a CRIU that works in descriptor `work`, up to and without what it is to do.
    ///
    /// No configuration file and no plug-in is taken from the container, whose content is hostile input.
    #[must_use]
    pub fn global_arguments(&self, dir: &Path, work: i32, viewed: bool) -> Vec<String> {
        let mut arguments = self.loader_arguments(dir, viewed);
        let plugins = dir.join("plugins").to_string_lossy().into_owned();
        arguments.extend(["--no-default-config".into(), "--libdir".into(), plugins]);
        arguments.extend(["--work-dir".into(), format!("/proc/self/fd/{work}")]);
        arguments
    }
}
