//! The table `[store]`: where checkpoints at rest are kept, and how.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::sources::Sources;
use super::ConfigError;

/// The highest compression level: beyond it a reader needs more memory than it grants.
const HIGHEST_LEVEL: u32 = 19;

/// More threads would only wait for the link.
const MOST_THREADS: u32 = 64;

/// The longest wait for one answer, in seconds.
const LONGEST_WAIT: u64 = 3600;

/// Where checkpoints at rest are kept, and how. An empty text means that nothing is chosen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Store {
    /// The place that `store:` means.
    pub location: String,
    /// Where a checkpoint lies on its way to a store or from it.
    pub staging: PathBuf,
    /// zstd's level, from 1 to 19.
    pub compression: u32,
    /// Threads that compress; 0 means one for each CPU, at most four.
    pub threads: u32,
    /// Whether checkpoints are encrypted that nobody said it of.
    pub encrypt: bool,
    /// age's public keys: whoever has the identity of one of them can read what is encrypted.
    pub recipients: Vec<String>,
    /// age's secret keys, for what is read.
    pub identity_file: PathBuf,
    /// How many checkpoints of a container stay when another one comes; 0 means all.
    pub keep: u32,
    /// The longest wait for one part on its way, in seconds.
    pub timeout: u64,
    /// The URL of an S3-compatible object store; Amazon's own when empty.
    pub s3_endpoint: String,
    /// Its region.
    pub s3_region: String,
    /// Its keys, in the form of `~/.aws/credentials`; the environment's `AWS_*` when empty.
    pub s3_credentials_file: PathBuf,
    /// User names and passwords of registries, in the form of docker's `config.json`.
    pub registry_credentials_file: PathBuf,
    /// Registries that are spoken to without TLS, as `HOST:PORT`.
    pub plain_http: Vec<String>,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            location: String::new(),
            staging: "/var/lib/fastmig/staging".into(),
            compression: 3,
            threads: 0,
            encrypt: false,
            recipients: Vec::new(),
            identity_file: "/etc/fastmig/identity".into(),
            keep: 0,
            timeout: 120,
            s3_endpoint: String::new(),
            s3_region: "us-east-1".into(),
            s3_credentials_file: PathBuf::new(),
            registry_credentials_file: PathBuf::new(),
            plain_http: Vec::new(),
        }
    }
}

impl Store {
    /// [`Store::timeout`].
    #[must_use]
    pub fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }

    /// How many threads compress.
    #[must_use]
    pub fn threads(&self) -> u32 {
        if self.threads > 0 {
            return self.threads;
        }
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        u32::try_from(cpus.min(4)).unwrap_or(1)
    }

    /// Refuses values that nothing could work with.
    pub(super) fn check(&self, sources: &Sources) -> Result<(), ConfigError> {
        let refuse = |key: &str, cause: String, remedy: String| Err(sources.error(key, cause, remedy));
        if self.compression == 0 || self.compression > HIGHEST_LEVEL {
            let cause = format!("store.compression is {}, no possible level", self.compression);
            return refuse("store.compression", cause, format!("give a level from 1 to {HIGHEST_LEVEL}"));
        }
        if self.threads > MOST_THREADS {
            let cause = format!("store.threads is {}, too many", self.threads);
            return refuse("store.threads", cause, format!("give a number from 0 to {MOST_THREADS}"));
        }
        if self.timeout == 0 || self.timeout > LONGEST_WAIT {
            let cause = format!("store.timeout is {}, no possible time limit", self.timeout);
            return refuse("store.timeout", cause, format!("give seconds from 1 to {LONGEST_WAIT}"));
        }
        for (key, path, optional) in [
            ("store.staging", &self.staging, false),
            ("store.identity_file", &self.identity_file, false),
            ("store.s3_credentials_file", &self.s3_credentials_file, true),
            ("store.registry_credentials_file", &self.registry_credentials_file, true),
        ] {
            let unset = optional && path == Path::new("");
            if !unset && !path.is_absolute() {
                let cause = format!("{key} is {path:?}, which depends on where FastMig is started");
                return refuse(key, cause, "give a path that begins with /".into());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::Config;
    use std::path::Path;

    #[test]
    fn what_nothing_could_work_with_is_refused_with_its_line() {
        for (text, cause) in [
            ("compression = 0", "level"),
            ("compression = 22", "level"),
            ("threads = 1000", "too many"),
            ("timeout = 0", "time limit"),
            ("staging = \"x\"", "begins with /"),
            ("s3_credentials_file = \"x\"", "begins with /"),
        ] {
            let text = format!("[store]\n{text}\n");
            let error = Config::parse(&text, Path::new("/c.toml")).unwrap_err().to_string();
            assert!(error.starts_with("/c.toml, line 2: ") && error.contains(cause), "{error}");
        }
    }
}
