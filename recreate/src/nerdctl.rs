//! nerdctl's labels, which tell what the spec does not.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::Error;
use crate::fields::{answer, Fields, MAKE_IT};
use crate::inspect::volume;
use crate::recipe::Client;
use crate::settings::{Mount, Port, Settings};
use crate::spec;

const NERDCTL: &str = "nerdctl";

/// The settings of the container that `nerdctl inspect --mode=native` describes.
pub(crate) fn settings(container: &Value) -> Result<Settings, Error> {
    let all = container["Labels"].as_object().cloned().unwrap_or_default();
    let (own, users): (Map<String, Value>, Map<String, Value>) =
        all.into_iter().partition(|(key, _)| is_clients(key));
    let mut settings = spec::settings(Client::Nerdctl, &container["Spec"], true)?;
    settings.annotations.retain(|key, _| !is_clients(key));
    settings.labels =
        users.into_iter().map(|(key, value)| (key, value.as_str().unwrap_or_default().to_owned())).collect();
    let mut labels = Fields::of(NERDCTL, "label", &Value::Object(own))?;
    network(&mut labels, container, &mut settings)?;
    mounts(&mut labels, &mut settings)?;
    life(&mut labels, &mut settings)?;
    labels.finish()?;
    if !settings.rights.filtered && !settings.rights.privileged {
        let setting = "security option seccomp=unconfined".to_owned();
        return Err(Error::Unsupported { setting, remedy: MAKE_IT });
    }
    settings.rights.filtered = true;
    Ok(settings)
}

fn is_clients(key: &str) -> bool {
    ["nerdctl/", "containerd.io/restart.", "io.containerd.image.config."]
        .iter()
        .any(|prefix| key.starts_with(prefix))
}

fn network(labels: &mut Fields, container: &Value, settings: &mut Settings) -> Result<(), Error> {
    let hostname: String = labels.take("nerdctl/hostname")?;
    settings.env.retain(|entry| entry.strip_prefix("HOSTNAME=") != Some(&hostname));
    settings.networks = json(labels, "nerdctl/networks")?;
    settings.hostname = (settings.networks != ["host"] && !hostname.is_empty()).then_some(hostname);
    settings.hosts = json(labels, "nerdctl/extraHosts")?;
    let dns: Value = json(labels, "nerdctl/dns")?;
    let mut dns = Fields::of(NERDCTL, "nerdctl/dns", &dns)?;
    settings.dns = dns.take("DNSServers")?;
    settings.dns_search = dns.take("DNSSearchDomains")?;
    settings.dns_options = dns.take("DNSResolvConfOptions")?;
    dns.finish()?;
    let address: String = labels.take("nerdctl/ip-address")?;
    settings.address = (!address.is_empty()).then_some(address);
    if let Some(network) = settings.networks.iter().find(|network| network.contains(':')) {
        return Err(Error::Unsupported { setting: format!("network {network}"), remedy: MAKE_IT });
    }
    // Once in the labels, now in the network's own store, which only the running container tells.
    labels.ignore(&["nerdctl/ports"]);
    for port in container["Process"]["NetNS"]["PortMappings"].as_array().into_iter().flatten() {
        let number = |key: &str| port[key].as_u64().and_then(|number| u16::try_from(number).ok());
        let text = |key: &str| port[key].as_str().unwrap_or_default().to_owned();
        let (Some(inside), Some(host)) = (number("ContainerPort"), number("HostPort")) else {
            return Err(answer(NERDCTL, "a published port", &port.to_string()));
        };
        settings.ports.push(Port {
            container: inside,
            host,
            protocol: text("Protocol"),
            address: text("HostIP"),
        });
    }
    settings.ports.sort();
    Ok(())
}

/// The spec has volumes as bind mounts.
fn mounts(labels: &mut Fields, settings: &mut Settings) -> Result<(), Error> {
    let told: Vec<Value> = json(labels, "nerdctl/mounts")?;
    for told in &told {
        let text = |key: &str| told[key].as_str().unwrap_or_default();
        if text("Type") != "volume" {
            continue;
        }
        let Some(mount) = settings.mounts.iter_mut().find(|mount| mount.target() == text("Destination"))
        else {
            return Err(answer(
                NERDCTL,
                "a volume",
                &format!("nothing is mounted at {}", text("Destination")),
            ));
        };
        let read_only = matches!(mount, Mount::Bind { read_only: true, .. });
        *mount = volume(text("Name"), text("Destination").to_owned(), read_only);
    }
    labels.ignore(&["nerdctl/anonymous-volumes"]);
    settings.mounts.sort();
    Ok(())
}

fn life(labels: &mut Fields, settings: &mut Settings) -> Result<(), Error> {
    settings.user = labels.take("nerdctl/user")?;
    settings.auto_remove = labels.take::<String>("nerdctl/auto-remove")? == "true";
    let restart: String = labels.take("containerd.io/restart.policy")?;
    settings.restart = if restart == "no" { String::new() } else { restart };
    settings.stop_signal = labels.take("io.containerd.image.config.stop-signal")?;
    settings.stop_timeout = labels.take::<String>("nerdctl/stop-timeout")?.parse().ok();
    let log: Value = json(labels, "nerdctl/log-config")?;
    let mut log = Fields::of(NERDCTL, "nerdctl/log-config", &log)?;
    settings.log_driver = log.take("driver")?;
    settings.log_options = log.take::<BTreeMap<String, String>>("opts")?;
    log.ignore(&["address", "log-path"]);
    log.finish()?;
    let ipc: Value = json(labels, "nerdctl/ipc")?;
    Fields::of(NERDCTL, "nerdctl/ipc", &ipc)?.expect("mode", &["private"])?;
    let host: Value = json(labels, "nerdctl/host-config")?;
    let mut host = Fields::of(NERDCTL, "nerdctl/host-config", &host)?;
    host.ignore(&["CidFile"]);
    host.finish()?;
    labels.ignore(&[
        "nerdctl/name",
        "nerdctl/namespace",
        "nerdctl/platform",
        "nerdctl/state-dir",
        "nerdctl/log-uri",
    ]);
    labels.ignore(&["nerdctl/pid-file", "nerdctl/error", "nerdctl/domainname"]);
    labels.ignore(&[
        "containerd.io/restart.status",
        "containerd.io/restart.loguri",
        "containerd.io/restart.count",
    ]);
    labels.ignore(&["containerd.io/restart.explicitly-stopped"]);
    Ok(())
}

/// A label that is JSON; the type's default where it is missing.
fn json<T: DeserializeOwned + Default>(labels: &mut Fields, name: &str) -> Result<T, Error> {
    let text: String = labels.take(name)?;
    if text.is_empty() || text == "null" {
        return Ok(T::default());
    }
    serde_json::from_str(&text).map_err(|e| answer(NERDCTL, name, &e.to_string()))
}
