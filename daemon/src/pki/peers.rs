//! The other hosts' addresses, by name.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::{name, PkiError, Place};

/// More hosts than any cluster of ours has; a file or a peer that names more is wrong.
const MOST: usize = 10_000;

/// A table of names and addresses, on disk.
#[derive(Debug, Clone)]
pub struct Peers {
    path: PathBuf,
}

impl Peers {
    /// The table in `place`.
    #[must_use]
    pub fn open(place: &Place) -> Self {
        Self { path: place.file("peers.json") }
    }

    /// All of them.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn all(&self) -> Result<BTreeMap<String, String>, PkiError> {
        let all = crate::files::read_json(&self.path).map_err(PkiError::io("read", &self.path))?;
        Ok(all.unwrap_or_default())
    }

    /// The address of a host.
    ///
    /// # Errors
    /// When none of that name is known.
    pub fn address(&self, name: &str) -> Result<String, PkiError> {
        let mut all = self.all()?;
        all.remove(name).ok_or_else(|| {
            let known = all.into_keys().collect::<Vec<_>>().join(", ");
            let known = if known.is_empty() { "none is".into() } else { format!("known are {known}") };
            PkiError::UnknownPeer { name: name.into(), known }
        })
    }

    /// Adds a host, or changes its address.
    ///
    /// # Errors
    /// When the name or the address is not usable, or the file cannot be written.
    pub fn put(&self, name: &str, address: &str) -> Result<(), PkiError> {
        self.merge([(name.to_owned(), address.to_owned())])
    }

    /// Adds several.
    ///
    /// # Errors
    /// As [`Peers::put`].
    pub fn merge(&self, others: impl IntoIterator<Item = (String, String)>) -> Result<(), PkiError> {
        let mut all = self.all()?;
        for (name, address) in others {
            name::check(&name)?;
            check_address(&address)?;
            all.insert(name, address);
        }
        if all.len() > MOST {
            return Err(PkiError::io("add hosts to", &self.path)(std::io::Error::other(
                "there are too many",
            )));
        }
        crate::files::replace_json(&self.path, &all).map_err(PkiError::io("write", &self.path))
    }

    /// Forgets a host; answers whether it was known.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn remove(&self, name: &str) -> Result<bool, PkiError> {
        let mut all = self.all()?;
        let known = all.remove(name).is_some();
        crate::files::replace_json(&self.path, &all).map_err(PkiError::io("write", &self.path))?;
        Ok(known)
    }
}

/// `IP:PORT` or `NAME:PORT`.
pub(super) fn check_address(address: &str) -> Result<(), PkiError> {
    let bad = || PkiError::BadName { name: address.chars().take(80).collect() };
    if address.parse::<std::net::SocketAddr>().is_ok() {
        return Ok(());
    }
    let (host, port) = address.rsplit_once(':').ok_or_else(bad)?;
    port.parse::<u16>().map_err(|_| bad())?;
    name::check(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_added_changed_and_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let peers = Peers::open(&Place::at(dir.path()));
        let error = peers.address("host-b").unwrap_err().to_string();
        assert!(error.contains("fastmigd peers add host-b"), "{error}");
        peers.put("host-b", "10.0.0.2:7443").unwrap();
        peers.put("host-b", "10.0.0.3:7443").unwrap();
        peers.put("host-c", "[::1]:7443").unwrap();
        assert_eq!(peers.address("host-b").unwrap(), "10.0.0.3:7443");
        for bad in ["", "x", "10.0.0.2", "a b:1", "host:99999"] {
            assert!(peers.put("x", bad).is_err(), "{bad:?}");
        }
        assert!(peers.remove("host-b").unwrap());
        assert!(!peers.remove("host-b").unwrap());
        assert_eq!(peers.all().unwrap().len(), 1);
    }
}
