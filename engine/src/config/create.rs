//! The table `[create]`: what a container may have that is made here for a migration from another host. The crate
//! `fastmig-recreate` makes it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::sources::Sources;
use super::ConfigError;

/// What a container made for another host may have beyond what is harmless.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Create {
    /// Whether it may be privileged: such a container owns the host.
    pub privileged: bool,
    /// Whether it may use the host's network.
    pub host_network: bool,
    /// Capabilities that it may have beyond docker's default ones, without `CAP_`.
    pub capabilities: Vec<String>,
    /// `/OF/THE/SOURCE:/OF/THIS/HOST`: directories of the source, and those of this host that stand in for them, with all
    /// that is below. The same path twice means that both hosts have it.
    pub binds: Vec<String>,
    /// Whether it may use a volume that is there already, with what is in it.
    pub existing_volumes: bool,
}

impl Default for Create {
    fn default() -> Self {
        Self {
            privileged: false,
            host_network: true,
            capabilities: Vec::new(),
            binds: Vec::new(),
            existing_volumes: false,
        }
    }
}

impl Create {
    /// [`Create::binds`], as paths.
    #[must_use]
    pub fn binds(&self) -> BTreeMap<PathBuf, PathBuf> {
        self.binds.iter().filter_map(|bind| pair(bind)).collect()
    }

    /// Refuses values that nothing could work with.
    pub(super) fn check(&self, sources: &Sources) -> Result<(), ConfigError> {
        if let Some(capability) = self.capabilities.iter().find(|name| !is_capability(name)) {
            let cause = format!("create.capabilities has {capability:?}, no capability");
            let remedy = "give names such as \"NET_ADMIN\", without CAP_".into();
            return Err(sources.error("create.capabilities", cause, remedy));
        }
        if let Some(bind) = self.binds.iter().find(|bind| pair(bind).is_none()) {
            let cause = format!("create.binds has {bind:?}, which is no pair of absolute paths");
            let remedy = "give pairs such as \"/of/the/source:/of/this/host\"".into();
            return Err(sources.error("create.binds", cause, remedy));
        }
        Ok(())
    }
}

/// Two absolute paths.
fn pair(bind: &str) -> Option<(PathBuf, PathBuf)> {
    let (from, to) = bind.split_once(':')?;
    let (from, to) = (PathBuf::from(from), PathBuf::from(to));
    (from.is_absolute() && to.is_absolute()).then_some((from, to))
}

fn is_capability(name: &str) -> bool {
    let letters = name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
    letters && !name.is_empty() && !name.starts_with("CAP_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn wrong_values_are_named_with_their_line() {
        for (text, told) in [
            ("[create]\ncapabilities = [\"CAP_X\"]\n", "CAP_X"),
            ("[create]\nbinds = [\"/srv\"]\n", "/srv"),
            ("[create]\nbinds = [\"/srv:data\"]\n", "/srv:data"),
        ] {
            let error = super::super::Config::parse(text, Path::new("/c")).unwrap_err().to_string();
            assert!(error.starts_with("/c, line 2: ") && error.contains(told), "{error}");
        }
        let create = Create { binds: vec!["/srv:/data".into()], ..Create::default() };
        assert_eq!(create.binds(), BTreeMap::from([("/srv".into(), "/data".into())]));
    }
}
