//! The image, and what is mounted over it.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use fastmig_rootfs::{Content, Mounted};
use serde::{Deserialize, Serialize};

use super::{Destination, Reasons, Source};
use crate::start_options::Binds;
use crate::Error;

/// More than any container has.
const MOST_MOUNTS: usize = 10_000;
/// More top directories than any image has.
const MOST_TOPS: usize = 10_000;

/// What the application's files lie in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Root {
    /// As the client names it.
    image: Option<String>,
    /// A checksum of each top directory of the image.
    tops: Option<BTreeMap<String, String>>,
    mounts: Vec<Mount>,
}

/// A mount that the destination must have, too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mount {
    at: String,
    kind: Kind,
    /// Which directory of which running host it is.
    identity: Option<String>,
}

/// What it must be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    /// A file system in memory, which the application uses.
    Memory,
    /// A volume, whose content travels.
    Volume,
    /// Anything: the application uses what is in it, and it does not travel.
    Other,
}

impl Root {
    pub(super) fn of(source: &Source<'_>, reasons: &mut Reasons) -> Result<Self, Error> {
        let mounts = source.survey.mounts();
        if source.binds == Binds::Refuse {
            let same = identities(source.same);
            let named = |mount: &&Mounted| mount.identity.is_some_and(|identity| same.contains(&identity));
            mounts.iter().filter(|mount| !named(mount)).for_each(|mount| refuse_left_behind(mount, reasons));
        }
        let used: BTreeSet<_> = source.used.keys().filter_map(|path| source.survey.mount_of(path)).collect();
        let travel = |mount: &&Mounted| mount.kind == Content::Volume || used.contains(&mount.at);
        Ok(Self {
            image: source.record.image.clone(),
            tops: source.survey.image()?,
            mounts: mounts.iter().filter(travel).filter_map(describe).collect(),
        })
    }

    pub(super) fn is_excessive(&self) -> bool {
        self.mounts.len() > MOST_MOUNTS
            || self.tops.as_ref().is_some_and(|tops| tops.len() > MOST_TOPS)
            || self.mounts.iter().any(|mount| !Path::new(&mount.at).is_absolute())
    }

    pub(super) fn check(&self, here: &Destination<'_>, reasons: &mut Reasons) {
        if let Some(tops) = reasons.take(here.survey.image().map_err(Error::from)) {
            self.check_image(tops.as_ref(), here.record.image.as_deref(), reasons);
        }
        let mounts: BTreeMap<_, _> = here
            .survey
            .mounts()
            .into_iter()
            .map(|mount| (mount.at.to_string_lossy().into_owned(), mount))
            .collect();
        for mount in &self.mounts {
            mount.check(mounts.get(&mount.at), reasons);
        }
    }

    fn check_image(
        &self,
        here: Option<&BTreeMap<String, String>>,
        image: Option<&str>,
        reasons: &mut Reasons,
    ) {
        let (Some(there), Some(here)) = (&self.tops, here) else { return };
        let all: BTreeSet<&String> = there.keys().chain(here.keys()).collect();
        let different = all.into_iter().filter(|top| there.get(*top) != here.get(*top));
        let named: Vec<String> = different.map(|top| format!("/{top}")).take(10).collect();
        if named.is_empty() {
            return;
        }
        let name = |image: Option<&str>| image.unwrap_or("one without a name").to_owned();
        reasons.add(
            format!("the image is another one: {} differ", named.join(", ")),
            format!(
                "create the container from the image of the application ({}; this one is from {})",
                name(self.image.as_deref()),
                name(image)
            ),
        );
    }
}

/// A mount is told by what it shows, not by what it was called when it was made.
fn identities(directories: &[PathBuf]) -> BTreeSet<(u64, u64)> {
    let found = directories.iter().filter_map(|directory| std::fs::metadata(directory).ok());
    found.map(|status| (status.dev(), status.ino())).collect()
}

/// The application may have written there what it will miss.
fn refuse_left_behind(mount: &Mounted, reasons: &mut Reasons) {
    let at = mount.at.display();
    match mount.kind {
        Content::Left if mount.writable => reasons.add(
            format!("the volume at {at} does not travel"),
            format!(
                "let it (--volumes all, --volumes {at}, or the annotation fastmig.dev/volumes), or say that it is the \
                 same on both hosts or of no matter (fastmig.dev/binds=same)"
            ),
        ),
        Content::Bind if mount.writable => reasons.add(
            format!("{at} is a directory or file of the host that the application may write to"),
            format!(
                "mount it read-only, let it travel (--volumes {at}, and fastmig.dev/volumes at the destination), or say \
                 that it is the same on both hosts or of no matter (fastmig.dev/binds=same)"
            ),
        ),
        _ => {}
    }
}

fn describe(mount: &Mounted) -> Option<Mount> {
    let kind = match mount.kind {
        Content::Volume => Kind::Volume,
        Content::Memory => Kind::Memory,
        Content::Bind | Content::Left => Kind::Other,
        Content::Runtime => return None,
    };
    Some(Mount { at: mount.at.to_str()?.into(), kind, identity: identity(mount) })
}

fn identity(mount: &Mounted) -> Option<String> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let (device, inode) = mount.identity?;
    Some(format!("{} {device:x}:{inode:x}", boot.trim()))
}

impl Mount {
    fn check(&self, here: Option<&Mounted>, reasons: &mut Reasons) {
        let at = &self.at;
        let is_own = here.is_some_and(|mount| matches!(mount.kind, Content::Memory | Content::Volume));
        match self.kind {
            Kind::Volume if !is_own => reasons.add(
                format!("the container has no volume at {at}, and the application's content of it travels"),
                format!(
                    "create it with a volume there (-v NAME:{at}), or with a directory of the host that \
                     fastmig.dev/volumes names"
                ),
            ),
            Kind::Volume if self.identity.is_some() && here.and_then(identity) == self.identity => reasons
                .add(
                    format!("both containers have the same directory at {at}"),
                    "leave it out of the volumes that travel: there is nothing to move".to_owned(),
                ),
            Kind::Memory if !is_own => reasons.add(
                format!("the container has no file system in memory at {at}, and the application uses one"),
                format!("create it with one there (--tmpfs {at})"),
            ),
            Kind::Other if here.is_none() => reasons.add(
                format!("the container has nothing mounted at {at}, and the application uses what is there"),
                "create it with the same mounts".to_owned(),
            ),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mounted(at: &str, kind: Content, writable: bool) -> Mounted {
        Mounted { at: at.into(), kind, filesystem: "ext4".into(), writable, identity: Some((1, 2)) }
    }

    #[test]
    fn only_what_may_have_been_written_is_missed() {
        let reasons = |kind, writable| {
            let mut reasons = Reasons::default();
            refuse_left_behind(&mounted("/data", kind, writable), &mut reasons);
            reasons.to_string()
        };
        assert!(reasons(Content::Left, true).contains("--volumes"));
        assert!(reasons(Content::Bind, true).contains("read-only"));
        for (kind, writable) in [
            (Content::Left, false),
            (Content::Bind, false),
            (Content::Runtime, true),
            (Content::Memory, true),
            (Content::Volume, true),
        ] {
            assert_eq!(reasons(kind, writable), "", "{kind:?}");
        }
    }

    #[test]
    fn a_volume_needs_another_one_in_its_place() {
        let volume = describe(&mounted("/data", Content::Volume, true)).unwrap();
        let told = |here: Option<&Mounted>| {
            let mut reasons = Reasons::default();
            volume.check(here, &mut reasons);
            reasons.to_string()
        };
        assert!(told(None).contains("no volume at /data"));
        assert!(told(Some(&mounted("/data", Content::Bind, true))).contains("no volume at /data"));
        assert!(told(Some(&mounted("/data", Content::Volume, true))).contains("same directory"));
        let other = Mounted { identity: Some((1, 3)), ..mounted("/data", Content::Volume, true) };
        assert_eq!(told(Some(&other)), "");
    }

    #[test]
    fn another_image_is_named_by_its_directories() {
        let tops =
            |usr: &str| Some(BTreeMap::from([("usr".into(), usr.into()), ("etc".into(), "1".to_owned())]));
        let root = Root { image: Some("web:1".into()), tops: tops("1"), mounts: Vec::new() };
        let mut reasons = Reasons::default();
        root.check_image(tops("1").as_ref(), None, &mut reasons);
        assert_eq!(reasons, Reasons::default());
        root.check_image(tops("2").as_ref(), None, &mut reasons);
        let told = reasons.to_string();
        assert!(told.contains("/usr differ") && told.contains("web:1"), "{told}");
    }
}
