//! What would make a checkpoint fail, said beforehand and without stopping the application.

use std::collections::BTreeSet;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use fastmig_criu::{Bundle, Detail, Features, Launch, Log};
use procfs::process::Process;
use serde::Serialize;

use crate::inside::Inside;
use crate::start_options::TcpPolicy;
use crate::state::ApplicationState;
use crate::tree::application;
use crate::{capabilities, hugetlb, logs, Config, Container, Error};

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// A checkpoint would fail.
    Blocker,
    /// It would work, with a cost or a condition.
    Warning,
}

/// One thing that stands in the way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// What it is.
    pub cause: String,
    /// What to do.
    pub remedy: String,
}

impl Finding {
    fn blocker(cause: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { severity: Severity::Blocker, cause: cause.into(), remedy: remedy.into() }
    }

    fn warning(cause: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, cause: cause.into(), remedy: remedy.into() }
    }
}

/// What this host can do.
#[derive(Debug, Clone, Serialize)]
pub struct HostReport {
    /// The version that the CRIU in use reports.
    pub criu: Option<String>,
    /// What it and the kernel can do together.
    pub features: Option<Features>,
    /// What stands in the way.
    pub findings: Vec<Finding>,
}

/// Checks the host: CRIU, kernel, capabilities, directories.
#[must_use]
pub fn host(config: &Config) -> HostReport {
    let mut findings = Vec::new();
    let (criu, features) = match probe(config) {
        Ok((version, features)) => (Some(version), Some(features)),
        Err(e) => {
            findings.push(Finding::blocker(e.report(), "install FastMig's runtime directory again"));
            (None, None)
        }
    };
    if !Path::new(fastmig_control::INIT_PATH).file_name().is_some_and(|n| config.runtime_dir.join(n).exists())
    {
        let cause = format!("there is no fastmig-init in {:?}", config.runtime_dir);
        findings.push(Finding::blocker(cause, "install FastMig's runtime directory again"));
    }
    for capability in capabilities::missing() {
        findings.push(Finding::warning(
            format!("FastMig lacks {capability} on this host"),
            "some applications (of other users, with raised limits) cannot be checkpointed without it",
        ));
    }
    let root = existing_ancestor(&config.state_root);
    let on_tmpfs = nix::sys::statfs::statfs(&root)
        .is_ok_and(|status| status.filesystem_type() == nix::sys::statfs::TMPFS_MAGIC);
    if !on_tmpfs {
        findings.push(Finding::warning(
            format!("{:?} is not on a tmpfs", config.state_root),
            "put it on one: every call of CRIU is some 20 ms slower without",
        ));
    }
    HostReport { criu, features, findings }
}

/// Lets CRIU try this kernel.
pub(crate) fn probe(config: &Config) -> Result<(String, Features), Error> {
    let dir = config.runtime_dir.join("criu");
    let bundle = Bundle::open(&dir, &dir)?;
    let work = logs::work_directory(config)?;
    let log = work.join("check.log");
    let log = Log::new(Detail::Problems, log.clone(), log);
    let launch =
        || Launch::new(&bundle, config.limits.criu()).with_capabilities(capabilities::for_dump(config));
    let version = launch().start(&work, &log)?.version()?;
    let features = launch().start(&work, &log)?.features()?;
    Ok((version.to_string(), features))
}

fn existing_ancestor(path: &Path) -> PathBuf {
    path.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/")).into()
}

impl Container {
    /// What would make a checkpoint of this container fail now.
    ///
    /// # Errors
    /// When the container cannot be looked at.
    pub fn check(&self) -> Result<Vec<Finding>, Error> {
        self.check_for(None)
    }

    /// As [`Container::check`], with another policy for TCP connections.
    pub(crate) fn check_for(&self, tcp: Option<TcpPolicy>) -> Result<Vec<Finding>, Error> {
        let status = self.status()?;
        if let Some(reason) = status.left_alone {
            return Ok(vec![Finding::blocker(
                format!("the container is not under FastMig's init: {reason}"),
                "create it again without that",
            )]);
        }
        if status.application != ApplicationState::Running {
            let cause = format!("the application is {}", status.application);
            return Ok(vec![Finding::blocker(cause, "start or restore it first")]);
        }
        let pids = self.application_cgroup()?.pids();
        let mut findings = self.check_files(&pids);
        findings.extend(pids.iter().filter_map(|&pid| uninterruptible(pid)));
        if !self.application_cgroup()?.lets_tracers_wake() {
            findings
                .extend(pids.iter().filter(|&&pid| application::is_stopped(pid)).map(|&pid| stopped(pid)));
        }
        findings.extend(pids.iter().flat_map(|&pid| set_aside(pid)));
        let tcp = tcp.map_or_else(|| self.tcp_policy(), Ok)?;
        findings.extend(beyond_criu(self, tcp, &pids)?);
        if tcp == TcpPolicy::Refuse && has_established_tcp(self.pid()) {
            findings.push(Finding::blocker(
                "the application has an established TCP connection",
                "set the annotation fastmig.dev/tcp to close or keep",
            ));
        }
        Ok(findings)
    }

    fn check_files(&self, pids: &BTreeSet<i32>) -> Vec<Finding> {
        let limit = u64::from(self.config.checkpoint.ghost_limit);
        let streams: BTreeSet<String> = application::streams(self.pid())
            .map(|streams| streams.into_iter().map(|stream| stream.key).collect())
            .unwrap_or_default();
        let mut findings = Vec::new();
        for &pid in pids {
            let mounts = mount_ids(pid);
            for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
                let file = OpenFile::look(pid, &entry.path());
                let finding = file.and_then(|file| file.judge(&mounts, &streams, limit));
                findings.extend(finding.filter(|finding| !findings.contains(finding)));
            }
        }
        findings
    }
}

/// What a CRIU inside the container could not do, where it is there.
fn beyond_criu(
    container: &Container,
    tcp: TcpPolicy,
    pids: &BTreeSet<i32>,
) -> Result<Option<Finding>, Error> {
    let checked = Inside::of(container)
        .and_then(|inside| inside.map_or(Ok(()), |inside| inside.require_simple(container, tcp, pids)));
    match checked {
        Ok(()) => Ok(None),
        Err(Error::NotFromInside { what, remedy, .. }) => {
            let cause =
                format!("CRIU works inside the container here ([confinement] mode) and cannot {what}");
            Ok(Some(Finding::blocker(cause, remedy)))
        }
        Err(e) => Err(e),
    }
}

/// A descriptor of the application.
struct OpenFile {
    owner: String,
    link: String,
    mount: Option<i32>,
    metadata: std::fs::Metadata,
}

impl OpenFile {
    fn look(pid: i32, path: &Path) -> Option<Self> {
        let number = path.file_name()?.to_string_lossy().into_owned();
        let info = std::fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).ok()?;
        let mount = info.lines().find_map(|line| line.strip_prefix("mnt_id:"));
        Some(Self {
            owner: format!("{} (descriptor {number})", application::command_of(pid)),
            link: std::fs::read_link(path).ok()?.to_string_lossy().into_owned(),
            mount: mount.and_then(|id| id.trim().parse().ok()),
            metadata: std::fs::metadata(path).ok()?,
        })
    }

    fn judge(&self, mounts: &BTreeSet<i32>, streams: &BTreeSet<String>, ghost_limit: u64) -> Option<Finding> {
        let Self { owner, link, .. } = self;
        if link == "anon_inode:[io_uring]" {
            return Some(Finding::blocker(
                format!("{owner} uses io_uring, which CRIU cannot dump"),
                "create the container without the annotation fastmig.dev/io-uring=allow",
            ));
        }
        if self.metadata.file_type().is_char_device() && !is_known_device(self.metadata.rdev()) {
            return Some(Finding::blocker(
                format!("{owner} has the device {link} open"),
                "close it before the checkpoint",
            ));
        }
        let elsewhere = self.mount.is_some_and(|id| !mounts.contains(&id));
        if elsewhere && self.is_memory() {
            return None;
        }
        if link.starts_with('/') && elsewhere && !self.is_stream(streams) {
            return Some(Finding::blocker(
                format!("{owner} has {link} open, which lies outside the container"),
                "hand the container a pipe or a bind mount instead",
            ));
        }
        if link.ends_with(" (deleted)") && self.metadata.is_file() && self.metadata.len() > ghost_limit {
            return Some(Finding::blocker(
                format!("{owner} holds {link} open, {} bytes", self.metadata.len()),
                "raise checkpoint.ghost_limit in /etc/fastmig/config.toml",
            ));
        }
        None
    }

    /// A memfd lies on a mount of the kernel's own; CRIU takes its content along, however large.
    fn is_memory(&self) -> bool {
        self.link.starts_with("/memfd:") && self.metadata.is_file() && self.metadata.nlink() == 0
    }

    fn is_stream(&self, streams: &BTreeSet<String>) -> bool {
        self.metadata.file_type().is_char_device()
            && streams.contains(&format!("tty[{:x}:{:x}]", self.metadata.rdev(), self.metadata.dev()))
    }
}

/// Devices that CRIU restores: memory devices, terminals.
fn is_known_device(device: u64) -> bool {
    let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
    match major {
        1 => matches!(minor, 3 | 5 | 7 | 8 | 9),
        5 => matches!(minor, 0..=2),
        136..=143 => true,
        _ => false,
    }
}

fn mount_ids(pid: i32) -> BTreeSet<i32> {
    let mounts = Process::new(pid).and_then(|process| process.mountinfo());
    mounts.map(|mounts| mounts.0.into_iter().map(|mount| mount.mnt_id).collect()).unwrap_or_default()
}

/// CRIU would wait for it for ever.
fn stopped(pid: i32) -> Finding {
    Finding::blocker(
        format!(
            "process {pid} is stopped by a signal (SIGSTOP, Ctrl-Z), which cgroup v1 cannot hand to CRIU"
        ),
        format!("let it go on: kill -CONT {pid}"),
    )
}

fn uninterruptible(pid: i32) -> Option<Finding> {
    let stat = Process::new(pid).and_then(|process| process.stat()).ok()?;
    (stat.state == 'D').then(|| {
        Finding::warning(
            format!("{} is in uninterruptible sleep", application::command_of(pid)),
            "a checkpoint waits until it is out, at most limits.freeze seconds",
        )
    })
}

/// CRIU takes them along, in the freeze, and asks for as many where they are restored.
fn set_aside(pid: i32) -> Vec<Finding> {
    let finding = |(page, bytes): (u64, u64)| {
        let command = application::command_of(pid);
        let count = bytes / (page.max(1) << 10);
        Finding::warning(
            format!("{command} has {} MiB of hugetlb pages, which travel while it stands still", bytes >> 20),
            format!(
                "have {count} pages of {page} KiB free where it is restored (/sys/kernel/mm/hugepages), or let it use transparent \
                 huge pages, which travel while it runs"
            ),
        )
    };
    hugetlb::of(pid).into_iter().map(finding).collect()
}

fn has_established_tcp(pid: i32) -> bool {
    ["tcp", "tcp6"].iter().any(|table| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        text.lines().skip(1).any(|line| line.split_whitespace().nth(3) == Some("01"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look_at(file: &std::fs::File) -> OpenFile {
        use std::os::fd::AsRawFd;
        let pid = i32::try_from(std::process::id()).unwrap();
        OpenFile::look(pid, Path::new(&format!("/proc/{pid}/fd/{}", file.as_raw_fd()))).unwrap()
    }

    #[test]
    fn a_file_of_another_mount_namespace_is_found() {
        let file = tempfile::tempfile().unwrap();
        let mounts = mount_ids(i32::try_from(std::process::id()).unwrap());
        assert_eq!(look_at(&file).judge(&mounts, &BTreeSet::new(), 1 << 20), None);
        let finding = look_at(&file).judge(&BTreeSet::new(), &BTreeSet::new(), 1 << 20).unwrap();
        assert!(finding.cause.contains("outside the container"), "{finding:?}");
    }

    #[test]
    fn a_deleted_file_may_be_too_large() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(5000).unwrap();
        let mounts = mount_ids(i32::try_from(std::process::id()).unwrap());
        assert!(look_at(&file).judge(&mounts, &BTreeSet::new(), 4999).is_some());
        assert!(look_at(&file).judge(&mounts, &BTreeSet::new(), 5000).is_none());
    }

    #[test]
    fn a_memfd_lies_nowhere_and_may_be_large() {
        let flags = rustix::fs::MemfdFlags::CLOEXEC;
        let file = std::fs::File::from(rustix::fs::memfd_create("x", flags).unwrap());
        file.set_len(5000).unwrap();
        assert_eq!(look_at(&file).judge(&BTreeSet::new(), &BTreeSet::new(), 4999), None);
    }

    #[test]
    fn only_memory_and_terminal_devices_travel() {
        let device = |path: &str| std::fs::metadata(path).unwrap().rdev();
        assert!(is_known_device(device("/dev/null")) && is_known_device(device("/dev/urandom")));
        assert!(!is_known_device(nix::sys::stat::makedev(10, 200)), "/dev/net/tun");
    }
}
