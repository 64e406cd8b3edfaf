//! What the root file systems are made of.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use anyhow::{bail, Error, Result};
use serde::{Deserialize, Serialize};

/// The Debian release that a host runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Generation {
    /// Debian 13: containerd 1.7, runc 1.1.
    Trixie,
    /// The coming Debian 14: containerd 2.1, runc 1.3.
    Forky,
}

impl Generation {
    /// Both, the older first.
    pub const ALL: [Self; 2] = [Self::Trixie, Self::Forky];

    /// The release's name.
    pub fn suite(self) -> &'static str {
        match self {
            Self::Trixie => "trixie",
            Self::Forky => "forky",
        }
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.suite())
    }
}

impl FromStr for Generation {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match Self::ALL.into_iter().find(|generation| generation.suite() == text) {
            Some(generation) => Ok(generation),
            None => bail!("{text:?} is neither trixie nor forky"),
        }
    }
}

/// What every host has. Its own CRIU is there to compare with; FastMig brings its own.
const HOST_PACKAGES: &[&str] = &[
    "ca-certificates",
    "containerd",
    "containernetworking-plugins",
    "criu",
    "curl",
    "haproxy",
    "iproute2",
    "iptables",
    "iputils-ping",
    "jq",
    "nftables",
    "procps",
    "python3-minimal",
    "redis-tools",
    "runc",
    "socat",
    "strace",
    "tini",
    "util-linux",
    "wrk",
];

/// What a host has besides, when the clients of the field are tested on it. podman is given both OCI runtimes that Debian has.
const CLIENT_PACKAGES: &[&str] = &[
    "aardvark-dns",
    "catatonit",
    "conmon",
    "crun",
    "docker-cli",
    "docker.io",
    "fuse-overlayfs",
    "netavark",
    "passt",
    "podman",
    "slirp4netns",
    "uidmap",
];

/// What is on a host before FastMig is.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Equipment {
    /// containerd and runc.
    #[default]
    Plain,
    /// docker and podman as well.
    Clients,
}

/// How mmdebstrap makes one tree.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// The Debian release.
    pub suite: &'static str,
    /// How much of Debian goes in before the packages.
    pub variant: &'static str,
    /// Packages beyond the variant.
    pub packages: Cow<'static, [&'static str]>,
    /// Further arguments.
    pub options: &'static [&'static str],
}

impl Recipe {
    /// The root file system of a host.
    pub fn host(generation: Generation, equipment: Equipment) -> Self {
        let packages = match equipment {
            Equipment::Plain => Cow::Borrowed(HOST_PACKAGES),
            Equipment::Clients => Cow::Owned([HOST_PACKAGES, CLIENT_PACKAGES].concat()),
        };
        Self { suite: generation.suite(), variant: "minbase", packages, options: &[] }
    }

    /// The arguments after `mmdebstrap` and before the target directory.
    pub fn arguments(&self) -> Vec<String> {
        // The coming release's index may be older than its validity when a mirror lags.
        let mut arguments = vec![
            "--quiet".to_owned(),
            "--aptopt=Acquire::Check-Valid-Until \"false\"".to_owned(),
            format!("--variant={}", self.variant),
        ];
        if !self.packages.is_empty() {
            arguments.push(format!("--include={}", self.packages.join(",")));
        }
        arguments.extend(self.options.iter().map(|option| (*option).to_owned()));
        arguments.push(self.suite.to_owned());
        arguments
    }
}
