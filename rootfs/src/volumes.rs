//! Which of a container's volumes travel: those of its client, told by where they lie on the host, or those that are named.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Error;

/// More than any container has.
const MOST: usize = 64;
/// What a list of them may be long.
const LONGEST: usize = 64 * 1024;

/// The volumes that travel beside the root file system; as text `none`, `all`, or paths in the container with commas between them.
///
/// `all` are the writable volumes that the container's client has made, but for those on a network file system, which both
/// hosts can reach. A path means whatever directory is mounted there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Volumes {
    all: bool,
    /// Relative to the root.
    at: BTreeSet<PathBuf>,
}

impl Volumes {
    /// Every one that a client has made.
    #[must_use]
    pub fn all() -> Self {
        Self { all: true, at: BTreeSet::new() }
    }

    /// Whether none travels.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Those of both.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.all |= other.all;
        self.at.extend(other.at);
        self
    }

    /// The mount points that are named, relative to the root.
    pub(crate) fn named(&self) -> impl Iterator<Item = &Path> {
        self.at.iter().map(PathBuf::as_path)
    }

    /// Whether what is mounted at `point` is one of them: it is named, or on this `kind` of file system a client's for writing.
    pub(crate) fn take(&self, point: &Path, is_clients: bool, kind: &[u8]) -> bool {
        self.at.contains(point) || (self.all && is_clients && !is_shared(kind))
    }
}

impl FromStr for Volumes {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = |problem| Error::BadVolumes { text: text.chars().take(80).collect(), problem };
        if text.len() > LONGEST {
            return Err(wrong("it is too long"));
        }
        let mut volumes = Self::default();
        for word in text.split(',').map(str::trim) {
            match word {
                "none" if text.trim() == "none" => {}
                "all" => volumes.all = true,
                path => {
                    let place = inside(path);
                    let problem = "it must be all, none or absolute paths in the container";
                    volumes.at.insert(place.ok_or_else(|| wrong(problem))?);
                }
            }
        }
        if volumes.at.len() > MOST {
            return Err(wrong("it names more than 64 paths"));
        }
        Ok(volumes)
    }
}

/// A path in the container, relative to its root.
fn inside(path: &str) -> Option<PathBuf> {
    let inside: PathBuf = Path::new(path.strip_prefix('/')?).components().collect();
    let normal = inside.components().all(|part| matches!(part, Component::Normal(_)));
    (normal && inside.file_name().is_some() && !path.contains('\0')).then_some(inside)
}

impl TryFrom<String> for Volumes {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Volumes> for String {
    fn from(volumes: Volumes) -> Self {
        volumes.to_string()
    }
}

impl fmt::Display for Volumes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_none() {
            return f.write_str("none");
        }
        let all = self.all.then(|| "all".to_owned());
        let named = self.at.iter().map(|path| format!("/{}", path.display()));
        f.write_str(&all.into_iter().chain(named).collect::<Vec<_>>().join(","))
    }
}

/// Whether a client keeps the content of a volume at this path of the host.
pub(crate) fn is_clients(source: &Path) -> bool {
    let parts: Vec<&str> = source.iter().map(|part| part.to_str().unwrap_or_default()).collect();
    let has = |first: &str, second: &str, after: usize| {
        parts
            .windows(2)
            .position(|pair| pair[0] == first && (second.is_empty() || pair[1] == second))
            .is_some_and(|at| parts.len() > at + 1 + after)
    };
    // docker, podman: .../volumes/NAME/_data; nerdctl: .../volumes/NAMESPACE/NAME/_data.
    let named = parts.last() == Some(&"_data") && has("volumes", "", 1);
    // What the image declares, under CRI: .../io.containerd.grpc.v1.cri/containers/ID/volumes/NAME.
    let declared = has("io.containerd.grpc.v1.cri", "containers", 1) && has("volumes", "", 0);
    // A pod's own directories: .../volumes/kubernetes.io~empty-dir/NAME.
    named || declared || has("volumes", "kubernetes.io~empty-dir", 1)
}

/// File systems that several hosts see.
fn is_shared(kind: &[u8]) -> bool {
    [&b"nfs"[..], b"cifs", b"smb", b"ceph", b"9p", b"lustre", b"gfs2", b"ocfs2", b"fuse"]
        .iter()
        .any(|shared| kind.starts_with(shared))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        for text in ["none", "all", "/data", "/data,/var/lib/x", "all,/srv"] {
            let volumes: Volumes = text.parse().unwrap();
            assert_eq!(volumes.to_string(), text);
            assert_eq!(String::from(volumes.clone()).parse::<Volumes>().unwrap(), volumes);
        }
        assert!("none".parse::<Volumes>().unwrap().is_none());
        assert!("/data/".parse::<Volumes>().unwrap().take(Path::new("data"), false, b"nfs"));
    }

    #[test]
    fn what_names_no_place_in_the_container_is_refused() {
        for bad in ["", "data", "/", "/../x", "/a/../../x", "all,", "none,/a", "/a\0b", "some"] {
            assert!(bad.parse::<Volumes>().is_err(), "{bad:?}");
        }
        let many: Vec<String> = (0..65).map(|number| format!("/{number}")).collect();
        assert!(many.join(",").parse::<Volumes>().is_err());
    }

    #[test]
    fn each_clients_volumes_are_known_by_their_place() {
        for path in [
            "/var/lib/docker/volumes/data/_data",
            "/srv/docker/volumes/0123/_data",
            "/var/lib/containers/storage/volumes/data/_data",
            "/var/lib/nerdctl/1935db59/volumes/default/data/_data",
            "/var/lib/containerd/io.containerd.grpc.v1.cri/containers/0123/volumes/4567",
            "/var/lib/kubelet/pods/0123/volumes/kubernetes.io~empty-dir/cache",
        ] {
            assert!(is_clients(Path::new(path)), "{path}");
        }
        for path in [
            "/",
            "/srv/data",
            "/volumes/_data",
            "/var/lib/docker/volumes",
            "/var/lib/docker/containers/0123/hostname",
            "/var/lib/kubelet/pods/0123/volumes/kubernetes.io~secret/token",
            "/var/lib/containerd/io.containerd.grpc.v1.cri/sandboxes/0123/resolv.conf",
        ] {
            assert!(!is_clients(Path::new(path)), "{path}");
        }
    }

    #[test]
    fn all_are_those_that_are_written_to_on_one_host() {
        let point = Path::new("data");
        assert!(Volumes::all().take(point, true, b"ext4"));
        assert!(!Volumes::all().take(point, false, b"ext4"));
        assert!(!Volumes::all().take(point, true, b"nfs4"));
        assert!(!Volumes::default().take(point, true, b"ext4"));
    }
}
