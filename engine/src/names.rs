//! What the clients call a container. Only some tell the runtime; the others' own files do.
//!
//! | client | where the name is |
//! |---|---|
//! | nerdctl | annotation `nerdctl/name` |
//! | CRI (kubelet, crictl) | annotations `io.kubernetes.cri.*` |
//! | docker | `config.v2.json`, beside the file that it mounts at `/etc/hostname` |
//! | podman | `containers.json`, three directories above the one that it mounts at `/etc/hostname` |
//!
//! A name is a convenience: where none can be read the id still serves.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::spec::Spec;

/// Where a container's names can be found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    /// Those that the spec told.
    told: Vec<String>,
    /// The client's directory of this container.
    client: Option<PathBuf>,
}

impl Names {
    pub(crate) fn of(spec: &Spec) -> Self {
        let annotation = |key: &str| spec.annotation(key).map(str::to_owned);
        let mut told: Vec<String> = annotation("nerdctl/name").into_iter().collect();
        if let Some(container) = annotation("io.kubernetes.cri.container-name") {
            let pod =
                ["namespace", "name"].map(|word| annotation(&format!("io.kubernetes.cri.sandbox-{word}")));
            if let [Some(namespace), Some(pod)] = pod {
                told.extend([format!("{namespace}/{pod}/{container}"), format!("{pod}/{container}")]);
            }
            told.push(container);
        }
        let client = spec.mount_source("/etc/hostname").and_then(Path::parent).map(Path::to_path_buf);
        Self { told, client }
    }

    /// The names that container `id` has now.
    #[must_use]
    pub fn now(&self, id: &str) -> Vec<String> {
        let mut names = self.told.clone();
        if let Some(directory) = &self.client {
            names.extend(docker(directory).or_else(|| podman(directory, id)));
        }
        names
    }
}

fn docker(directory: &Path) -> Option<String> {
    let config = read(&directory.join("config.v2.json"))?;
    Some(config["Name"].as_str()?.trim_start_matches('/').to_owned())
}

/// `directory` is `GRAPH/overlay-containers/ID/userdata`; where it lies on a tmpfs the name is only in the other one.
fn podman(directory: &Path, id: &str) -> Option<String> {
    let list = read(&directory.parent()?.parent()?.join("containers.json"))?;
    let container = list.as_array()?.iter().find(|container| container["id"] == id)?;
    container["names"][0].as_str().map(str::to_owned)
}

fn read(path: &Path) -> Option<Value> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn names(spec: &Value) -> Names {
        let bundle = tempfile::tempdir().unwrap();
        std::fs::write(bundle.path().join("config.json"), spec.to_string()).unwrap();
        Names::of(&Spec::load(bundle.path(), crate::config::Defaults::default()).unwrap())
    }

    #[test]
    fn a_pods_container_is_known_by_its_pod_too() {
        let names = names(&json!({ "annotations": {
            "io.kubernetes.cri.container-name": "app",
            "io.kubernetes.cri.sandbox-name": "web",
            "io.kubernetes.cri.sandbox-namespace": "shop",
        }}));
        assert_eq!(names.now("x"), ["shop/web/app", "web/app", "app"]);
    }

    #[test]
    fn docker_and_podman_know_the_names_of_today() {
        let root = tempfile::tempdir().unwrap();
        let at = |directory: &Path| {
            names(
                &json!({ "mounts": [{ "destination": "/etc/hostname", "source": directory.join("hostname") }] }),
            )
        };
        let docker = root.path().join("containers/0123");
        std::fs::create_dir_all(&docker).unwrap();
        std::fs::write(docker.join("config.v2.json"), json!({ "Name": "/shop" }).to_string()).unwrap();
        assert_eq!(at(&docker).now("0123"), ["shop"]);

        let podman = root.path().join("overlay-containers/4567/userdata");
        std::fs::create_dir_all(&podman).unwrap();
        let list = json!([{ "id": "89", "names": ["other"] }, { "id": "4567", "names": ["cart"] }]);
        std::fs::write(root.path().join("overlay-containers/containers.json"), list.to_string()).unwrap();
        assert_eq!(at(&podman).now("4567"), ["cart"]);
    }

    #[test]
    fn without_a_client_there_is_no_name() {
        assert!(names(&json!({})).now("x").is_empty());
    }
}
