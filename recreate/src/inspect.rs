//! docker's words, and podman's, which are much the same.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;

use crate::error::Error;
use crate::fields::{Fields, MAKE_IT};
use crate::recipe::Client;
use crate::settings::{Limits, Mount, Port, Rights, Settings};

/// What podman notes for itself.
const PODMANS: &[&str] = &[
    "io.container.manager",
    "org.opencontainers.image.stopSignal",
    "org.systemd.property.",
    "io.podman.annotations.",
];

/// The settings of the container that `client` describes; `healthy` is the health check of its image.
pub(crate) fn settings(client: Client, container: &Value, healthy: &Value) -> Result<Settings, Error> {
    let mut config = Fields::of(client.program(), "Config", &container["Config"])?;
    let mut host = Fields::of(client.program(), "HostConfig", &container["HostConfig"])?;
    let mut settings = Settings::default();
    command(&mut config, &mut settings, healthy)?;
    tags(client, &mut host, &mut settings)?;
    let hostname: String = config.take("Hostname")?;
    network(container, &hostname, &mut host, &mut settings)?;
    mounts(client, container, &mut host, &mut settings)?;
    limits(client, &mut host, &mut settings.limits)?;
    rights(&mut host, &mut settings)?;
    settings.env.retain(|entry| entry.strip_prefix("HOSTNAME=") != Some(&hostname));
    if settings.networks != ["host"] {
        settings.hostname = Some(hostname);
    }
    config.finish()?;
    host.finish()?;
    Ok(settings)
}

fn command(config: &mut Fields, settings: &mut Settings, healthy: &Value) -> Result<(), Error> {
    settings.command = config.take::<Words>("Entrypoint")?.0;
    settings.command.extend(config.take::<Words>("Cmd")?.0);
    settings.env = config.take("Env")?;
    settings.user = config.take("User")?;
    settings.directory = config.take("WorkingDir")?;
    settings.domain = config.take("Domainname")?;
    settings.terminal = config.take("Tty")?;
    settings.stdin = config.take("OpenStdin")?;
    settings.labels = config.take("Labels")?;
    settings.stop_signal = config.take("StopSignal")?;
    settings.stop_timeout = config.take("StopTimeout")?;
    settings.exposed = config.take::<BTreeMap<String, Value>>("ExposedPorts")?.into_keys().collect();
    let health: Value = config.take("Healthcheck")?;
    if !health.is_null() && health != *healthy {
        return Err(Error::Unsupported { setting: "a health check of its own".into(), remedy: MAKE_IT });
    }
    config.expect("Umask", &["0022", "022"])?;
    config.expect("sdNotifyMode", &["container"])?;
    // Said elsewhere, or about the client that made it.
    config.ignore(&[
        "AttachStdin",
        "AttachStdout",
        "AttachStderr",
        "StdinOnce",
        "Image",
        "Volumes",
        "OnBuild",
    ]);
    config.ignore(&[
        "ArgsEscaped",
        "Shell",
        "Annotations",
        "CreateCommand",
        "Passwd",
        "HealthLogDestination",
    ]);
    config.ignore(&["HealthcheckOnFailureAction", "HealthcheckMaxLogCount", "HealthcheckMaxLogSize"]);
    Ok(())
}

fn tags(client: Client, host: &mut Fields, settings: &mut Settings) -> Result<(), Error> {
    settings.annotations = host.take("Annotations")?;
    if client == Client::Podman {
        let init = settings.annotations.get("io.podman.annotations.init");
        settings.init = init.is_some_and(|init| init == "TRUE");
        settings.annotations.retain(|key, _| !PODMANS.iter().any(|prefix| key.starts_with(prefix)));
    }
    settings.init |= host.take::<bool>("Init")?;
    settings.auto_remove = host.take("AutoRemove")?;
    let mut restart = host.within("RestartPolicy", "RestartPolicy")?;
    let (name, count) = (restart.take::<String>("Name")?, restart.take::<u32>("MaximumRetryCount")?);
    settings.restart = match (name.as_str(), count) {
        ("no" | "", _) => String::new(),
        ("on-failure", count) if count > 0 => format!("{name}:{count}"),
        _ => name,
    };
    restart.finish()?;
    let mut log = host.within("LogConfig", "LogConfig")?;
    settings.log_driver = log.take("Type")?;
    settings.log_options = log.take("Config")?;
    let tag: String = log.take("Tag")?;
    if !tag.is_empty() {
        settings.log_options.insert("tag".into(), tag);
    }
    log.expect("Size", &["0B", "-1B"])?;
    log.ignore(&["Path"]);
    log.finish()
}

fn network(
    container: &Value,
    hostname: &str,
    host: &mut Fields,
    settings: &mut Settings,
) -> Result<(), Error> {
    let mode: String = host.take("NetworkMode")?;
    settings.hosts = host.take("ExtraHosts")?;
    settings.dns = host.take("Dns")?;
    settings.dns_search = host.take("DnsSearch")?;
    settings.dns_options = host.take("DnsOptions")?;
    let bindings: BTreeMap<String, Option<Vec<Value>>> = host.take("PortBindings")?;
    for (port, bindings) in bindings {
        for binding in bindings.unwrap_or_default() {
            settings.ports.push(published(&port, &binding)?);
        }
    }
    if mode.starts_with("container:") || mode.starts_with("ns:") {
        return Err(Error::Unsupported { setting: format!("network {mode}"), remedy: MAKE_IT });
    }
    if ["host", "none"].contains(&mode.as_str()) {
        settings.networks = vec![mode];
        return Ok(());
    }
    let networks = container["NetworkSettings"]["Networks"].as_object().cloned().unwrap_or_default();
    let id = container["Id"].as_str().unwrap_or_default();
    for (name, endpoint) in &networks {
        let list = |key: &str| -> BTreeSet<String> {
            let values = endpoint[key].as_array().into_iter().flatten();
            values.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        // Its id and its host name are among its names in each network.
        let own = |alias: &String| id.starts_with(alias.as_str()) || alias == hostname;
        settings.aliases.extend(list("Aliases").into_iter().filter(|alias| !own(alias)));
        let fixed = &endpoint["IPAMConfig"]["IPv4Address"];
        settings.address = fixed.as_str().filter(|fixed| !fixed.is_empty()).map(str::to_owned);
        if !list("Links").is_empty() || endpoint["DriverOpts"].as_object().is_some_and(|o| !o.is_empty()) {
            let setting = format!("links or driver options in network {name}");
            return Err(Error::Unsupported { setting, remedy: MAKE_IT });
        }
    }
    if networks.len() > 1 && (!settings.aliases.is_empty() || settings.address.is_some()) {
        let setting = "aliases or fixed addresses in several networks".to_owned();
        return Err(Error::Unsupported { setting, remedy: MAKE_IT });
    }
    settings.networks = networks.into_iter().map(|(name, _)| name).collect();
    Ok(())
}

fn published(port: &str, binding: &Value) -> Result<Port, Error> {
    let parsed = || {
        let (number, protocol) = port.split_once('/')?;
        let host = binding["HostPort"].as_str().unwrap_or_default();
        Some(Port {
            container: number.parse().ok()?,
            protocol: protocol.to_owned(),
            host: if host.is_empty() { 0 } else { host.parse().ok()? },
            address: binding["HostIp"].as_str().unwrap_or_default().to_owned(),
        })
    };
    parsed().ok_or_else(|| Error::Unsupported {
        setting: format!("published port {port} = {binding}"),
        remedy: "publish ports one by one, each under a number of its own",
    })
}

/// The list of what is mounted tells it all, but for what is in memory.
fn mounts(
    client: Client,
    container: &Value,
    host: &mut Fields,
    settings: &mut Settings,
) -> Result<(), Error> {
    host.ignore(&["Binds"]);
    let mut in_memory: BTreeMap<String, String> = host.take("Tmpfs")?;
    for asked in host.take::<Vec<Value>>("Mounts")? {
        let mut asked = Fields::of(client.program(), "HostConfig.Mounts", &asked)?;
        let target: String = asked.take("Target")?;
        let kind: String = asked.take("Type")?;
        let mut options = asked.within("TmpfsOptions", "TmpfsOptions")?;
        let (size, mode) = (options.take::<u64>("SizeBytes")?, options.take::<u32>("Mode")?);
        options.finish()?;
        asked.ignore(&["Source", "ReadOnly"]);
        asked.finish()?;
        if kind == "tmpfs" {
            let size = (size > 0).then(|| format!("size={size}"));
            let mode = (mode > 0).then(|| format!("mode={mode:o}"));
            in_memory.insert(target, size.into_iter().chain(mode).collect::<Vec<_>>().join(","));
        }
    }
    for (target, options) in in_memory {
        let options: Vec<String> =
            options.split(',').filter(|option| !option.is_empty()).map(str::to_owned).collect();
        settings.mounts.push(Mount::Tmpfs { target, options });
    }
    for mounted in container["Mounts"].as_array().into_iter().flatten() {
        settings.mounts.extend(mount(client, mounted)?);
    }
    settings.mounts.sort();
    Ok(())
}

fn mount(client: Client, mounted: &Value) -> Result<Option<Mount>, Error> {
    let mut mounted = Fields::of(client.program(), "Mounts", mounted)?;
    let (kind, target) = (mounted.take::<String>("Type")?, mounted.take::<String>("Destination")?);
    let (name, source) = (mounted.take::<String>("Name")?, mounted.take::<String>("Source")?);
    let read_only = !mounted.take::<bool>("RW")?;
    mounted.expect("Driver", &["local"])?;
    mounted.expect("Propagation", &["rprivate", "private"])?;
    mounted.expect("Mode", &["z", "rw", "ro", "Z"])?;
    let options: Vec<String> = mounted.take("Options")?;
    if let Some(option) =
        options.iter().find(|o| !["rbind", "bind", "nosuid", "nodev", "rprivate"].contains(&o.as_str()))
    {
        let setting = format!("mount option {option} of {target}");
        return Err(Error::Unsupported { setting, remedy: MAKE_IT });
    }
    mounted.finish()?;
    match kind.as_str() {
        "volume" => Ok(Some(volume(&name, target, read_only))),
        "bind" => Ok(Some(Mount::Bind { source, target, read_only })),
        "tmpfs" => Ok(None),
        _ => Err(Error::Unsupported {
            setting: format!("a mount of type {kind} at {target}"),
            remedy: MAKE_IT,
        }),
    }
}

/// A volume that has but a number for a name is anonymous.
pub(crate) fn volume(name: &str, target: String, read_only: bool) -> Mount {
    let anonymous = name.len() == 64 && name.chars().all(|c| c.is_ascii_hexdigit());
    Mount::Volume { name: (!anonymous).then(|| name.to_owned()), target, read_only }
}

fn limits(client: Client, host: &mut Fields, limits: &mut Limits) -> Result<(), Error> {
    limits.memory = host.take("Memory")?;
    limits.memory_swap = host.take("MemorySwap")?;
    limits.memory_reservation = host.take("MemoryReservation")?;
    limits.shm = host.take("ShmSize")?;
    limits.cpu_shares = host.take("CpuShares")?;
    limits.cpu_period = host.take("CpuPeriod")?;
    limits.cpu_quota = host.take("CpuQuota")?;
    limits.nano_cpus = host.take("NanoCpus")?;
    if limits.nano_cpus > 0 {
        // podman says the same twice.
        (limits.cpu_period, limits.cpu_quota) = (0, 0);
    }
    limits.cpuset_cpus = host.take("CpusetCpus")?;
    limits.cpuset_mems = host.take("CpusetMems")?;
    limits.pids = host.take::<Option<i64>>("PidsLimit")?.filter(|limit| *limit > 0);
    limits.oom_score = host.take("OomScoreAdj")?;
    let swappiness: Option<i64> = host.take("MemorySwappiness")?;
    let by_default = if client == Client::Podman { &[-1, 0][..] } else { &[-1][..] };
    if let Some(swappiness) = swappiness.filter(|swappiness| !by_default.contains(swappiness)) {
        return Err(Error::Unsupported {
            setting: format!("memory swappiness {swappiness}"),
            remedy: MAKE_IT,
        });
    }
    for ulimit in host.take::<Vec<Ulimit>>("Ulimits")? {
        let name = ulimit.name.trim_start_matches("RLIMIT_").to_ascii_lowercase();
        limits.ulimits.push(format!("{name}={}:{}", ulimit.soft, ulimit.hard));
    }
    limits.ulimits.sort();
    Ok(())
}

fn rights(host: &mut Fields, settings: &mut Settings) -> Result<(), Error> {
    let capabilities = |names: Vec<String>| -> Vec<String> {
        let names: BTreeSet<String> = names
            .iter()
            .map(|name| name.to_ascii_uppercase().trim_start_matches("CAP_").to_owned())
            .collect();
        names.into_iter().collect()
    };
    // First, for they bring options of their own along.
    let ipc_namespace = host.expect("IpcMode", &["private", "shareable"])?;
    host.expect("PidMode", &["private"])?;
    host.expect("UTSMode", &["private"])?;
    host.expect("UsernsMode", &["private"])?;
    let mut rights = Rights {
        privileged: host.take("Privileged")?,
        add: capabilities(host.take("CapAdd")?),
        drop: capabilities(host.take("CapDrop")?),
        read_only_root: host.take("ReadonlyRootfs")?,
        cgroup_namespace: host.expect("CgroupnsMode", &["host", "private"])?,
        ipc_namespace,
        filtered: true,
        ..Rights::default()
    };
    let podmans = host.expect("CgroupMode", &["host", "private"])?;
    if !podmans.is_empty() {
        rights.cgroup_namespace = podmans;
    }
    if rights.privileged {
        (rights.add, rights.drop) = (Vec::new(), Vec::new());
    }
    for option in host.take::<Vec<String>>("SecurityOpt")? {
        match option.as_str() {
            "no-new-privileges" | "no-new-privileges:true" | "no-new-privileges=true" => {
                rights.no_new_privileges = true;
            }
            // What privileged means, in more words.
            "label=disable" if rights.privileged => {}
            _ => {
                return Err(Error::Unsupported {
                    setting: format!("security option {option}"),
                    remedy: MAKE_IT,
                })
            }
        }
    }
    // An empty list, as opposed to none, opens what is masked to everybody.
    for list in ["MaskedPaths", "ReadonlyPaths"] {
        let paths: Option<Vec<String>> = host.take(list)?;
        if paths.is_some_and(|paths| paths.is_empty()) && !rights.privileged {
            let setting = "security option systempaths=unconfined".to_owned();
            return Err(Error::Unsupported { setting, remedy: MAKE_IT });
        }
    }
    settings.groups = host.take("GroupAdd")?;
    settings.sysctls = host.take("Sysctls")?;
    settings.rights = rights;
    host.expect("Cgroups", &["default", "enabled"])?;
    host.ignore(&["ContainerIDFile", "ConsoleSize", "Runtime", "Isolation", "CgroupManager"]);
    Ok(())
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Ulimit {
    name: String,
    soft: i64,
    hard: i64,
}

/// podman 4 tells an entry point as one text.
#[derive(Debug, Default, Deserialize)]
#[serde(from = "OneOrMany")]
struct Words(Vec<String>);

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl From<OneOrMany> for Words {
    fn from(words: OneOrMany) -> Self {
        match words {
            OneOrMany::One(word) if word.is_empty() => Self(Vec::new()),
            OneOrMany::One(word) => Self(vec![word]),
            OneOrMany::Many(words) => Self(words),
        }
    }
}
