//! AppArmor, where the operator wants it and its profiles are loaded: the profile of a container that brings none, its init's, and CRIU's.
//! `apparmor/profiles.template` is what `fastmig install` makes them from.
//!
//! What is restored gets the label that an application of its container has: PID 1's, unless that is the init's own. Each thread takes that itself, at CRIU's word; so CRIU must know that
//! the kernel has AppArmor (`logs::work_directory`), may not be the one who decides (`privilege`), and must not be held to a
//! profile with which the container's does not reckon: it could neither trace nor signal what is under that.

use crate::Config;

/// For containers.
const CONTAINER: &str = "fastmig-container";

/// For the init of such a container, where the application can leave it.
const INIT: &str = "fastmig-init";

/// For CRIU.
const CRIU: &str = "fastmig-criu";

/// Whether the kernel runs AppArmor.
const ENABLED: &str = "/sys/module/apparmor/parameters/enabled";

/// What a thread without a profile is said to have.
const UNCONFINED: &str = "unconfined";

/// All profiles that the kernel has, one in a line, with their mode.
const LOADED: &str = "/sys/kernel/security/apparmor/profiles";

/// The profile of a container that brings none.
pub(crate) fn for_container(config: &Config) -> Option<&'static str> {
    chosen(config, CONTAINER)
}

/// The narrower one of its init, from which the application goes to [`for_container`]'s.
pub(crate) fn for_init(config: &Config) -> Option<&'static str> {
    chosen(config, INIT)
}

/// What runc is to be told for a session in the container whose PID 1 is `init`, lest it comes under the init's.
pub(crate) fn for_session(init: i32) -> Option<&'static str> {
    (label_of(init)? == INIT).then_some(CONTAINER)
}

/// CRIU's, where it works on the container whose PID 1 is `init`: under any other profile than ours, or none, it has none
/// either.
pub(crate) fn for_criu(config: &Config, init: i32) -> Option<&'static str> {
    (of_application(init)? == CONTAINER).then(|| chosen(config, CRIU))?
}

/// The label that takes the place of each one in an image, when it is restored into the container whose PID 1 is `init`. Of a
/// stack of profiles CRIU replaces the first only: that one is compared afterwards.
pub(crate) fn to_restore(init: i32) -> Option<String> {
    of_application(init).filter(|label| !label.contains("//"))
}

/// What AppArmor holds an application to that is the child of PID 1 `init`: what it holds that to, unless that has one of
/// its own.
pub(crate) fn of_application(init: i32) -> Option<String> {
    label_of(init).map(|label| if label == INIT { CONTAINER.to_owned() } else { label })
}

/// What AppArmor holds a thread to, without the mode; nothing when that is nothing.
pub(crate) fn label_of(thread: i32) -> Option<String> {
    let current = std::fs::read_to_string(format!("/proc/{thread}/attr/apparmor/current"))
        .ok()
        .filter(|_| is_enabled())?;
    let label = current.trim_end_matches(['\n', '\0']);
    let label = label.rsplit_once(" (").map_or(label, |(label, _)| label);
    (label != UNCONFINED).then(|| label.to_owned())
}

/// Whether this host has AppArmor.
pub(crate) fn is_enabled() -> bool {
    std::fs::read_to_string(ENABLED).is_ok_and(|text| text.trim() == "Y")
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
        let me = std::process::id().cast_signed();
        assert_eq!((for_container(&config), for_criu(&config, me)), (None, None));
    }
}
