//! Why a worker cannot be started, and the steps that most of it can come from.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// Why a worker could not be started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// A file that the start needs could not be opened.
    #[error("could not open {path:?}")]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Some other step before the start failed.
    #[error("could not {what}")]
    Prepare {
        /// The step.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// CRIU itself could not be started in its place.
    #[error("could not start CRIU {loader:?} in the container")]
    Start {
        /// The loader that was to be executed.
        loader: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

pub(crate) fn open(path: &Path) -> Result<File, LaunchError> {
    File::open(path).map_err(|source| LaunchError::Open { path: path.into(), source })
}

pub(crate) fn c_string(text: &str) -> Result<CString, LaunchError> {
    CString::new(text)
        .map_err(|e| LaunchError::Prepare { what: "form CRIU's command line", source: e.into() })
}

pub(crate) fn c_strings(texts: &[String]) -> Result<Vec<CString>, LaunchError> {
    texts.iter().map(|text| c_string(text)).collect()
}
