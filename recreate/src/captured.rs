//! What real clients said of real containers, each made with the same options: Debian 13's docker 26.1, podman 5.4 and
//! ctr 1.7, and nerdctl 2.2.

use std::collections::BTreeMap;

use serde_json::{json, Value};

use crate::error::Error;
use crate::recipe::Client;
use crate::settings::{Mount, Port, Settings};
use crate::{inspect, nerdctl, spec};

fn captured(client: Client) -> Value {
    let text = match client {
        Client::Docker => include_str!("captured/docker.json"),
        Client::Podman => include_str!("captured/podman.json"),
        Client::Nerdctl => include_str!("captured/nerdctl.json"),
        Client::Ctr => include_str!("captured/ctr.json"),
    };
    serde_json::from_str(text).unwrap()
}

fn read(client: Client, container: &Value) -> Result<Settings, Error> {
    match client {
        Client::Docker | Client::Podman => inspect::settings(client, container, &Value::Null),
        Client::Nerdctl => nerdctl::settings(container),
        Client::Ctr => spec::of_ctr(container),
    }
}

const ALL: &[Client] = &[Client::Docker, Client::Podman, Client::Nerdctl, Client::Ctr];

#[test]
fn every_client_tells_the_same_of_the_same_options() {
    for client in ALL {
        let settings = read(*client, &captured(*client)).unwrap();
        assert_eq!(settings.command, ["sh", "-c", "while :; do sleep 1; done"], "{client:?}");
        assert!(settings.env.contains(&"A=1".into()), "{client:?}");
        assert!(!settings.env.iter().any(|entry| entry.starts_with("HOSTNAME=")), "{client:?}");
        assert_eq!((settings.user.as_str(), settings.directory.as_str()), ("100:101", "/tmp"), "{client:?}");
        assert_eq!(settings.labels, BTreeMap::from([("who".into(), "me".into())]), "{client:?}");
        assert_eq!(settings.limits.memory, 200 << 20, "{client:?}");
        assert!(!settings.rights.privileged && settings.rights.add.is_empty(), "{client:?}");
    }
}

#[test]
fn three_of_them_have_ports_volumes_and_a_life_of_their_own() {
    for (client, host, address) in
        [(Client::Docker, 8081, ""), (Client::Podman, 8082, "0.0.0.0"), (Client::Nerdctl, 8083, "0.0.0.0")]
    {
        let settings = read(client, &captured(client)).unwrap();
        let port = Port { container: 6379, protocol: "tcp".into(), host, address: address.into() };
        assert_eq!(settings.ports, [port], "{client:?}");
        let volume = Mount::Volume { name: Some("data".into()), target: "/data".into(), read_only: false };
        assert_eq!(settings.mounts, [volume], "{client:?}");
        assert_eq!(settings.restart, "unless-stopped", "{client:?}");
        assert_eq!((settings.limits.cpu_shares, settings.limits.pids), (512, Some(100)), "{client:?}");
        let annotations = BTreeMap::from([("fastmig.dev/tcp".into(), "refuse".into())]);
        assert_eq!(settings.annotations, annotations, "{client:?}");
    }
}

#[test]
fn the_hosts_network_has_the_hosts_name() {
    let settings = read(Client::Ctr, &captured(Client::Ctr)).unwrap();
    assert_eq!((settings.networks, settings.hostname), (vec!["host".into()], None));
}

#[test]
fn what_is_not_known_or_cannot_be_taken_over_is_named() {
    for (client, pointer, value, told) in [
        (Client::Docker, "/HostConfig/Devices", json!([{ "PathOnHost": "/dev/kvm" }]), "HostConfig.Devices"),
        (Client::Docker, "/HostConfig/PidMode", json!("container:x"), "HostConfig.PidMode"),
        (Client::Docker, "/HostConfig/UsernsMode", json!("host"), "HostConfig.UsernsMode"),
        (Client::Docker, "/HostConfig/Links", json!(["db:db"]), "HostConfig.Links"),
        (Client::Docker, "/HostConfig/VolumesFrom", json!(["db"]), "HostConfig.VolumesFrom"),
        (Client::Docker, "/HostConfig/NetworkMode", json!("container:db"), "network container:db"),
        (Client::Docker, "/HostConfig/MaskedPaths", json!([]), "systempaths=unconfined"),
        (Client::Docker, "/HostConfig/SecurityOpt", json!(["apparmor=unconfined"]), "apparmor=unconfined"),
        (Client::Docker, "/Config/Healthcheck", json!({ "Test": ["CMD", "true"] }), "health check"),
        (Client::Docker, "/Mounts/0/Driver", json!("nfs"), "Mounts.Driver"),
        (Client::Podman, "/HostConfig/IpcMode", json!("host"), "HostConfig.IpcMode"),
        (Client::Podman, "/Config/Umask", json!("0077"), "Config.Umask"),
        (Client::Nerdctl, "/Labels/nerdctl~1networks", json!("[\"container:x\"]"), "network container:x"),
        (Client::Nerdctl, "/Labels/nerdctl~1ipc", json!("{\"mode\":\"host\"}"), "mode"),
        (Client::Nerdctl, "/Spec/linux/seccomp", Value::Null, "seccomp=unconfined"),
        (Client::Ctr, "/Spec/process/terminal", json!(true), "terminal"),
        (Client::Ctr, "/Spec/hooks", json!({ "poststop": [{ "path": "/bin/x" }] }), "spec.hooks"),
        (Client::Ctr, "/Spec/linux/namespaces", json!([{ "type": "user" }]), "user namespace"),
        (Client::Ctr, "/Spec/linux/resources/devices", json!([{ "allow": true, "access": "rwm" }]), "device"),
    ] {
        let mut container = captured(client);
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        container.pointer_mut(parent).unwrap()[name.replace("~1", "/")] = value;
        let error = read(client, &container).map(|_| pointer).unwrap_err().to_string();
        assert!(error.contains(told), "{pointer}: {error}");
    }
}

#[test]
fn a_field_of_a_later_version_is_refused_when_it_says_something() {
    for (client, parent) in
        [(Client::Docker, "HostConfig"), (Client::Podman, "Config"), (Client::Ctr, "Spec")]
    {
        let mut container = captured(client);
        container[parent]["Novelty"] = json!(false);
        read(client, &container).unwrap();
        container[parent]["Novelty"] = json!(true);
        assert!(read(client, &container).unwrap_err().to_string().contains("Novelty"), "{client:?}");
    }
}
