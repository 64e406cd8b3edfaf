//! An OCI spec, as containerd keeps it: what ctr was asked for, and most of what nerdctl was.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::error::Error;
use crate::fields::{Fields, MAKE_IT};
use crate::policy::DEFAULT_CAPABILITIES;
use crate::recipe::Client;
use crate::settings::{Limits, Mount, Rights, Settings};

/// Where containerd's clients mount something in every container.
const EVERYWHERE: &[&str] =
    &["/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys", "/sys/fs/cgroup", "/run"];

/// What they put into `/etc`.
const IN_ETC: &[&str] = &["/etc/hosts", "/etc/resolv.conf", "/etc/hostname"];

/// `/dev/shm` as they make it, in bytes.
const SHM: i64 = 64 << 20;

/// containerd's limit of open files, which ctr cannot change.
const FILES: &str = "nofile=1024:1024";

/// Devices that every container has: type, major, minor.
const DEVICES: &[(&str, i64, Option<i64>)] = &[
    ("c", 1, Some(3)),
    ("c", 1, Some(5)),
    ("c", 1, Some(7)),
    ("c", 1, Some(8)),
    ("c", 1, Some(9)),
    ("c", 5, Some(0)),
    ("c", 5, Some(1)),
    ("c", 5, Some(2)),
    ("c", 136, None),
    ("c", 10, Some(200)),
];

/// Labels that containerd's client writes from the image.
const OF_IMAGE: &str = "io.containerd.image.config.";

/// The settings of a container that ctr could have made.
pub(crate) fn of_ctr(container: &Value) -> Result<Settings, Error> {
    let mut settings = settings(Client::Ctr, &container["Spec"], false)?;
    let labels: BTreeMap<String, String> = container["Labels"]
        .as_object()
        .map(|labels| {
            let texts = labels.iter().map(|(k, v)| (k.clone(), v.as_str().unwrap_or_default().to_owned()));
            texts.filter(|(key, _)| !key.starts_with(OF_IMAGE)).collect()
        })
        .unwrap_or_default();
    settings.labels = labels;
    settings.limits.ulimits.retain(|ulimit| ulimit != FILES);
    if settings.terminal {
        let setting = "a terminal, which ctr itself must hold".to_owned();
        return Err(Error::Unsupported { setting, remedy: MAKE_IT });
    }
    if settings.networks.is_empty() {
        // A network namespace that nobody has set up.
        settings.networks = vec!["none".into()];
    } else {
        // The host's name; it is the other host's there.
        settings.env.retain(|entry| !entry.starts_with("HOSTNAME="));
    }
    if !mounts_of(&container["Spec"])?.iter().any(|mount| mount.destination == "/run") {
        let setting = "a spec without a tmpfs at /run, which ctr always makes".to_owned();
        return Err(Error::Unsupported { setting, remedy: MAKE_IT });
    }
    Ok(settings)
}

/// What a spec tells. Networks: `host` when it has no namespace of its own, otherwise none is told. `hooked` specs may
/// have hooks, which their client makes itself.
pub(crate) fn settings(client: Client, spec: &Value, hooked: bool) -> Result<Settings, Error> {
    let mut fields = Fields::of(client.program(), "spec", spec)?;
    fields.ignore(&["ociVersion", "mounts"]);
    if hooked {
        fields.ignore(&["hooks"]);
    }
    let hostname: String = fields.take("hostname")?;
    let mut settings = Settings {
        hostname: (!hostname.is_empty()).then_some(hostname),
        domain: fields.take("domainname")?,
        annotations: fields.take("annotations")?,
        ..Settings::default()
    };
    let mut root = fields.within("root", "root")?;
    settings.rights.read_only_root = root.take("readonly")?;
    root.expect("path", &["rootfs"])?;
    root.finish()?;
    process(fields.within("process", "process")?, &mut settings)?;
    linux(fields.within("linux", "linux")?, &mut settings)?;
    fields.finish()?;
    for mount in mounts_of(spec)? {
        let mounted = mount.read(&mut settings.limits)?;
        settings.mounts.extend(mounted);
    }
    settings.mounts.sort();
    Ok(settings)
}

fn process(mut process: Fields, settings: &mut Settings) -> Result<(), Error> {
    settings.command = process.take("args")?;
    settings.env = process.take("env")?;
    settings.directory = process.take("cwd")?;
    settings.terminal = process.take("terminal")?;
    settings.limits.oom_score = process.take("oomScoreAdj")?;
    settings.rights.no_new_privileges = process.take("noNewPrivileges")?;
    let mut user = process.within("user", "user")?;
    let (uid, gid) = (user.take::<u32>("uid")?, user.take::<u32>("gid")?);
    settings.user = format!("{uid}:{gid}");
    let mut groups: Vec<u32> = user.take("additionalGids")?;
    groups.retain(|group| *group != gid);
    groups.sort_unstable();
    settings.groups = groups.iter().map(u32::to_string).collect();
    user.ignore(&["username"]);
    user.finish()?;
    let mut capabilities = process.within("capabilities", "capabilities")?;
    let bounding: Vec<String> = capabilities.take("bounding")?;
    capabilities.ignore(&["effective", "permitted"]);
    capabilities.finish()?;
    capable(&bounding, &mut settings.rights);
    for limit in process.take::<Vec<Rlimit>>("rlimits")? {
        let name = limit.kind.trim_start_matches("RLIMIT_").to_ascii_lowercase();
        settings.limits.ulimits.push(format!("{name}={}:{}", limit.soft, limit.hard));
    }
    process.expect("apparmorProfile", &["nerdctl-default", "cri-containerd.apparmor.d"])?;
    process.ignore(&["consoleSize"]);
    process.finish()
}

/// The difference between a bounding set and that of containerd's clients.
fn capable(bounding: &[String], rights: &mut Rights) {
    let has: Vec<&str> = bounding.iter().map(|name| name.trim_start_matches("CAP_")).collect();
    let owned = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect::<Vec<_>>();
    let (mut add, mut drop) = (has.clone(), DEFAULT_CAPABILITIES.to_vec());
    add.retain(|name| !DEFAULT_CAPABILITIES.contains(name));
    drop.retain(|name| !has.contains(name));
    add.sort_unstable();
    drop.sort_unstable();
    (rights.add, rights.drop) = (owned(add), owned(drop));
}

fn linux(mut linux: Fields, settings: &mut Settings) -> Result<(), Error> {
    settings.sysctls = linux.take("sysctl")?;
    settings.rights.filtered = !linux.take::<Value>("seccomp")?.is_null();
    // Only privileged containers see all of /proc.
    if linux.take::<Vec<String>>("maskedPaths")?.is_empty() {
        settings.rights.privileged = true;
        (settings.rights.add, settings.rights.drop) = (Vec::new(), Vec::new());
    }
    let mut resources = linux.within("resources", "resources")?;
    devices(&mut resources, settings.rights.privileged)?;
    limits(&mut resources, &mut settings.limits)?;
    resources.finish()?;
    namespaces(&mut linux, settings)?;
    linux.ignore(&["readonlyPaths", "cgroupsPath"]);
    linux.finish()
}

fn devices(resources: &mut Fields, privileged: bool) -> Result<(), Error> {
    for device in resources.take::<Vec<Device>>("devices")? {
        let usual = device.kind.as_deref().is_some_and(|kind| {
            DEVICES.iter().any(|(k, major, minor)| {
                *k == kind && Some(*major) == device.major && (minor.is_none() || *minor == device.minor)
            })
        });
        if device.allow && !usual && !privileged {
            let setting = format!("device {}:{}", device.major.unwrap_or(-1), device.minor.unwrap_or(-1));
            return Err(Error::Unsupported { setting, remedy: MAKE_IT });
        }
    }
    Ok(())
}

fn limits(resources: &mut Fields, limits: &mut Limits) -> Result<(), Error> {
    let mut memory = resources.within("memory", "memory")?;
    limits.memory = memory.take("limit")?;
    limits.memory_swap = memory.take("swap")?;
    limits.memory_reservation = memory.take("reservation")?;
    memory.finish()?;
    let mut cpu = resources.within("cpu", "cpu")?;
    limits.cpu_shares = cpu.take("shares")?;
    limits.cpu_quota = cpu.take("quota")?;
    limits.cpu_period = cpu.take("period")?;
    limits.cpuset_cpus = cpu.take("cpus")?;
    limits.cpuset_mems = cpu.take("mems")?;
    cpu.finish()?;
    let mut pids = resources.within("pids", "pids")?;
    limits.pids = pids.take::<Option<i64>>("limit")?.filter(|limit| *limit > 0);
    pids.finish()
}

fn namespaces(linux: &mut Fields, settings: &mut Settings) -> Result<(), Error> {
    let namespaces: Vec<Namespace> = linux.take("namespaces")?;
    for namespace in &namespaces {
        let known = ["pid", "ipc", "uts", "mount", "network", "cgroup"].contains(&namespace.kind.as_str());
        if !known || !namespace.path.is_empty() {
            let setting = format!("{} namespace {}", namespace.kind, namespace.path);
            return Err(Error::Unsupported { setting: setting.trim().into(), remedy: MAKE_IT });
        }
    }
    let has = |kind: &str| namespaces.iter().any(|namespace| namespace.kind == kind);
    for kind in ["pid", "ipc", "uts", "mount"] {
        if !has(kind) {
            return Err(Error::Unsupported {
                setting: format!("its host's {kind} namespace"),
                remedy: MAKE_IT,
            });
        }
    }
    if !has("network") {
        settings.networks = vec!["host".into()];
    }
    settings.rights.cgroup_namespace = if has("cgroup") { "private" } else { "host" }.into();
    Ok(())
}

fn mounts_of(spec: &Value) -> Result<Vec<Mounted>, Error> {
    serde_json::from_value(spec["mounts"].clone())
        .map_err(|e| crate::fields::answer("containerd", "spec.mounts", &e.to_string()))
}

/// A mount of the spec.
#[derive(Debug, Deserialize)]
pub(crate) struct Mounted {
    destination: String,
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    source: String,
    #[serde(default)]
    options: Vec<String>,
}

impl Mounted {
    /// What of it was asked for.
    fn read(&self, limits: &mut Limits) -> Result<Option<Mount>, Error> {
        let (target, source) = (self.destination.clone(), self.source.clone());
        let bound = self.kind == "bind" || self.options.iter().any(|o| o == "bind" || o == "rbind");
        if self.destination == "/dev/shm" && self.kind == "tmpfs" {
            let size = self.options.iter().find_map(|option| option.strip_prefix("size=")).and_then(bytes);
            limits.shm = size.filter(|size| *size != SHM).unwrap_or_default();
            return Ok(None);
        }
        match (bound, self.kind.as_str()) {
            (true, _) if IN_ETC.contains(&target.as_str()) && is_clients(&source) => Ok(None),
            (true, _) => {
                let read_only = self.options.iter().any(|option| option == "ro");
                let usual = ["ro", "rw", "bind", "rbind", "rprivate", "private"];
                match self.options.iter().find(|option| !usual.contains(&option.as_str())) {
                    Some(option) => Err(Error::Unsupported {
                        setting: format!("mount option {option} of {target}"),
                        remedy: MAKE_IT,
                    }),
                    None => Ok(Some(Mount::Bind { source, target, read_only })),
                }
            }
            (false, _) if EVERYWHERE.contains(&target.as_str()) => Ok(None),
            (false, "tmpfs") => Ok(Some(Mount::Tmpfs { target, options: self.options.clone() })),
            (false, kind) => Err(Error::Unsupported {
                setting: format!("a mount of type {kind} at {target}"),
                remedy: MAKE_IT,
            }),
        }
    }
}

/// Whether a client made the file: the host's own, or one in nerdctl's directory.
fn is_clients(source: &str) -> bool {
    IN_ETC.contains(&source) || source.starts_with("/var/lib/nerdctl/")
}

/// A size as mount options have it.
fn bytes(text: &str) -> Option<i64> {
    let number = text.trim_end_matches(['k', 'm', 'g', 'K', 'M', 'G']);
    let shift = match text[number.len()..].to_ascii_lowercase().as_str() {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        _ => return None,
    };
    number.parse::<i64>().ok()?.checked_mul(1 << shift)
}

#[derive(Debug, Deserialize)]
struct Rlimit {
    #[serde(rename = "type")]
    kind: String,
    soft: u64,
    hard: u64,
}

#[derive(Debug, Deserialize)]
struct Namespace {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    path: String,
}

#[derive(Debug, Deserialize)]
struct Device {
    allow: bool,
    #[serde(default, rename = "type")]
    kind: Option<String>,
    major: Option<i64>,
    minor: Option<i64>,
}
