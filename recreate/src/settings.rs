//! A container's settings, in words that all clients share.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

/// All that its user asked for, apart from image and runtime.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The whole command line, entry point included.
    pub command: Vec<String>,
    /// `NAME=VALUE`.
    pub env: Vec<String>,
    /// User and group, as text; the image's own when empty.
    pub user: String,
    /// More groups.
    pub groups: Vec<String>,
    /// Where the command starts.
    pub directory: String,
    /// None when it is its host's.
    pub hostname: Option<String>,
    /// The domain to it.
    pub domain: String,
    /// Whether it has a terminal.
    pub terminal: bool,
    /// Whether its standard input stays open.
    pub stdin: bool,
    /// Whether the client puts an init of its own above the command.
    pub init: bool,
    /// Whether it is removed when it ends.
    pub auto_remove: bool,
    /// Labels, without those that clients make themselves.
    pub labels: BTreeMap<String, String>,
    /// Annotations, likewise, and without `fastmig.dev/start`.
    pub annotations: BTreeMap<String, String>,
    /// `no`, `always`, `unless-stopped`, `on-failure` or `on-failure:N`; `no` when empty.
    pub restart: String,
    /// The image's own when empty.
    pub stop_signal: String,
    /// In seconds.
    pub stop_timeout: Option<u32>,
    /// Networks by name; `host` and `none` stand alone.
    pub networks: Vec<String>,
    /// More names of it in its network.
    pub aliases: Vec<String>,
    /// A fixed address in its network.
    pub address: Option<String>,
    /// What is published.
    pub ports: Vec<Port>,
    /// What is exposed, as `PORT/PROTOCOL`.
    pub exposed: Vec<String>,
    /// More hosts, as `NAME:ADDRESS`.
    pub hosts: Vec<String>,
    /// DNS servers.
    pub dns: Vec<String>,
    /// DNS search domains.
    pub dns_search: Vec<String>,
    /// Options of the resolver.
    pub dns_options: Vec<String>,
    /// Volumes, host directories and memory.
    pub mounts: Vec<Mount>,
    /// Kernel settings of its namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// What it may use up.
    pub limits: Limits,
    /// What it may do.
    pub rights: Rights,
    /// The log's driver; the client's default when empty.
    pub log_driver: String,
    /// Its options.
    pub log_options: BTreeMap<String, String>,
}

/// A published port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// The container's.
    pub container: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// The host's; any when 0.
    pub host: u16,
    /// The host's address; all when empty.
    pub address: String,
}

/// Something mounted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Mount {
    /// A volume, created empty.
    Volume {
        /// Its name; none when it is anonymous.
        name: Option<String>,
        /// Where the container has it.
        target: String,
        /// Whether the container may only read it.
        read_only: bool,
    },
    /// A directory or file of the host.
    Bind {
        /// The host's path: at the source, until it is mapped.
        source: String,
        /// Where the container has it.
        target: String,
        /// Whether the container may only read it.
        read_only: bool,
    },
    /// Memory.
    Tmpfs {
        /// Where the container has it.
        target: String,
        /// Mount options.
        options: Vec<String>,
    },
}

impl Mount {
    /// Where the container has it.
    #[must_use]
    pub fn target(&self) -> &str {
        match self {
            Self::Volume { target, .. } | Self::Bind { target, .. } | Self::Tmpfs { target, .. } => target,
        }
    }
}

/// What it may use up; zero and none mean the client's default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bytes of memory.
    pub memory: i64,
    /// Bytes of memory and swap; -1 for no limit.
    pub memory_swap: i64,
    /// Bytes of memory that it is pressed down to when memory is short.
    pub memory_reservation: i64,
    /// Bytes of `/dev/shm`.
    pub shm: i64,
    /// Weight.
    pub cpu_shares: u64,
    /// Microseconds.
    pub cpu_period: u64,
    /// Microseconds in a period.
    pub cpu_quota: i64,
    /// A billionth of a processor each.
    pub nano_cpus: u64,
    /// Processors, as `0-2,4`.
    pub cpuset_cpus: String,
    /// Memory nodes.
    pub cpuset_mems: String,
    /// Processes.
    pub pids: Option<i64>,
    /// Of the out-of-memory killer.
    pub oom_score: i32,
    /// As `NAME=SOFT:HARD`.
    pub ulimits: Vec<String>,
}

/// What it may do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rights {
    /// Everything.
    pub privileged: bool,
    /// Capabilities beyond the client's default, without `CAP_`.
    pub add: Vec<String>,
    /// Capabilities of the client's default that it lacks, without `CAP_`; `ALL` for every one.
    pub drop: Vec<String>,
    /// Whether set-user-id programs give it nothing.
    pub no_new_privileges: bool,
    /// Whether its root file system is read-only.
    pub read_only_root: bool,
    /// Whether the client's system call filter is on. Of interest to ctr alone; the others' always is.
    pub filtered: bool,
    /// `host` or `private`; the client's default when empty.
    pub cgroup_namespace: String,
    /// `private` or `shareable`; the client's default when empty.
    pub ipc_namespace: String,
}

/// The path that stands in for `source`, by the longest entry that fits, and what that entry leads to.
pub(crate) fn stand_in<'a>(
    binds: &'a BTreeMap<PathBuf, PathBuf>,
    source: &Path,
) -> Option<(&'a Path, PathBuf)> {
    if source.components().any(|part| part == Component::ParentDir) {
        return None;
    }
    let fitting = binds.iter().filter(|(from, _)| source.starts_with(from));
    let (from, to) = fitting.max_by_key(|(from, _)| from.components().count())?;
    let below = source.strip_prefix(from).ok()?;
    let here = if below.as_os_str().is_empty() { to.clone() } else { to.join(below) };
    Some((to, here))
}
