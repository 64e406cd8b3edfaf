//! A client's way to FastMig: how its containers are run there, what it tells of them, and how they and images go.

use anyhow::{Context, Result};
use serde_json::Value;

use super::stage::{full_name, IMAGE};
use crate::framework::Host;

/// Counts, in a file of its own, and starts nothing else.
pub(super) const SCRIPT: &str =
    "mkfifo /tmp/never; exec 3<>/tmp/never; while :; do i=$((i+1)); echo $i >/tmp/count; read -t 1 line <&3; done";

/// What docker, podman and nerdctl are asked for, as its user types it; the port's number makes containers differ.
const OPTIONS: &[&str] = &[
    "--env=GREETING=hello there",
    "--user=100:101",
    "--workdir=/tmp",
    "--restart=unless-stopped",
    "--label=who=me",
    "--memory=200m",
    "--cpu-shares=512",
    "--pids-limit=100",
    "--ulimit=nofile=200:300",
    "--sysctl=net.core.somaxconn=99",
    "--cap-drop=MKNOD",
    "--tmpfs=/scratch:size=1m",
    "--volume=/anonymous",
    "--add-host=neighbour:192.0.2.1",
    "--annotation=fastmig.dev/after-checkpoint=standby",
];

/// The same for ctr, as far as it can.
const CTRS: &[&str] = &[
    "--net-host",
    "--env=GREETING=hello there",
    "--user=100:101",
    "--cwd=/tmp",
    "--label=who=me",
    "--memory-limit=209715200",
    "--cap-drop=CAP_MKNOD",
    "--mount=type=tmpfs,src=tmpfs,dst=/scratch,options=size=1m",
    "--annotation=fastmig.dev/after-checkpoint=standby",
];

/// What of `Config` is about the command line that made it.
const CONFIGS_OWN: &[&str] =
    &["CreateCommand", "Annotations", "Image", "Entrypoint", "Cmd", "AttachStdout", "AttachStderr"];

/// One way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Way {
    pub(super) client: &'static str,
    /// The client's words for the runtime.
    pub(super) runtime: &'static [&'static str],
    /// The container's name.
    pub(super) name: &'static str,
    /// The port that it publishes, on both hosts.
    pub(super) port: u16,
}

impl Way {
    /// Runs it; its options are this way's.
    pub(super) fn run(&self, host: &Host) -> Result<()> {
        let mut line = vec![self.client];
        // podman's runtime is no option of `run`.
        let (before, after): (&[&str], &[&str]) =
            if self.client == "podman" { (self.runtime, &[]) } else { (&[], self.runtime) };
        line.extend(before);
        line.extend(["run", "-d"]);
        line.extend(after);
        let (image, name, port) = (full_name(), format!("--name={}", self.name), self.published());
        let volume = format!("--volume={}-data:/data", self.name);
        let log = format!("--log-uri=file:///var/log/{}.log", self.name);
        if self.client == "ctr" {
            line.push(&log);
            line.extend(CTRS);
            line.extend([&image, self.name]);
        } else {
            line.extend([name.as_str(), &port, &volume]);
            line.extend(OPTIONS);
            line.push(if self.client == "nerdctl" { &image } else { "busybox:1" });
        }
        line.extend(["sh", "-c", SCRIPT]);
        host.cmd(line).ok().map(drop)
    }

    fn published(&self) -> String {
        format!("--publish={}:6379", self.port)
    }

    /// Removes it, also when it is not there.
    pub(super) fn remove(&self, host: &Host) -> Result<()> {
        let script = match self.client {
            "ctr" => "ctr tasks rm -f $1; ctr containers rm $1",
            "docker" => "docker rm -f -v $1; docker volume rm $1-data",
            "podman" => "podman rm -f -v -t 0 $1; podman volume rm $1-data",
            _ => "nerdctl rm -f -v $1; nerdctl volume rm $1-data",
        };
        host.cmd(["sh", "-c", &format!("{script}; true"), "sh", self.name]).ok().map(drop)
    }

    /// Removes the image from the client's store, also when it is not there.
    pub(super) fn forget_image(&self, host: &Host) -> Result<()> {
        let script = match self.client {
            "ctr" | "nerdctl" => format!("ctr images rm --sync {}", full_name()),
            client => format!("{client} rmi -f {IMAGE}:1"),
        };
        host.sh(&format!("{script}; true")).ok().map(drop)
    }

    /// What the client tells of it, without what must differ between two hosts.
    pub(super) fn told(&self, host: &Host) -> Result<Value> {
        let line: &[&str] = match self.client {
            "ctr" => &["ctr", "containers", "info", self.name],
            "nerdctl" => &["nerdctl", "inspect", "--mode=native", self.name],
            client => &[client, "inspect", self.name],
        };
        let text = host.cmd(line.iter().copied()).ok()?;
        let value: Value = serde_json::from_str(&text).context("the client tells no JSON")?;
        let value = value.get(0).cloned().unwrap_or(value);
        Ok(match self.client {
            "ctr" | "nerdctl" => of_spec(value),
            _ => of_inspect(value),
        })
    }
}

/// docker's and podman's. Between the two hosts are years of releases.
fn of_inspect(mut value: Value) -> Value {
    let mut told =
        serde_json::json!({ "Config": value["Config"].take(), "HostConfig": value["HostConfig"].take() });
    let config = &mut told["Config"];
    for field in CONFIGS_OWN {
        config.as_object_mut().map(|config| config.remove(*field));
    }
    // The whole command line stands at its own place.
    config["Argv"] = Value::Array(
        std::iter::once(value["Path"].take())
            .chain(value["Args"].as_array().cloned().unwrap_or_default())
            .collect(),
    );
    let host = &mut told["HostConfig"];
    for field in ["MaskedPaths", "ReadonlyPaths", "ConsoleSize", "Binds", "Runtime"] {
        host.as_object_mut().map(|host| host.remove(field));
    }
    for capability in host["CapDrop"].as_array_mut().into_iter().flatten() {
        // docker 28 says more letters of the same.
        *capability = capability.as_str().unwrap_or_default().trim_start_matches("CAP_").into();
    }
    for field in ["Path", "Size"] {
        host["LogConfig"].as_object_mut().map(|log| log.remove(field));
    }
    let mut mounts: Vec<String> = value["Mounts"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|mount| {
            let name = mount["Name"].as_str().filter(|name| name.len() < 64).unwrap_or("anonymous");
            format!("{} {name} {} {}", mount["Type"], mount["Destination"], mount["RW"])
        })
        .collect();
    mounts.sort();
    told["Mounts"] = mounts.into();
    without_own_words(told)
}

/// containerd's: labels and spec.
fn of_spec(mut value: Value) -> Value {
    let mut spec = value["Spec"].take();
    if let Some(spec) = spec.as_object_mut() {
        spec.remove("ociVersion");
        spec.remove("hooks");
    }
    for field in ["cgroupsPath", "seccomp", "maskedPaths", "readonlyPaths"] {
        spec["linux"].as_object_mut().map(|linux| linux.remove(field));
    }
    let mounts = spec["mounts"].take();
    let mut mounts: Vec<String> = mounts
        .as_array()
        .into_iter()
        .flatten()
        .map(|mount| format!("{} {} {}", mount["destination"], mount["type"], mount["options"]))
        .collect();
    mounts.sort();
    let told = serde_json::json!({
        "Labels": own_labels(&value["Labels"]), "Spec": spec, "Mounts": mounts, "Runtime": value["Runtime"]["Name"],
    });
    without_own_words(told)
}

fn own_labels(labels: &Value) -> Value {
    let own =
        |key: &str| !["nerdctl/", "containerd.io/", "io.containerd."].iter().any(|p| key.starts_with(p));
    labels
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, _)| own(key))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect()
}

/// Without annotations that clients write themselves, the order of the environment, and what is empty on one host and not
/// there on the other.
fn without_own_words(mut told: Value) -> Value {
    for place in ["HostConfig", "Spec"] {
        let key = if place == "Spec" { "annotations" } else { "Annotations" };
        if let Some(annotations) = told[place][key].as_object_mut() {
            annotations.retain(|key, _| key.starts_with("fastmig.dev/") && key != "fastmig.dev/start");
        }
    }
    for pointer in ["/Config/Env", "/Spec/process/env"] {
        if let Some(env) = told.pointer_mut(pointer).and_then(Value::as_array_mut) {
            // Where the network is the host's, so is the name.
            env.retain(|entry| !entry.as_str().unwrap_or_default().starts_with("HOSTNAME="));
            env.sort_by_key(ToString::to_string);
        }
    }
    pruned(told)
}

fn pruned(value: Value) -> Value {
    match value {
        Value::Object(object) => object
            .into_iter()
            .map(|(key, value)| (key, pruned(value)))
            .filter(|(_, value)| !is_nothing(value))
            .collect(),
        other => other,
    }
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(values) => values.is_empty(),
        Value::Object(object) => object.is_empty(),
        Value::Bool(true) => false,
    }
}
