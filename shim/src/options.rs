//! The runtime's options as containerd sends them, in either of its two types, and as they lie in the bundle.
//!
//! containerd's tools send `containerd.runc.v1.Options` to whom they take for a runc shim; its CRI plugin
//! sends `runtimeoptions.v1.Options` to every other name, with its configuration as TOML inside.

use std::path::{Path, PathBuf};

use containerd_shim::api;
use containerd_shim::protos::protobuf::well_known_types::any::Any;
use containerd_shim::protos::protobuf::{CodedInputStream, Message};
use fastmig_engine::runc;
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// Where the stock shim keeps runc's state.
const RUNC_ROOT: &str = "/run/containerd/runc";
const FILE: &str = "options.json";
/// The runc binary, once more, for tools that read it as the stock shim writes it.
const RUNTIME_FILE: &str = "runtime";

/// The options of one task. Read from the file as the stock shim writes it, and from CRI's TOML.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Options {
    #[serde(alias = "NoPivotRoot")]
    pub(crate) no_pivot_root: bool,
    #[serde(alias = "NoNewKeyring")]
    pub(crate) no_new_keyring: bool,
    #[serde(alias = "ShimCgroup")]
    pub(crate) shim_cgroup: String,
    #[serde(alias = "IoUid")]
    pub(crate) io_uid: u32,
    #[serde(alias = "IoGid")]
    pub(crate) io_gid: u32,
    #[serde(alias = "BinaryName")]
    pub(crate) binary_name: String,
    #[serde(alias = "Root")]
    pub(crate) root: String,
    #[serde(alias = "SystemdCgroup")]
    pub(crate) systemd_cgroup: bool,
    #[serde(alias = "CriuImagePath")]
    pub(crate) criu_image_path: String,
    #[serde(alias = "CriuWorkPath")]
    pub(crate) criu_work_path: String,
}

impl Options {
    /// The options in a request; without any, the defaults.
    pub(crate) fn from_any(any: Option<&Any>) -> Result<Self, Error> {
        let Some(any) = any.filter(|any| !any.value.is_empty()) else { return Ok(Self::default()) };
        match type_name(any) {
            "containerd.runc.v1.Options" => {
                let options = api::Options::parse_from_bytes(&any.value).map_err(|e| invalid(&e))?;
                Ok(Self::from_message(options))
            }
            "runtimeoptions.v1.Options" => Self::from_generic(&any.value),
            other => {
                Err(Error::Invalid { what: "runtime options", reason: format!("unknown type {other:?}") })
            }
        }
    }

    /// The options on the standard input of `start` and `-info`: an encoded Any. Newer containerds send other
    /// messages there too; what is not ours is no options.
    pub(crate) fn from_stdin(bytes: &[u8]) -> Self {
        Any::parse_from_bytes(bytes).ok().and_then(|any| Self::from_any(Some(&any)).ok()).unwrap_or_default()
    }

    fn from_message(message: api::Options) -> Self {
        Self {
            no_pivot_root: message.no_pivot_root,
            no_new_keyring: message.no_new_keyring,
            shim_cgroup: message.shim_cgroup,
            io_uid: message.io_uid,
            io_gid: message.io_gid,
            binary_name: message.binary_name,
            root: message.root,
            systemd_cgroup: message.systemd_cgroup,
            criu_image_path: message.criu_image_path,
            criu_work_path: message.criu_work_path,
        }
    }

    /// `runtimeoptions.v1.Options`: `string type_url = 1; string config_path = 2; bytes config_body = 3`.
    fn from_generic(bytes: &[u8]) -> Result<Self, Error> {
        const CONFIG_PATH: u32 = 2 << 3 | 2;
        const CONFIG_BODY: u32 = 3 << 3 | 2;
        let (mut path, mut body) = (String::new(), Vec::new());
        let mut input = CodedInputStream::from_bytes(bytes);
        while let Some(tag) = input.read_raw_tag_or_eof().map_err(|e| invalid(&e))? {
            match tag {
                CONFIG_PATH => path = input.read_string().map_err(|e| invalid(&e))?,
                CONFIG_BODY => body = input.read_bytes().map_err(|e| invalid(&e))?,
                other => protobuf::rt::skip_field_for_tag(other, &mut input).map_err(|e| invalid(&e))?,
            }
        }
        if body.is_empty() && !path.is_empty() {
            body = std::fs::read(&path).map_err(|e| Error::io("read", path, e))?;
        }
        let text = String::from_utf8(body).map_err(|e| invalid(&e))?;
        toml::from_str(&text).map_err(|e| invalid(&e))
    }

    /// Writes them into the bundle, where `delete` finds them when this shim is no more.
    pub(crate) fn save(&self, bundle: &Path) -> Result<(), Error> {
        let json = serde_json::to_vec(self).map_err(|e| invalid(&e))?;
        for (name, content) in [(FILE, json.as_slice()), (RUNTIME_FILE, self.binary_name.as_bytes())] {
            let path = bundle.join(name);
            std::fs::write(&path, content).map_err(|e| Error::io("write", path, e))?;
        }
        Ok(())
    }

    /// What a shim saved in the bundle; the defaults when it came to nothing.
    pub(crate) fn load(bundle: &Path) -> Self {
        std::fs::read(bundle.join(FILE))
            .ok()
            .and_then(|json| serde_json::from_slice(&json).ok())
            .unwrap_or_default()
    }

    /// The runc that these options ask for; `configured` where they name none.
    pub(crate) fn runc(&self, namespace: &str, configured: &Path) -> runc::Options {
        let root = if self.root.is_empty() { RUNC_ROOT } else { &self.root };
        runc::Options {
            binary: self.binary(configured).into(),
            root: PathBuf::from(root).join(namespace),
            systemd_cgroup: self.systemd_cgroup,
        }
    }

    /// The name or path of runc; `configured` where these options name none.
    pub(crate) fn binary<'a>(&'a self, configured: &'a Path) -> &'a Path {
        if self.binary_name.is_empty() {
            configured
        } else {
            Path::new(&self.binary_name)
        }
    }
}

/// The message's name in an Any, with or without a host before it.
pub(crate) fn type_name(any: &Any) -> &str {
    any.type_url.rsplit('/').next().unwrap_or_default()
}

fn invalid(error: &dyn std::error::Error) -> Error {
    Error::Invalid { what: "runtime options", reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use containerd_shim::protos::protobuf::CodedOutputStream;

    fn any(type_url: &str, value: Vec<u8>) -> Any {
        Any { type_url: type_url.into(), value, ..Any::default() }
    }

    fn generic(path: &str, body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut output = CodedOutputStream::vec(&mut bytes);
        output.write_string(1, "runtimeoptions.v1.Options").unwrap();
        output.write_string(2, path).unwrap();
        output.write_bytes(3, body).unwrap();
        output.flush().unwrap();
        drop(output);
        bytes
    }

    #[test]
    fn runc_options_are_taken_field_by_field() {
        let message = api::Options {
            binary_name: "/opt/runc".into(),
            root: "/run/other".into(),
            systemd_cgroup: true,
            io_uid: 1000,
            ..api::Options::default()
        };
        let any = any("containerd.runc.v1.Options", message.write_to_bytes().unwrap());
        let options = Options::from_any(Some(&any)).unwrap();
        assert_eq!(options.io_uid, 1000);
        let runc = options.runc("k8s.io", Path::new("crun"));
        assert_eq!(runc.binary, Path::new("/opt/runc"));
        assert_eq!(runc.root, Path::new("/run/other/k8s.io"));
        assert!(runc.systemd_cgroup);
    }

    #[test]
    fn cri_options_are_toml_in_another_message() {
        let toml = b"BinaryName = \"/opt/runc\"\nSystemdCgroup = true\nSomethingNew = 1\n";
        let any = any("types.example.com/runtimeoptions.v1.Options", generic("", toml));
        let options = Options::from_any(Some(&any)).unwrap();
        assert_eq!(options.binary_name, "/opt/runc");
        assert!(options.systemd_cgroup);
    }

    #[test]
    fn a_config_path_is_read_when_there_is_no_body() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "NoPivotRoot = true").unwrap();
        let path = file.path().to_str().unwrap();
        assert!(Options::from_generic(&generic(path, b"")).unwrap().no_pivot_root);
        assert!(!Options::from_generic(&generic(path, b"Root = \"/r\"")).unwrap().no_pivot_root);
    }

    #[test]
    fn no_options_are_the_defaults() {
        let options = Options::from_any(None).unwrap();
        assert_eq!(options, Options::default());
        assert_eq!(
            options.runc("default", Path::new("crun")).root,
            Path::new("/run/containerd/runc/default")
        );
        assert_eq!(options.binary(Path::new("crun")), Path::new("crun"));
    }

    #[test]
    fn other_types_and_garbage_are_refused() {
        for any in [
            any("example.Options", vec![1]),
            any("containerd.runc.v1.Options", vec![0xff; 9]),
            any("runtimeoptions.v1.Options", generic("", b"= not toml")),
        ] {
            assert!(matches!(Options::from_any(Some(&any)), Err(Error::Invalid { .. })), "{any:?}");
        }
    }

    #[test]
    fn a_strange_standard_input_is_no_options() {
        assert_eq!(Options::from_stdin(b""), Options::default());
        assert_eq!(Options::from_stdin(&[0xff; 40]), Options::default());
    }

    #[test]
    fn what_is_saved_is_loaded_and_what_the_stock_shim_saved_too() {
        let bundle = tempfile::tempdir().unwrap();
        assert_eq!(Options::load(bundle.path()), Options::default());
        let options = Options { root: "/r".into(), io_gid: 7, ..Options::default() };
        options.save(bundle.path()).unwrap();
        assert_eq!(Options::load(bundle.path()), options);
        std::fs::write(bundle.path().join(FILE), r#"{"binary_name":"crun","systemd_cgroup":true}"#).unwrap();
        assert_eq!(Options::load(bundle.path()).binary(Path::new("runc")), Path::new("crun"));
    }
}
