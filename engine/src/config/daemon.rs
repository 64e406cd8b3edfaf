//! The daemon's settings.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::sources::Sources;
use super::ConfigError;

/// What `fastmigd` listens on, keeps and allows. Where a setting may be left open, it is empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Daemon {
    /// The unix socket, for root alone.
    pub socket: PathBuf,
    /// Address and port for other hosts and operators, by mutual TLS; empty: none.
    pub listen: String,
    /// What must survive a reboot: certificates, journal, operations.
    pub state_dir: PathBuf,
    /// Where checkpoints without a path of their own are put.
    pub checkpoint_dir: PathBuf,
    /// The certificate authority of your own, PEM; empty: the one that `fastmigd init` made.
    pub ca: PathBuf,
    /// This host's certificate by it, PEM.
    pub certificate: PathBuf,
    /// The key of that certificate, PEM.
    pub key: PathBuf,
    /// Connections at a time, on each listener.
    pub max_connections: usize,
    /// Operations at a time.
    pub max_operations: usize,
    /// Seconds that running operations are given when the daemon is stopped.
    pub stop: u64,
    /// Where traces are sent by OTLP over HTTP; empty: nowhere.
    pub otlp: String,
}

impl Default for Daemon {
    fn default() -> Self {
        Self {
            socket: "/run/fastmig/api.sock".into(),
            listen: String::new(),
            state_dir: "/var/lib/fastmig".into(),
            checkpoint_dir: "/var/lib/fastmig/checkpoints".into(),
            ca: PathBuf::new(),
            certificate: PathBuf::new(),
            key: PathBuf::new(),
            max_connections: 256,
            max_operations: 16,
            stop: 60,
            otlp: String::new(),
        }
    }
}

impl Daemon {
    /// [`Daemon::listen`], when there is any.
    #[must_use]
    pub fn listen(&self) -> Option<SocketAddr> {
        self.listen.parse().ok()
    }

    /// Whether certificates of the operator's own authority are used.
    #[must_use]
    pub fn has_own_certificates(&self) -> bool {
        !self.ca.as_os_str().is_empty()
    }

    /// Refuses values that nothing could work with.
    pub(super) fn check(&self, sources: &Sources) -> Result<(), ConfigError> {
        for (key, path) in [
            ("daemon.socket", &self.socket),
            ("daemon.state_dir", &self.state_dir),
            ("daemon.checkpoint_dir", &self.checkpoint_dir),
        ] {
            absolute(key, path, sources)?;
        }
        self.check_certificates(sources)?;
        if !self.listen.is_empty() && self.listen().is_none() {
            let cause = format!("daemon.listen is {:?}, no address with a port", self.listen);
            return Err(sources.error("daemon.listen", cause, "give one such as \"0.0.0.0:7443\"".into()));
        }
        if !self.otlp.is_empty() && !self.otlp.starts_with("http://") {
            let cause = format!("daemon.otlp is {:?}, no address of a collector", self.otlp);
            let remedy =
                "give one such as \"http://127.0.0.1:4318\"; a collector on this host can encrypt".into();
            return Err(sources.error("daemon.otlp", cause, remedy));
        }
        for (key, number) in [
            ("daemon.max_connections", self.max_connections as u64),
            ("daemon.max_operations", self.max_operations as u64),
            ("daemon.stop", self.stop),
        ] {
            if number == 0 || number > 65_536 {
                let cause = format!("{key} is {number}");
                return Err(sources.error(key, cause, "give a number from 1 to 65536".into()));
            }
        }
        Ok(())
    }

    fn check_certificates(&self, sources: &Sources) -> Result<(), ConfigError> {
        let files =
            [("daemon.ca", &self.ca), ("daemon.certificate", &self.certificate), ("daemon.key", &self.key)];
        let given = files.iter().filter(|(_, path)| !path.as_os_str().is_empty());
        for (key, path) in given.clone() {
            absolute(key, path, sources)?;
        }
        if let (Some((key, _)), true) = (given.clone().next(), given.count() < files.len()) {
            let cause = format!("{key} is given without the others");
            let remedy = "give ca, certificate and key, or none of them".into();
            return Err(sources.error(key, cause, remedy));
        }
        Ok(())
    }
}

fn absolute(key: &str, path: &Path, sources: &Sources) -> Result<(), ConfigError> {
    if path.is_absolute() {
        return Ok(());
    }
    let cause = format!("{key} is {path:?}, which depends on where FastMig is started");
    Err(sources.error(key, cause, "give a path that begins with /".into()))
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    fn refused(line: &str) -> String {
        Config::parse(&format!("[daemon]\n{line}\n"), Path::new("/c.toml")).unwrap_err().to_string()
    }

    #[test]
    fn what_cannot_work_is_refused_with_its_line() {
        for (line, cause) in [
            ("listen = \"localhost\"", "no address with a port"),
            ("listen = \"0.0.0.0\"", "no address with a port"),
            ("socket = \"api.sock\"", "depends on where"),
            ("otlp = \"https://x\"", "no address of a collector"),
            ("max_operations = 0", "from 1 to 65536"),
            ("ca = \"/ca.pem\"", "without the others"),
            ("ca = \"ca.pem\"", "depends on where"),
        ] {
            let error = refused(line);
            assert!(error.starts_with("/c.toml, line 2: ") && error.contains(cause), "{line}: {error}");
        }
    }

    #[test]
    fn an_address_with_a_port_is_taken() {
        let text = "[daemon]\nlisten = \"[::]:7443\"\n";
        let (config, _) = Config::parse(text, Path::new("/c.toml")).unwrap();
        assert_eq!(config.daemon.listen().unwrap().port(), 7443);
    }
}
