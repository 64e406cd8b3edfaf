//! AppArmor, where the operator wants it and its profiles are loaded: the profile of a container that brings none, and CRIU's.
//! `apparmor/profiles.template` is what `fastmig install` makes them from.

use crate::Config;

/// For containers.
const CONTAINER: &str = "fastmig-container";

/// For CRIU.
const CRIU: &str = "fastmig-criu";

/// All profiles that the kernel has, one in a line, with their mode.
const LOADED: &str = "/sys/kernel/security/apparmor/profiles";

/// The profile of a container that brings none.
pub(crate) fn for_container(config: &Config) -> Option<&'static str> {
    chosen(config, CONTAINER)
}

/// CRIU's.
pub(crate) fn for_criu(config: &Config) -> Option<&'static str> {
    chosen(config, CRIU)
}

fn chosen(config: &Config, name: &'static str) -> Option<&'static str> {
    if !config.confinement.apparmor {
        return None;
    }
    let loaded = std::fs::read_to_string(LOADED).unwrap_or_default();
    if !is_among(&loaded, name) {
        tracing::warn!(profile = name, "is wanted by the settings, and the kernel does not have it");
        return None;
    }
    Some(name)
}

fn is_among(loaded: &str, name: &str) -> bool {
    loaded.lines().any(|line| line.rsplit_once(" (").is_some_and(|(found, _)| found == name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_known_by_its_whole_name() {
        let loaded = "docker-default (enforce)\nfastmig-container (complain)\nx//fastmig-criu (enforce)\n";
        assert!(is_among(loaded, CONTAINER) && !is_among(loaded, CRIU) && !is_among(loaded, "docker"));
    }

    #[test]
    fn nobody_gets_one_unasked() {
        let config = Config::default();
        assert_eq!((for_container(&config), for_criu(&config)), (None, None));
    }
}
