//! How a spec is changed.

use std::path::{Path, PathBuf};

use fastmig_control::{INIT_PATH, RUNTIME_DIR};
use serde_json::{json, Map, Value};

use super::{Spec, SpecError};
use crate::start_options::IoUring;

impl Spec {
    /// A relative root is one in the bundle. It loses its dots: runc takes an absolute root as it is, and then
    /// looks for mount points at paths that have none.
    pub(crate) fn make_root_absolute(&mut self, bundle: &Path) {
        if let Some(path) = self.value["root"]["path"].as_str().map(|path| bundle.join(path)) {
            let clean: PathBuf = path.components().collect();
            self.value["root"]["path"] = json!(clean);
        }
    }

    /// Puts the init above the command and its read-only directory into the container. The init will find its
    /// socket as descriptor `control_fd`.
    pub(crate) fn put_init_above(&mut self, runtime_dir: &Path, control_fd: i32) -> Result<(), SpecError> {
        let command = self.array("/process/args", "process.args")?;
        let above = [INIT_PATH, "--control-fd", &control_fd.to_string(), "--"].map(|s| json!(s));
        command.splice(0..0, above);

        let root = self.object("", "root")?;
        let mounts = root.entry("mounts").or_insert_with(|| json!([]));
        let mounts = mounts.as_array_mut().ok_or(shape("mounts", "an array"))?;
        mounts.push(json!({
            "destination": RUNTIME_DIR,
            "type": "bind",
            "source": runtime_dir,
            "options": ["bind", "ro", "nosuid", "nodev"],
        }));
        if self.io_uring().unwrap_or_default() == IoUring::Deny {
            self.deny_io_uring()?;
        }
        Ok(())
    }

    /// Gives the container this AppArmor profile, unless it has one of its own or may mount, which the profile forbids. Its
    /// init, which is above the command already, gets the profile `init`, where the application can leave that.
    pub(crate) fn confine(&mut self, profile: &str, init: Option<&str>) -> Result<(), SpecError> {
        let bounding = self.value["process"]["capabilities"]["bounding"].as_array();
        let mounts = bounding.is_some_and(|set| set.contains(&json!("CAP_SYS_ADMIN")));
        let process = self.object("/process", "process")?;
        let own = process.get("apparmorProfile").and_then(Value::as_str).is_some_and(|own| !own.is_empty());
        if own || mounts {
            return Ok(());
        }
        process.insert("apparmorProfile".into(), json!(profile));
        let Some(init) = init.filter(|_| self.lets_profiles_change()) else { return Ok(()) };
        self.object("/process", "process")?.insert("apparmorProfile".into(), json!(init));
        let arguments = self.array("/process/args", "process.args")?;
        let place = arguments.iter().position(|word| word == "--").unwrap_or_default();
        arguments.splice(place..place, ["--profile", profile].map(|word| json!(word)));
        Ok(())
    }

    /// The kernel answers EPERM where no new privileges may be gained; and who changes asks by `/proc`.
    fn lets_profiles_change(&self) -> bool {
        let mut mounts = self.value["mounts"].as_array().into_iter().flatten();
        let has_proc = mounts.any(|mount| mount["destination"] == "/proc" && mount["type"] == "proc");
        has_proc && self.value["process"]["noNewPrivileges"] != true
    }

    /// Where no rule answers `io_uring_setup`, answers ENOSYS: CRIU cannot dump io_uring, and what asks for it
    /// has another way on kernels without it.
    fn deny_io_uring(&mut self) -> Result<(), SpecError> {
        const CALL: &str = "io_uring_setup";
        let root = self.object("", "root")?;
        let linux = root.entry("linux").or_insert_with(|| json!({}));
        let linux = linux.as_object_mut().ok_or(shape("linux", "an object"))?;
        let seccomp = linux.entry("seccomp").or_insert(Value::Null);
        if seccomp.is_null() {
            *seccomp = json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": architectures() });
        }
        let seccomp = seccomp.as_object_mut().ok_or(shape("linux.seccomp", "an object"))?;
        let lets_through = ["SCMP_ACT_ALLOW", "SCMP_ACT_LOG"].map(Value::from);
        let open = seccomp.get("defaultAction").is_some_and(|action| lets_through.contains(action));
        let rules = seccomp.entry("syscalls").or_insert_with(|| json!([]));
        if rules.is_null() {
            *rules = json!([]);
        }
        let rules = rules.as_array_mut().ok_or(shape("linux.seccomp.syscalls", "an array"))?;
        let named = |rule: &Value| rule["names"].as_array().is_some_and(|names| names.contains(&json!(CALL)));
        if open && !rules.iter().any(named) {
            rules.push(json!({ "names": [CALL], "action": "SCMP_ACT_ERRNO", "errnoRet": libc::ENOSYS }));
        }
        Ok(())
    }

    fn array(&mut self, pointer: &str, field: &'static str) -> Result<&mut Vec<Value>, SpecError> {
        let value = self.value.pointer_mut(pointer);
        value.and_then(Value::as_array_mut).ok_or(shape(field, "an array"))
    }

    fn object(&mut self, pointer: &str, field: &'static str) -> Result<&mut Map<String, Value>, SpecError> {
        let value = self.value.pointer_mut(pointer);
        value.and_then(Value::as_object_mut).ok_or(shape(field, "an object"))
    }
}

fn shape(field: &'static str, expected: &'static str) -> SpecError {
    SpecError::Shape { field, expected }
}

/// A filter covers only the architectures that it names: the native one and those that its kernel also runs.
fn architectures() -> Value {
    match std::env::consts::ARCH {
        "x86_64" => json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]),
        "aarch64" => json!(["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]),
        _ => json!([]),
    }
}
