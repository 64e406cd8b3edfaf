//! The table `[confinement]`: what the programs that checkpoint and restore must do without.

use caps::{Capability, CapsHashSet};
use serde::{Deserialize, Serialize};

use super::sources::Sources;
use super::ConfigError;

/// Where CRIU stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Outside of the container's confinement, with the capabilities that applications of all kinds need.
    #[default]
    Helper,
    /// A process of the container, with two capabilities more than its others.
    InContainer,
}

/// What the programs that checkpoint and restore must do without.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Confinement {
    /// Where CRIU stands.
    pub mode: Mode,
    /// Capabilities that CRIU is not given, though some applications cannot be moved without: `CAP_NET_ADMIN`, ...
    pub withhold: Vec<String>,
    /// Whether containers that bring no profile of their own and may not mount, and CRIU when it works on them, run under
    /// FastMig's AppArmor profiles, where the kernel has them.
    pub apparmor: bool,
}

impl Confinement {
    /// Those that [`Confinement::withhold`] names.
    pub(crate) fn withheld(&self) -> CapsHashSet {
        self.withhold.iter().filter_map(|name| name.parse().ok()).collect()
    }

    /// Refuses names of nothing.
    pub(super) fn check(&self, sources: &Sources) -> Result<(), ConfigError> {
        let unknown = self.withhold.iter().find(|name| name.parse::<Capability>().is_err());
        let Some(name) = unknown else { return Ok(()) };
        let cause = format!("confinement.withhold names {name:?}, which is no capability");
        Err(sources.error("confinement.withhold", cause, "give names such as \"CAP_NET_ADMIN\"".into()))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::Config;

    #[test]
    fn a_name_of_nothing_is_refused_with_its_line() {
        let text = "[confinement]\nwithhold = [\"CAP_KILL\", \"CAP_EVERYTHING\"]\n";
        let error = Config::parse(text, Path::new("/c.toml")).unwrap_err().to_string();
        assert!(error.starts_with("/c.toml, line 2: ") && error.contains("CAP_EVERYTHING"), "{error}");
        let text = "[confinement]\nwithhold = [\"CAP_KILL\"]\n";
        let (config, _) = Config::parse(text, Path::new("/c.toml")).unwrap();
        assert_eq!(config.confinement.withheld(), CapsHashSet::from([Capability::CAP_KILL]));
    }
}
