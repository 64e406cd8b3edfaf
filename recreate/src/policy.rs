//! What this host lets a peer's container have: `[create]` in the settings.

use std::path::{Path, PathBuf};

use fastmig_engine::config::Create;

use crate::error::Error;
use crate::recipe::Client;
use crate::settings::{stand_in, Mount, Settings};

/// What docker and containerd give to every container. podman's are fewer.
pub(crate) const DEFAULT_CAPABILITIES: &[&str] = &[
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// The settings as they are on this host, with the sources of bind mounts replaced; or all reasons why it does not allow
/// them.
pub(crate) fn admit(create: &Create, client: Client, settings: &Settings) -> Result<Settings, Error> {
    let mut reasons = beyond(create, settings);
    let mut mounts = Vec::new();
    for mount in &settings.mounts {
        match mapped(create, mount) {
            Ok(mount) => mounts.push(mount),
            Err(reason) => reasons.push(reason),
        }
    }
    if client == Client::Ctr && !settings.restart.is_empty() {
        reasons.push("ctr knows no restart policy".to_owned());
    }
    match reasons.is_empty() {
        true => Ok(Settings { mounts, ..settings.clone() }),
        false => Err(Error::NotAllowed { reasons }),
    }
}

/// What of its rights is more than this host allows.
fn beyond(create: &Create, settings: &Settings) -> Vec<String> {
    let mut reasons = Vec::new();
    if settings.rights.privileged && !create.privileged {
        reasons.push("it is privileged (create.privileged allows that)".to_owned());
    }
    if settings.networks.iter().any(|network| network == "host") && !create.host_network {
        reasons.push("it uses the host's network (create.host_network allows that)".to_owned());
    }
    let known = |capability: &str| {
        DEFAULT_CAPABILITIES.contains(&capability) || create.capabilities.iter().any(|c| c == capability)
    };
    for capability in settings.rights.add.iter().filter(|capability| !known(capability)) {
        let remedy = format!("create.capabilities = [\"{capability}\"] allows that");
        reasons.push(format!("it has CAP_{capability} ({remedy})"));
    }
    reasons
}

fn mapped(create: &Create, mount: &Mount) -> Result<Mount, String> {
    let Mount::Bind { source, target, read_only } = mount else { return Ok(mount.clone()) };
    let binds = create.binds();
    let Some((root, here)) = stand_in(&binds, Path::new(source)) else {
        let remedy = format!("create.binds = [\"{source}:/A/DIRECTORY/HERE\"] maps it");
        return Err(format!("it mounts {source} of its host ({remedy})"));
    };
    let source = inside(root, &here)?.to_str().ok_or("a mapped path is not UTF-8")?.to_owned();
    Ok(Mount::Bind { source, target: target.clone(), read_only: *read_only })
}

/// The path itself, once it is sure that it exists and no symbolic link leads it out of `root`.
fn inside(root: &Path, path: &Path) -> Result<PathBuf, String> {
    let real =
        |path: &Path| path.canonicalize().map_err(|e| format!("{} cannot be mounted: {e}", path.display()));
    match real(path)?.starts_with(real(root)?) {
        true => real(path),
        false => Err(format!("{} leads out of {} (create.binds)", path.display(), root.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Rights;

    fn with_bind(source: &str) -> Settings {
        let bind = Mount::Bind { source: source.into(), target: "/x".into(), read_only: false };
        Settings { mounts: vec![bind], ..Settings::default() }
    }

    #[test]
    fn what_is_beyond_the_harmless_is_refused_with_all_reasons_and_remedies() {
        let rights =
            Rights { privileged: true, add: vec!["SYS_ADMIN".into(), "MKNOD".into()], ..Rights::default() };
        let settings = Settings { rights, networks: vec!["host".into()], ..with_bind("/etc") };
        let strict = Create { host_network: false, ..Create::default() };
        let error = admit(&strict, Client::Docker, &settings).unwrap_err().to_string();
        for part in ["create.privileged", "create.host_network", "SYS_ADMIN", "create.binds"] {
            assert!(error.contains(part), "{part}: {error}");
        }
        assert!(!error.contains("MKNOD"), "{error}");
        let open = Create {
            privileged: true,
            capabilities: vec!["SYS_ADMIN".into()],
            binds: vec!["/etc:/etc".into()],
            ..Create::default()
        };
        assert_eq!(admit(&open, Client::Docker, &settings).unwrap(), settings);
    }

    #[test]
    fn binds_are_mapped_and_stay_below_what_was_named() {
        let root = tempfile::tempdir().unwrap();
        let here = root.path().canonicalize().unwrap();
        std::fs::create_dir_all(here.join("data/app")).unwrap();
        std::os::unix::fs::symlink("/etc", here.join("data/link")).unwrap();
        let binds = vec![format!("/srv:{}/data", here.display()), format!("/:{}/none", here.display())];
        let create = Create { binds, ..Create::default() };
        let mapped = admit(&create, Client::Docker, &with_bind("/srv/app")).unwrap();
        assert_eq!(mapped, with_bind(here.join("data/app").to_str().unwrap()));
        for (bad, why) in
            [("/srv/link", "leads out"), ("/srv/gone", "cannot be mounted"), ("/etc", "cannot be mounted")]
        {
            let error = admit(&create, Client::Docker, &with_bind(bad)).unwrap_err().to_string();
            assert!(error.contains(why), "{bad}: {error}");
        }
        let nothing =
            admit(&Create::default(), Client::Docker, &with_bind("/srv/app")).unwrap_err().to_string();
        assert!(nothing.contains("/srv/app"), "{nothing}");
    }
}
