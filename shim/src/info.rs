//! `-info`: what this shim and its runc can do, asked by containerd 2 and later.

use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use containerd_shim::protos::protobuf::well_known_types::any::Any;
use containerd_shim::protos::protobuf::{Message, MessageField};
use containerd_shim::protos::types::introspection::{RuntimeInfo, RuntimeVersion};
use fastmig_engine::Config;
use serde_json::{json, Value};

use crate::options::Options;
use crate::RUNTIME;

const FEATURES_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";
/// The feature that clients look at before they ask for a checkpoint.
const CHECKPOINT: &str = "org.opencontainers.runc.checkpoint.enabled";

/// Answers on standard output what was asked on standard input.
pub(crate) fn answer() -> io::Result<()> {
    let mut input = Vec::new();
    io::stdin().read_to_end(&mut input)?;
    let bytes = info(&input).write_to_bytes().map_err(io::Error::other)?;
    io::stdout().write_all(&bytes)
}

fn info(input: &[u8]) -> RuntimeInfo {
    let version = RuntimeVersion { version: env!("CARGO_PKG_VERSION").into(), ..RuntimeVersion::default() };
    let configured = Config::load().inspect_err(|e| eprintln!("{}", e.report())).unwrap_or_default().runtime;
    let features = features(Options::from_stdin(input).binary(&configured)).map(|features| Any {
        type_url: FEATURES_TYPE.into(),
        value: features.to_string().into_bytes(),
        ..Any::default()
    });
    RuntimeInfo {
        name: RUNTIME.into(),
        version: MessageField::some(version),
        options: Any::parse_from_bytes(input).ok().filter(|any| !any.type_url.is_empty()).into(),
        features: features.into(),
        ..RuntimeInfo::default()
    }
}

/// runc's own features and the one that FastMig adds; nothing when runc cannot say.
fn features(runc: &Path) -> Option<Value> {
    let output = Command::new(runc).arg("features").stdin(Stdio::null()).output();
    let output = output.inspect_err(|e| eprintln!("could not start {runc:?}: {e}")).ok()?;
    with_checkpoint(serde_json::from_slice(&output.stdout).ok()?)
}

fn with_checkpoint(mut features: Value) -> Option<Value> {
    let annotations = features.as_object_mut()?.entry("annotations").or_insert_with(|| json!({}));
    annotations.as_object_mut()?.insert(CHECKPOINT.into(), "true".into());
    Some(features)
}

#[cfg(test)]
mod tests {
    use super::*;
    use containerd_shim::api;

    fn input(binary: &str) -> Vec<u8> {
        let options = api::Options { binary_name: binary.into(), ..api::Options::default() };
        Any {
            type_url: "containerd.runc.v1.Options".into(),
            value: options.write_to_bytes().unwrap(),
            ..Any::default()
        }
        .write_to_bytes()
        .unwrap()
    }

    #[test]
    fn without_runc_there_are_no_features_and_no_panic() {
        let info = info(&input("/nonexistent/runc"));
        assert_eq!(info.name, "io.containerd.fastmig.v1");
        assert!(info.features.is_none());
        assert!(info.options.is_some());
    }

    #[test]
    fn checkpoint_is_announced_beside_what_runc_says() {
        let features = json!({"ociVersionMin": "1.0.0", "annotations": {CHECKPOINT: "false", "a": "b"}});
        let features = with_checkpoint(features).unwrap();
        assert_eq!(features["annotations"][CHECKPOINT], "true");
        assert_eq!(features["annotations"]["a"], "b");
        assert_eq!(features["ociVersionMin"], "1.0.0");
        assert_eq!(with_checkpoint(json!({})).unwrap()["annotations"][CHECKPOINT], "true");
        assert_eq!(with_checkpoint(json!([])), None);
    }

    #[test]
    fn a_runc_that_knows_no_features_has_none() {
        assert!(info(&input("true")).features.is_none());
    }
}
