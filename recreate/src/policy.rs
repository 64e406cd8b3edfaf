//! What this host lets a peer's container have.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::recipe::Client;
use crate::settings::{Mount, Settings};

/// `[create]` in the daemon's settings: what a container made for a peer may have beyond what is harmless.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// Whether it may be privileged: such a container owns the host.
    pub privileged: bool,
    /// Whether it may use the host's network.
    pub host_network: bool,
    /// Capabilities that it may have beyond docker's default ones, without `CAP_`.
    pub capabilities: Vec<String>,
    /// Directories of the source, and the directories of this host that stand in for them, with all that is below. The
    /// same path twice means that both hosts have it.
    pub binds: BTreeMap<PathBuf, PathBuf>,
    /// Whether it may use a volume that is there already, with what is in it.
    pub existing_volumes: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            privileged: false,
            host_network: true,
            capabilities: Vec::new(),
            binds: BTreeMap::new(),
            existing_volumes: false,
        }
    }
}

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

impl Policy {
    /// The settings as they are on this host, with the sources of bind mounts replaced.
    ///
    /// # Errors
    /// With all reasons why this host does not allow it.
    pub fn admit(&self, client: Client, settings: &Settings) -> Result<Settings, Error> {
        let mut reasons = Vec::new();
        let rights = &settings.rights;
        if rights.privileged && !self.privileged {
            reasons.push("it is privileged (create.privileged allows that)".to_owned());
        }
        if settings.networks.iter().any(|network| network == "host") && !self.host_network {
            reasons.push("it uses the host's network (create.host_network allows that)".to_owned());
        }
        let known = |capability: &str| {
            DEFAULT_CAPABILITIES.contains(&capability) || self.capabilities.iter().any(|c| c == capability)
        };
        for capability in rights.add.iter().filter(|capability| !known(capability)) {
            reasons.push(format!(
                "it has CAP_{capability} (create.capabilities = [\"{capability}\"] allows that)"
            ));
        }
        let mut mounts = Vec::new();
        for mount in &settings.mounts {
            match self.mapped(mount) {
                Ok(mount) => mounts.push(mount),
                Err(reason) => reasons.push(reason),
            }
        }
        if client == Client::Ctr && settings.restart != "no" && !settings.restart.is_empty() {
            reasons.push("ctr knows no restart policy".to_owned());
        }
        match reasons.is_empty() {
            true => Ok(Settings { mounts, ..settings.clone() }),
            false => Err(Error::NotAllowed { reasons }),
        }
    }

    fn mapped(&self, mount: &Mount) -> Result<Mount, String> {
        let Mount::Bind { source, target, read_only } = mount else { return Ok(mount.clone()) };
        let here = self.stand_in(Path::new(source)).ok_or_else(|| {
            format!("it mounts {source} of its host (create.binds = {{ {source:?} = \"/a/directory/here\" }} maps it)")
        })?;
        let here = here?;
        let source = here.to_str().ok_or("a mapped path is not UTF-8")?.to_owned();
        Ok(Mount::Bind { source, target: target.clone(), read_only: *read_only })
    }

    /// The path of this host for one of the source, by the longest entry that fits.
    fn stand_in(&self, source: &Path) -> Option<Result<PathBuf, String>> {
        let climbs = |path: &Path| path.components().any(|part| part == Component::ParentDir);
        let (from, to) = self
            .binds
            .iter()
            .filter(|(from, _)| source.starts_with(from) && !climbs(source))
            .max_by_key(|(from, _)| from.components().count())?;
        let below = source.strip_prefix(from).ok()?;
        let here = if below.as_os_str().is_empty() { to.clone() } else { to.join(below) };
        Some(inside(to, &here))
    }
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
        let strict = Policy { host_network: false, ..Policy::default() };
        let error = strict.admit(Client::Docker, &settings).unwrap_err().to_string();
        for part in ["create.privileged", "create.host_network", "SYS_ADMIN", "create.binds"] {
            assert!(error.contains(part), "{part}: {error}");
        }
        assert!(!error.contains("MKNOD"), "{error}");
        let open = Policy {
            privileged: true,
            capabilities: vec!["SYS_ADMIN".into()],
            binds: [("/etc".into(), "/etc".into())].into(),
            ..Policy::default()
        };
        assert_eq!(open.admit(Client::Docker, &settings).unwrap(), settings);
    }

    #[test]
    fn binds_are_mapped_and_stay_below_what_was_named() {
        let root = tempfile::tempdir().unwrap();
        let here = root.path().canonicalize().unwrap();
        std::fs::create_dir_all(here.join("data/app")).unwrap();
        std::os::unix::fs::symlink("/etc", here.join("data/link")).unwrap();
        let binds = [("/srv".into(), here.join("data")), ("/".into(), here.join("none"))].into();
        let policy = Policy { binds, ..Policy::default() };
        let mapped = policy.admit(Client::Docker, &with_bind("/srv/app")).unwrap();
        assert_eq!(mapped, with_bind(here.join("data/app").to_str().unwrap()));
        for (bad, why) in
            [("/srv/link", "leads out"), ("/srv/gone", "cannot be mounted"), ("/etc", "cannot be mounted")]
        {
            let error = policy.admit(Client::Docker, &with_bind(bad)).unwrap_err().to_string();
            assert!(error.contains(why), "{bad}: {error}");
        }
        let nothing =
            Policy::default().admit(Client::Docker, &with_bind("/srv/app")).unwrap_err().to_string();
        assert!(nothing.contains("/srv/app"), "{nothing}");
    }
}
