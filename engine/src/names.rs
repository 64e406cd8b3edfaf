//! What the clients call a container. Only some tell the runtime; the others' own files do.
//!
//! | client | where the name is |
//! |---|---|
//! | nerdctl | annotation `nerdctl/name` |
//! | CRI (kubelet, crictl) | annotations `io.kubernetes.cri.*` |
//! | docker | `config.v2.json`, beside the file that it mounts at `/etc/hostname` |
//! | podman | `containers.json`, or `volatile-containers.json` with `--rm`, two directories above the bundle |
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

    /// The client's own directory of the container, if it has one.
    pub(crate) fn client_directory(&self) -> Option<&Path> {
        self.client.as_deref()
    }

    /// The names that container `id` has now; `bundle` is that of its runtime.
    #[must_use]
    pub fn now(&self, id: &str, bundle: &Path) -> Vec<String> {
        let mut names = self.told.clone();
        names.extend(self.client.as_deref().and_then(docker).or_else(|| podman(bundle, id)));
        names
    }
}

fn docker(directory: &Path) -> Option<String> {
    let config = read(&directory.join("config.v2.json"))?;
    Some(config["Name"].as_str()?.trim_start_matches('/').to_owned())
}

/// `bundle` is `GRAPH/overlay-containers/ID/userdata`.
fn podman(bundle: &Path, id: &str) -> Option<String> {
    let lists = bundle.parent()?.parent()?;
    ["containers.json", "volatile-containers.json"].iter().find_map(|name| {
        let list = read(&lists.join(name))?;
        let container = list.as_array()?.iter().find(|container| container["id"] == id)?;
        container["names"][0].as_str().map(str::to_owned)
    })
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
        Names::of(&Spec::load(bundle.path(), &crate::Config::default()).unwrap())
    }

    #[test]
    fn a_pods_container_is_known_by_its_pod_too() {
        let names = names(&json!({ "annotations": {
            "io.kubernetes.cri.container-name": "app",
            "io.kubernetes.cri.sandbox-name": "web",
            "io.kubernetes.cri.sandbox-namespace": "shop",
        }}));
        assert_eq!(names.now("x", Path::new("/")), ["shop/web/app", "web/app", "app"]);
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
        assert_eq!(at(&docker).now("0123", Path::new("/run/bundle")), ["shop"]);

        let lists = root.path().join("overlay-containers");
        for (list, id, name) in [("containers", "4567", "cart"), ("volatile-containers", "89", "till")] {
            let bundle = lists.join(id).join("userdata");
            std::fs::create_dir_all(&bundle).unwrap();
            let list = lists.join(list).with_extension("json");
            std::fs::write(list, json!([{ "id": id, "names": [name] }]).to_string()).unwrap();
            // The file at /etc/hostname lies elsewhere, on a tmpfs.
            let names = at(Path::new("/run/overlay-containers").join(id).as_path());
            assert_eq!(names.now(id, &bundle), [name]);
        }
    }

    #[test]
    fn without_a_client_there_is_no_name() {
        assert!(names(&json!({})).now("x", Path::new("/")).is_empty());
    }
}
