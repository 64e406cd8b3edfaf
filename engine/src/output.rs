//! Where the client keeps what a container has written, for a policy that looks at it.
//!
//! | client | where |
//! |---|---|
//! | the shim, told `file://` | that file |
//! | docker, nerdctl (`json-file`) | `ID-json.log`, beside the file that is mounted at `/etc/hostname` |
//! | podman (`k8s-file`) | `ctr.log` in the bundle |
//! | CRI | the newest file of `/var/log/pods/NAMESPACE_POD_UID/CONTAINER` |
//!
//! Others keep it where it cannot be read: nothing is known of it then.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fastmig_policy::Output;

use crate::spec::Spec;
use crate::state::Record;

/// What an application wrote last is on its way through pipes and programs; not longer than this.
const ON_ITS_WAY: Duration = Duration::from_millis(300);

/// A log that has not grown for so long has all of it.
const QUIET: Duration = Duration::from_millis(30);

/// Where a kubelet wants logs.
const PODS: &str = "/var/log/pods";

/// The directory of a pod's container's logs, as its spec tells.
pub(crate) fn of_pod(spec: &Spec) -> Option<PathBuf> {
    let word = |key: &str| {
        let value = spec.annotation(&format!("io.kubernetes.cri.{key}"))?;
        let plain = !value.is_empty() && !value.contains('/') && value != "..";
        plain.then_some(value)
    };
    let pod = [word("sandbox-namespace")?, word("sandbox-name")?, word("sandbox-uid")?].join("_");
    Some(Path::new(PODS).join(pod).join(word("container-name")?))
}

/// The last `lines` of what a container has written, once no more comes; nothing where it cannot be read.
pub(crate) fn last(record: &Record, lines: usize) -> Output {
    let Some(path) = find(record) else { return Output::default() };
    settle(&path);
    Output::tail(&path, lines).unwrap_or_else(|e| {
        tracing::warn!(?path, error = %e, "the log cannot be read");
        Output::default()
    })
}

fn find(record: &Record) -> Option<PathBuf> {
    let id = record.key.id();
    let beside = record.names.client_directory().map(|directory| directory.join(format!("{id}-json.log")));
    let candidates = [record.log.clone(), beside, Some(record.bundle.join("ctr.log"))];
    candidates.into_iter().flatten().find_map(|path| match std::fs::symlink_metadata(&path) {
        Ok(metadata) if metadata.is_file() => Some(path),
        Ok(metadata) if metadata.is_dir() => newest(&path),
        _ => None,
    })
}

fn newest(directory: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(directory).ok()?.flatten();
    let logs = entries.filter(|entry| entry.path().extension().is_some_and(|extension| extension == "log"));
    logs.filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .max()
        .map(|(_, path)| path)
}

fn settle(path: &Path) {
    let length = || std::fs::metadata(path).map(|metadata| metadata.len()).ok();
    let deadline = Instant::now() + ON_ITS_WAY;
    let mut before = length();
    while Instant::now() < deadline {
        std::thread::sleep(QUIET);
        let now = length();
        if now == before {
            return;
        }
        before = now;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(uid: &str) -> Spec {
        let bundle = tempfile::tempdir().unwrap();
        let spec = json!({ "annotations": {
            "io.kubernetes.cri.container-name": "app",
            "io.kubernetes.cri.sandbox-name": "web",
            "io.kubernetes.cri.sandbox-namespace": "shop",
            "io.kubernetes.cri.sandbox-uid": uid,
        }});
        std::fs::write(bundle.path().join("config.json"), spec.to_string()).unwrap();
        Spec::load(bundle.path(), &crate::Config::default()).unwrap()
    }

    #[test]
    fn a_pod_s_log_is_where_a_kubelet_keeps_it() {
        assert_eq!(of_pod(&spec("1-2")), Some("/var/log/pods/shop_web_1-2/app".into()));
        assert_eq!(of_pod(&spec("../../../etc")), None);
    }

    #[test]
    fn the_newest_log_of_a_directory_counts() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["0.log", "other", "1.log"] {
            std::fs::write(directory.path().join(name), name).unwrap();
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(newest(directory.path()), Some(directory.path().join("1.log")));
    }
}
