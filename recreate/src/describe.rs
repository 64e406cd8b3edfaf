//! Which client made a container, and what that client says of it.

use std::path::Path;

use fastmig_engine::Key;
use serde_json::Value;

use crate::call::Call;
use crate::error::Error;
use crate::fields::{answer, MAKE_IT};
use crate::recipe::{Client, Recipe, Runtime, FORMAT};
use crate::settings::Settings;
use crate::{inspect, nerdctl, spec, Recreator};

/// docker's namespace in containerd.
const DOCKERS: &str = "moby";

/// The kubelet's namespace in containerd.
const KUBELETS: &str = "k8s.io";

/// How the application comes up is decided anew for each container.
pub(crate) const START: &str = "fastmig.dev/start";

/// containerd's runtime type of FastMig's shim, and of its own one.
pub(crate) const SHIM: &str = "io.containerd.fastmig.v1";
pub(crate) const STOCK_SHIM: &str = "io.containerd.runc.v2";

/// FastMig's OCI runtime.
pub(crate) const WRAPPER: &str = "fastmig";

/// A container, as its client describes it.
#[derive(Debug)]
pub(crate) struct Described {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    pub(crate) container: Value,
}

impl Recreator {
    /// How to make the container once more.
    ///
    /// # Errors
    /// When no client knows it, when it belongs to a pod, or when it has settings that cannot be taken over: all of one
    /// kind are named at once.
    pub fn describe(&self, key: &Key) -> Result<Recipe, Error> {
        let described = self.ask(key)?;
        let recipe = self.recipe(&described)?;
        recipe.validate()?;
        Ok(recipe)
    }

    /// Asks the container's client.
    pub(crate) fn ask(&self, key: &Key) -> Result<Described, Error> {
        match key.namespace() {
            DOCKERS => self.inspected(Client::Docker, "", key.id()),
            KUBELETS => Err(Error::Pod { id: key.id().into() }),
            namespace => self.of_containerd(namespace, key.id()).or_else(|error| match error {
                Error::Failed { .. } | Error::Start { .. } => self
                    .inspected(Client::Podman, "", key.id())
                    .map_err(|error| unknown(error, namespace, key.id())),
                error => Err(error),
            }),
        }
    }

    fn of_containerd(&self, namespace: &str, id: &str) -> Result<Described, Error> {
        let container = one(Client::Ctr, &self.ctr(namespace).args(["containers", "info", id]).output()?)?;
        let labels = &container["Labels"];
        if !labels["io.cri-containerd.kind"].is_null() || !labels["io.kubernetes.pod.name"].is_null() {
            return Err(Error::Pod { id: id.into() });
        }
        match labels["nerdctl/name"].is_null() {
            true => Ok(Described { client: Client::Ctr, namespace: namespace.into(), container }),
            false => self.inspected(Client::Nerdctl, namespace, id),
        }
    }

    /// What docker's command line and its like say.
    pub(crate) fn inspected(&self, client: Client, namespace: &str, id: &str) -> Result<Described, Error> {
        let mode: &[&str] = if client == Client::Nerdctl { &["--mode=native"] } else { &[] };
        let call = self.client(client, namespace).args(["container", "inspect"]).args(mode.iter().copied());
        let container = one(client, &call.args([id]).output()?)?;
        Ok(Described { client, namespace: namespace.into(), container })
    }

    /// One of the container's own client, as `recipe`'s says it.
    pub(crate) fn recipe(&self, described: &Described) -> Result<Recipe, Error> {
        let Described { client, namespace, container } = described;
        let image = self.identity(described)?;
        let (name, runtime, mut settings): (&Value, Runtime, Settings) = match client {
            Client::Docker => {
                let runtime = container["HostConfig"]["Runtime"].as_str().unwrap_or_default();
                let healthy = self.health_check_of_image(described)?;
                (
                    &container["Name"],
                    Runtime::Named(runtime.into()),
                    inspect::settings(*client, container, &healthy)?,
                )
            }
            Client::Podman => {
                let healthy = self.health_check_of_image(described)?;
                (
                    &container["Name"],
                    wrapper(&container["OCIRuntime"])?,
                    inspect::settings(*client, container, &healthy)?,
                )
            }
            Client::Nerdctl => {
                let name = &container["Labels"]["nerdctl/name"];
                (name, containerd_runtime(&container["Runtime"])?, nerdctl::settings(container)?)
            }
            Client::Ctr => {
                (&container["ID"], containerd_runtime(&container["Runtime"])?, spec::of_ctr(container)?)
            }
        };
        let name = name.as_str().unwrap_or_default().trim_start_matches('/').to_owned();
        settings.annotations.remove(START);
        Ok(Recipe {
            format: FORMAT,
            client: *client,
            namespace: namespace.clone(),
            name,
            image,
            runtime,
            settings,
        })
    }

    /// One call of a client, on this host's own daemon.
    pub(crate) fn client(&self, client: Client, namespace: &str) -> Call {
        let call = Call::new(client.program(), self.limits.command);
        match client {
            Client::Docker => call.args(["--host=unix:///var/run/docker.sock"]),
            Client::Podman => call.args(["--remote=false"]),
            Client::Nerdctl => call.args([format!("--namespace={namespace}")]),
            Client::Ctr => call.args([format!("--namespace={namespace}")]),
        }
    }

    pub(crate) fn ctr(&self, namespace: &str) -> Call {
        self.client(Client::Ctr, namespace)
    }
}

/// No client knew it.
fn unknown(error: Error, namespace: &str, id: &str) -> Error {
    match error {
        Error::Failed { .. } | Error::Start { .. } => {
            Error::NoClient { namespace: namespace.into(), id: id.into() }
        }
        error => error,
    }
}

/// The one object that a client answers, alone or in a list.
pub(crate) fn one(client: Client, text: &str) -> Result<Value, Error> {
    let wrong = |message: &str| answer(client.program(), "a container or image", message);
    let value: Value = serde_json::from_str(text).map_err(|e| wrong(&e.to_string()))?;
    match value {
        Value::Array(values) if values.len() == 1 => Ok(values.into_iter().next().unwrap_or_default()),
        value @ Value::Object(_) => Ok(value),
        _ => Err(wrong("it is not one object")),
    }
}

/// podman tells a path, or a name of its settings.
fn wrapper(runtime: &Value) -> Result<Runtime, Error> {
    let runtime = runtime.as_str().unwrap_or_default();
    match Path::new(runtime).file_name().is_some_and(|name| name == WRAPPER) {
        true => Ok(Runtime::Wrapper),
        false => Err(no_runtime(runtime)),
    }
}

/// containerd tells a type, and the stock shim's options name an OCI runtime.
fn containerd_runtime(runtime: &Value) -> Result<Runtime, Error> {
    match runtime["Name"].as_str().unwrap_or_default() {
        SHIM => Ok(Runtime::Shim),
        // The options are a protocol buffer; FastMig knows the container, so it is the OCI runtime in them.
        STOCK_SHIM if !runtime["Options"].is_null() => Ok(Runtime::Wrapper),
        other => Err(no_runtime(other)),
    }
}

fn no_runtime(name: &str) -> Error {
    Error::Unsupported { setting: format!("runtime {name:?}"), remedy: MAKE_IT }
}
