//! What the shim itself reads of a bundle's `config.json`.

use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;

use crate::error::Error;

/// Groups containers whose tasks share a shim; the first that is set wins, as in the stock shim.
const GROUP_ANNOTATIONS: [&str; 2] = ["io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id"];
/// What a checkpoint leaves behind when the request does not say: the application, or an empty container.
const AFTER_CHECKPOINT: &str = "fastmig.dev/after-checkpoint";

/// The part of a spec that decides how the shim treats its container.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Spec {
    #[serde(default)]
    annotations: HashMap<String, String>,
    #[serde(default)]
    linux: Option<Linux>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Linux {
    #[serde(default)]
    namespaces: Vec<Namespace>,
}

#[derive(Debug, Clone, Deserialize)]
struct Namespace {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    path: String,
}

impl Spec {
    pub(crate) fn read(bundle: &Path) -> Result<Self, Error> {
        let path = bundle.join("config.json");
        let json = std::fs::read(&path).map_err(|e| Error::io("read", &path, e))?;
        serde_json::from_slice(&json)
            .map_err(|e| Error::Invalid { what: "config.json", reason: e.to_string() })
    }

    /// Whose shim serves this container: its pod's, or one of its own.
    pub(crate) fn group<'a>(&'a self, id: &'a str) -> &'a str {
        GROUP_ANNOTATIONS.iter().find_map(|key| self.annotations.get(*key)).map_or(id, String::as_str)
    }

    /// Whether processes of the container outlive its PID 1, since their PID namespace is not its own.
    pub(crate) fn shares_pid_namespace(&self) -> bool {
        let namespaces = self.linux.iter().flat_map(|linux| &linux.namespaces);
        !namespaces.into_iter().any(|namespace| namespace.kind == "pid" && namespace.path.is_empty())
    }

    /// Whether a checkpoint leaves the container in standby.
    pub(crate) fn stands_by_after_checkpoint(&self) -> Result<bool, Error> {
        match self.annotations.get(AFTER_CHECKPOINT).map(String::as_str) {
            None | Some("run") => Ok(false),
            Some("standby") => Ok(true),
            Some(other) => Err(Error::Invalid {
                what: "annotation fastmig.dev/after-checkpoint",
                reason: format!("{other:?} is neither run nor standby"),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(json: &str) -> Spec {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_container_is_grouped_by_its_pod() {
        assert_eq!(spec("{}").group("c1"), "c1");
        let pod = spec(r#"{"annotations": {"io.kubernetes.cri.sandbox-id": "pod"}}"#);
        assert_eq!(pod.group("c1"), "pod");
        let both =
            r#"{"annotations": {"io.kubernetes.cri.sandbox-id": "a", "io.containerd.runc.v2.group": "b"}}"#;
        assert_eq!(spec(both).group("c1"), "b");
    }

    #[test]
    fn a_pid_namespace_of_its_own_has_no_path() {
        assert!(spec("{}").shares_pid_namespace());
        assert!(!spec(r#"{"linux": {"namespaces": [{"type": "pid"}]}}"#).shares_pid_namespace());
        let joined = r#"{"linux": {"namespaces": [{"type": "pid", "path": "/proc/1/ns/pid"}]}}"#;
        assert!(spec(joined).shares_pid_namespace());
    }

    #[test]
    fn a_checkpoint_leaves_the_application_unless_told() {
        let after = |value: &str| {
            spec(&format!(r#"{{"annotations": {{"fastmig.dev/after-checkpoint": "{value}"}}}}"#))
                .stands_by_after_checkpoint()
        };
        assert!(!spec("{}").stands_by_after_checkpoint().unwrap());
        assert!(!after("run").unwrap());
        assert!(after("standby").unwrap());
        assert!(matches!(after("exit"), Err(Error::Invalid { .. })));
    }
}
