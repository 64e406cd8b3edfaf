//! The OCI spec, rewritten so that FastMig's init stands above the image's command.
//!
//! The file is edited as a JSON value, not through a typed model: what this code does not know survives.

use std::path::{Path, PathBuf};

use fastmig_control::{INIT_PATH, RUNTIME_DIR};
use serde_json::{json, Map, Value};

use crate::config::{periodic, Defaults, Periodic, Schedule};
use crate::files::replace;
use crate::policy;
use crate::start_options::{Binds, IoUring, Mode, StartMode, TcpPolicy, Volumes};
use crate::{Config, Error};

/// `off` leaves the container to runc, `warm` puts the init above it.
pub const MODE: &str = "fastmig.dev/mode";
/// `run`, `standby` or `restore=PATH`: how the application comes up when the container starts.
pub const START: &str = "fastmig.dev/start";
/// `allow` lets the application use io_uring, which CRIU cannot dump; `deny` does not.
pub const IO_URING: &str = "fastmig.dev/io-uring";
/// `close`, `keep` or `refuse`: what a checkpoint does with established TCP connections.
pub const TCP: &str = "fastmig.dev/tcp";
/// `all`, `none` or paths in the container: the volumes whose content travels with its files.
pub const VOLUMES: &str = "fastmig.dev/volumes";
/// `refuse` or `same`: what directories of the host, mounted for writing, are to a migration.
pub const BINDS: &str = "fastmig.dev/binds";

/// `off`, `default`, `paper` or the name of a policy of the host's: what becomes of an application that has ended.
pub const POLICY: &str = "fastmig.dev/policy";
/// `off` or a time: how often the daemon checkpoints the application.
pub const CHECKPOINT_EVERY: &str = "fastmig.dev/checkpoint-every";
/// How many of these checkpoints stay.
pub const CHECKPOINT_KEEP: &str = "fastmig.dev/checkpoint-keep";

/// Commands that insist on being PID 1.
const MUST_BE_FIRST: &[&str] =
    &["/sbin/init", "/usr/sbin/init", "/lib/systemd/systemd", "/usr/lib/systemd/systemd", "/init", "systemd"];

/// Why a spec cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// The bundle has no readable `config.json`.
    #[error("could not read or write {path:?}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is no JSON.
    #[error("{path:?} is not valid JSON")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where it is wrong.
        source: serde_json::Error,
    },
    /// It is JSON, but no OCI spec.
    #[error("the OCI spec's {field} is not {expected}")]
    Shape {
        /// The field.
        field: &'static str,
        /// What it must be.
        expected: &'static str,
    },
}

/// A bundle's `config.json`.
#[derive(Debug)]
pub(crate) struct Spec {
    value: Value,
    /// What holds where there is no annotation.
    defaults: Defaults,
    periodic: Periodic,
}

/// What the engine needs to know of a spec.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) command: Vec<String>,
    pub(crate) path: Option<String>,
    pub(crate) cwd: String,
    pub(crate) terminal: bool,
    pub(crate) start: StartMode,
    pub(crate) tcp: TcpPolicy,
    pub(crate) volumes: Volumes,
    pub(crate) binds: Binds,
    pub(crate) policy: Option<String>,
    pub(crate) schedule: Option<Schedule>,
    pub(crate) image: Option<String>,
    /// Why the container is to be left to runc, if it is.
    pub(crate) left_alone: Option<String>,
}

impl Spec {
    pub(crate) fn load(bundle: &Path, config: &Config) -> Result<Self, SpecError> {
        let path = bundle.join("config.json");
        let text = std::fs::read(&path).map_err(|source| SpecError::File { path: path.clone(), source })?;
        match serde_json::from_slice(&text) {
            Ok(value) => {
                Ok(Self { value, defaults: config.defaults.clone(), periodic: config.periodic.clone() })
            }
            Err(source) => Err(SpecError::Syntax { path, source }),
        }
    }

    pub(crate) fn store(&self, path: &Path) -> Result<(), SpecError> {
        let text = serde_json::to_vec(&self.value)
            .map_err(|source| SpecError::Syntax { path: path.into(), source })?;
        replace(path, &text).map_err(|source| SpecError::File { path: path.into(), source })
    }

    /// A relative root is one in the bundle. It loses its dots: runc takes an absolute root as it is, and then
    /// looks for mount points at paths that have none.
    pub(crate) fn make_root_absolute(&mut self, bundle: &Path) {
        if let Some(path) = self.value["root"]["path"].as_str().map(|path| bundle.join(path)) {
            let clean: PathBuf = path.components().collect();
            self.value["root"]["path"] = json!(clean);
        }
    }

    pub(crate) fn facts(&self) -> Result<Facts, Error> {
        let process = &self.value["process"];
        let strings = |value: &Value| -> Vec<String> {
            value.as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
        };
        let environment = strings(&process["env"]);
        let command = strings(&process["args"]);
        self.io_uring()?;
        Ok(Facts {
            left_alone: self.why_left_alone(&command)?,
            path: environment.iter().rev().find_map(|entry| entry.strip_prefix("PATH=").map(str::to_owned)),
            cwd: process["cwd"].as_str().unwrap_or("/").to_owned(),
            terminal: process["terminal"].as_bool().unwrap_or(false),
            start: self.start_mode()?,
            tcp: self.tcp_policy()?,
            volumes: self.volumes()?,
            binds: self.binds()?,
            policy: self.policy()?,
            schedule: self.schedule()?,
            image: ["io.kubernetes.cri.image-name", "nerdctl/image", "org.opencontainers.image.ref.name"]
                .iter()
                .find_map(|key| self.annotation(key).map(str::to_owned)),
            command,
        })
    }

    pub(crate) fn annotation(&self, key: &str) -> Option<&str> {
        self.value["annotations"][key].as_str()
    }

    /// What is mounted at `destination`.
    pub(crate) fn mount_source(&self, destination: &str) -> Option<&Path> {
        let mounts = self.value["mounts"].as_array()?;
        mounts.iter().find(|mount| mount["destination"] == destination)?["source"].as_str().map(Path::new)
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

    /// A container whose PID 1 is not its own, must be the image's own, or is nobody's business.
    fn why_left_alone(&self, command: &[String]) -> Result<Option<String>, Error> {
        match self.annotation(MODE) {
            Some("off") => return Ok(Some(format!("annotation {MODE}=off"))),
            None if self.defaults.mode == Mode::Off => {
                return Ok(Some(format!("defaults.mode is off and no annotation {MODE}=warm asks for it")));
            }
            None | Some("warm") => {}
            Some(value) => return Err(bad_annotation(MODE, value, "it must be off or warm")),
        }
        if self.annotation("io.kubernetes.cri.container-type") == Some("sandbox") {
            return Ok(Some("it is a pod's sandbox".into()));
        }
        let Some(first) = command.first() else { return Ok(Some("it has no command".into())) };
        if first == INIT_PATH {
            return Ok(Some("another FastMig has put its init above it already".into()));
        }
        if MUST_BE_FIRST.contains(&first.as_str()) {
            return Ok(Some(format!("its command {first} must be PID 1")));
        }
        let namespaces = self.value["linux"]["namespaces"].as_array();
        let of = |kind: &str| namespaces.into_iter().flatten().find(|n| n["type"] == kind);
        match of("pid") {
            None => return Ok(Some("it has no pid namespace of its own (--pid=host)".into())),
            Some(n) if n["path"].as_str().is_some_and(|path| !path.is_empty()) => {
                return Ok(Some("it shares another container's pid namespace".into()));
            }
            Some(_) => {}
        }
        if of("mount").is_none() {
            return Ok(Some("it has no mount namespace of its own".into()));
        }
        if of("user").is_some() {
            return Ok(Some("it has a user namespace, which FastMig does not support yet".into()));
        }
        Ok(None)
    }

    fn start_mode(&self) -> Result<StartMode, Error> {
        match self.annotation(START) {
            None => Ok(self.defaults.start.into()),
            Some("run") => Ok(StartMode::Run),
            Some("standby") => Ok(StartMode::Standby),
            Some(value) => match value.strip_prefix("restore=") {
                Some(path) if path.starts_with('/') => Ok(StartMode::Restore(path.into())),
                _ => Err(bad_annotation(START, value, "it must be run, standby or restore=/ABSOLUTE/PATH")),
            },
        }
    }

    fn tcp_policy(&self) -> Result<TcpPolicy, Error> {
        match self.annotation(TCP) {
            None => Ok(self.defaults.tcp),
            Some("close") => Ok(TcpPolicy::Close),
            Some("keep") => Ok(TcpPolicy::Keep),
            Some("refuse") => Ok(TcpPolicy::Refuse),
            Some(value) => Err(bad_annotation(TCP, value, "it must be close, keep or refuse")),
        }
    }

    fn volumes(&self) -> Result<Volumes, Error> {
        let text = self.annotation(VOLUMES).unwrap_or("none");
        let expected = "it must be all, none or absolute paths in the container with commas between them";
        text.parse().map_err(|_| bad_annotation(VOLUMES, text, expected))
    }

    fn binds(&self) -> Result<Binds, Error> {
        match self.annotation(BINDS) {
            None => Ok(self.defaults.binds),
            Some("refuse") => Ok(Binds::Refuse),
            Some("same") => Ok(Binds::Same),
            Some(value) => Err(bad_annotation(BINDS, value, "it must be refuse or same")),
        }
    }

    fn policy(&self) -> Result<Option<String>, Error> {
        let name = self.annotation(POLICY).unwrap_or(&self.defaults.policy);
        if !policy::is_name(name) {
            return Err(bad_annotation(
                POLICY,
                name,
                "it must be off, default, paper or the name of a policy of this host",
            ));
        }
        Ok(Some(name.to_owned()).filter(|name| name != policy::OFF))
    }

    fn schedule(&self) -> Result<Option<Schedule>, Error> {
        let keep = match self.annotation(CHECKPOINT_KEEP) {
            None => None,
            Some(text) => {
                Some(text.parse().ok().filter(|count| periodic::can_keep(*count)).ok_or_else(|| {
                    bad_annotation(CHECKPOINT_KEEP, text, "it must be a number from 1 to 1000")
                })?)
            }
        };
        let every = self.annotation(CHECKPOINT_EVERY);
        self.periodic.schedule(every, keep).map_err(|_| {
            let expected = "it must be off or a time from 1s to 366d, such as 5m";
            bad_annotation(CHECKPOINT_EVERY, every.unwrap_or_default(), expected)
        })
    }

    fn io_uring(&self) -> Result<IoUring, Error> {
        match self.annotation(IO_URING) {
            None => Ok(self.defaults.io_uring),
            Some("deny") => Ok(IoUring::Deny),
            Some("allow") => Ok(IoUring::Allow),
            Some(value) => Err(bad_annotation(IO_URING, value, "it must be allow or deny")),
        }
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

fn bad_annotation(key: &str, value: &str, expected: &'static str) -> Error {
    Error::BadAnnotation { key: key.into(), value: value.into(), expected }
}

/// A filter covers only the architectures that it names: the native one and those that its kernel also runs.
fn architectures() -> Value {
    match std::env::consts::ARCH {
        "x86_64" => json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]),
        "aarch64" => json!(["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]),
        _ => json!([]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(change: impl FnOnce(&mut Value)) -> Spec {
        let mut value = json!({
            "ociVersion": "1.2.0",
            "process": { "args": ["redis-server", "--save", ""], "cwd": "/data", "env": ["PATH=/bin", "A=1"],
                         "unknownProcessField": [1, {"x": null}] },
            "mounts": [{ "destination": "/dev", "type": "tmpfs" }],
            "linux": { "namespaces": [{"type": "pid"}, {"type": "mount"}], "unknownLinuxField": "kept" },
            "unknownTopField": { "deep": [true] },
        });
        change(&mut value);
        Spec { value, defaults: Defaults::default(), periodic: Periodic::default() }
    }

    #[test]
    fn the_init_goes_above_and_nothing_else_changes() {
        let mut rewritten = spec(|_| {});
        rewritten.put_init_above(Path::new("/usr/lib/fastmig/runtime"), 3).unwrap();
        let arguments = &rewritten.value["process"]["args"];
        assert_eq!(
            *arguments,
            json!(["/dev/.fastmig/fastmig-init", "--control-fd", "3", "--", "redis-server", "--save", ""])
        );
        assert_eq!(rewritten.value["mounts"][1]["options"], json!(["bind", "ro", "nosuid", "nodev"]));
        for pointer in
            ["/unknownTopField", "/linux/unknownLinuxField", "/process/unknownProcessField", "/process/env"]
        {
            assert_eq!(rewritten.value.pointer(pointer), spec(|_| {}).value.pointer(pointer), "{pointer}");
        }
    }

    #[test]
    fn a_root_becomes_absolute_and_loses_its_dots() {
        let root = |path: &str| {
            let mut spec = spec(|v| v["root"] = json!({ "path": path }));
            spec.make_root_absolute(Path::new("/run/bundle"));
            spec.value["root"]["path"].clone()
        };
        assert_eq!(root("rootfs"), "/run/bundle/rootfs");
        assert_eq!(root("."), "/run/bundle");
        assert_eq!(root("./rootfs/."), "/run/bundle/rootfs");
        assert_eq!(root("/var/image"), "/var/image");
    }

    #[test]
    fn io_uring_is_denied_only_where_nothing_answers_it() {
        let rules_after = |seccomp: Value| {
            let mut spec = spec(|v| v["linux"]["seccomp"] = seccomp);
            spec.put_init_above(Path::new("/r"), 3).unwrap();
            spec.value["linux"]["seccomp"]["syscalls"].as_array().unwrap().len()
        };
        assert_eq!(rules_after(Value::Null), 1);
        assert_eq!(rules_after(json!({"defaultAction": "SCMP_ACT_ALLOW"})), 1);
        assert_eq!(rules_after(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": []})), 0);
        let answered = json!({"names": ["io_uring_setup"], "action": "SCMP_ACT_ALLOW"});
        assert_eq!(rules_after(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [answered]})), 1);
    }

    #[test]
    fn a_wrong_word_about_io_uring_is_refused() {
        let facts = |value: &str| spec(|v| v["annotations"] = json!({ IO_URING: value })).facts();
        assert!(facts("deny").is_ok());
        assert!(facts("yes").unwrap_err().to_string().contains(IO_URING));
    }

    #[test]
    fn io_uring_may_be_allowed() {
        let mut spec = spec(|v| v["annotations"] = json!({ IO_URING: "allow" }));
        spec.put_init_above(Path::new("/r"), 3).unwrap();
        assert!(spec.value["linux"].get("seccomp").is_none());
    }

    #[test]
    fn containers_that_cannot_have_an_init_above_are_left_alone() {
        let reason = |change: fn(&mut Value)| spec(change).facts().unwrap().left_alone;
        assert_eq!(reason(|_| {}), None);
        let cases: [fn(&mut Value); 6] = [
            |v| v["annotations"] = json!({ MODE: "off" }),
            |v| v["annotations"] = json!({"io.kubernetes.cri.container-type": "sandbox"}),
            |v| v["process"]["args"] = json!(["/lib/systemd/systemd"]),
            |v| v["linux"]["namespaces"] = json!([{"type": "mount"}]),
            |v| {
                v["linux"]["namespaces"] =
                    json!([{"type": "mount"}, {"type": "pid", "path": "/proc/7/ns/pid"}]);
            },
            |v| v["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "pid"}, {"type": "user"}]),
        ];
        for (number, case) in cases.into_iter().enumerate() {
            assert!(reason(case).is_some(), "case {number}");
        }
    }

    #[test]
    fn start_modes_are_read_and_checked() {
        let start =
            |value: &str| spec(|v| v["annotations"] = json!({ START: value })).facts().map(|f| f.start);
        assert_eq!(start("standby").unwrap(), StartMode::Standby);
        assert_eq!(start("restore=/var/c").unwrap(), StartMode::Restore("/var/c".into()));
        assert!(start("restore=relative").is_err());
        assert!(start("later").unwrap_err().to_string().contains("later"));
    }

    #[test]
    fn a_default_holds_until_an_annotation_says_otherwise() {
        use crate::start_options::DefaultStart;
        let defaults = Defaults {
            mode: Mode::Off,
            start: DefaultStart::Standby,
            tcp: TcpPolicy::Refuse,
            io_uring: IoUring::Allow,
            binds: Binds::Same,
            policy: "paper".into(),
        };
        let silent = Spec { defaults: defaults.clone(), ..spec(|_| {}) };
        let facts = silent.facts().unwrap();
        assert!(facts.left_alone.unwrap().contains("defaults.mode"));
        assert_eq!((facts.start, facts.tcp), (StartMode::Standby, TcpPolicy::Refuse));
        assert_eq!(facts.policy.as_deref(), Some("paper"));
        assert_eq!(silent.io_uring().unwrap(), IoUring::Allow);

        let annotations = json!({ MODE: "warm", START: "run", TCP: "close", IO_URING: "deny" });
        let outspoken = Spec { defaults, ..spec(|v| v["annotations"] = annotations) };
        let facts = outspoken.facts().unwrap();
        assert_eq!((facts.left_alone, facts.start, facts.tcp), (None, StartMode::Run, TcpPolicy::Close));
        assert_eq!(outspoken.io_uring().unwrap(), IoUring::Deny);
    }

    #[test]
    fn a_policy_is_a_name() {
        let policy = |name: &str| {
            let facts = spec(|v| v["annotations"] = json!({ POLICY: name })).facts();
            facts.map(|facts| facts.policy)
        };
        assert_eq!(spec(|_| {}).facts().unwrap().policy, None);
        assert_eq!(policy("off").unwrap(), None);
        assert_eq!(policy("mine-1").unwrap().as_deref(), Some("mine-1"));
        for bad in ["/etc/passwd", "../x", ""] {
            assert!(policy(bad).unwrap_err().to_string().contains(POLICY), "{bad}");
        }
    }

    #[test]
    fn a_schedule_is_read_and_checked() {
        let facts = |key: &str, value: &str| spec(|v| v["annotations"] = json!({ key: value })).facts();
        assert_eq!(spec(|_| {}).facts().unwrap().schedule, None);
        let schedule = facts(CHECKPOINT_EVERY, "5m").unwrap().schedule;
        assert_eq!(schedule, Some(Schedule { every: 300, keep: 3 }));
        assert!(facts(CHECKPOINT_EVERY, "often").unwrap_err().to_string().contains(CHECKPOINT_EVERY));
        assert!(facts(CHECKPOINT_KEEP, "0").unwrap_err().to_string().contains(CHECKPOINT_KEEP));
    }

    #[test]
    fn volumes_and_binds_are_read_and_checked() {
        let facts = |key: &str, value: &str| spec(|v| v["annotations"] = json!({ key: value })).facts();
        assert!(spec(|_| {}).facts().unwrap().volumes.is_none());
        assert_eq!(facts(VOLUMES, "/data,all").unwrap().volumes.to_string(), "all,/data");
        assert!(facts(VOLUMES, "data").unwrap_err().to_string().contains(VOLUMES));
        assert_eq!(facts(BINDS, "same").unwrap().binds, Binds::Same);
        assert!(facts(BINDS, "yes").unwrap_err().to_string().contains(BINDS));
    }

    #[test]
    fn io_uring_is_denied_or_allowed_by_default() {
        let filtered = |io_uring: IoUring| {
            let mut spec = Spec { defaults: Defaults { io_uring, ..Defaults::default() }, ..spec(|_| {}) };
            spec.put_init_above(Path::new("/r"), 3).unwrap();
            spec.value["linux"].get("seccomp").is_some()
        };
        assert_eq!((filtered(IoUring::Deny), filtered(IoUring::Allow)), (true, false));
    }

    #[test]
    fn only_who_brings_no_profile_and_may_not_mount_gets_one() {
        for (process, expected) in [
            (json!({}), "fastmig"),
            (json!({ "apparmorProfile": "" }), "fastmig"),
            (json!({ "apparmorProfile": "docker-default" }), "docker-default"),
            (json!({ "apparmorProfile": "unconfined" }), "unconfined"),
            (json!({ "capabilities": { "bounding": ["CAP_KILL"] } }), "fastmig"),
            (json!({ "capabilities": { "bounding": ["CAP_KILL", "CAP_SYS_ADMIN"] } }), ""),
        ] {
            let mut spec = spec(|value| value["process"] = process.clone());
            spec.confine("fastmig", None).unwrap();
            let found = spec.value["process"]["apparmorProfile"].as_str().unwrap_or_default();
            assert_eq!(found, expected, "{process}");
        }
    }

    #[test]
    fn an_init_has_a_profile_of_its_own_where_the_application_can_leave_it() {
        let proc = json!([{ "destination": "/proc", "type": "proc", "source": "proc" }]);
        for (mounts, process, expected) in [
            (&proc, json!({}), "init"),
            (&proc, json!({ "noNewPrivileges": false }), "init"),
            (&proc, json!({ "noNewPrivileges": true }), "fastmig"),
            (&json!([]), json!({}), "fastmig"),
            (&proc, json!({ "apparmorProfile": "docker-default" }), "docker-default"),
        ] {
            let mut spec = spec(|value| {
                value["mounts"] = mounts.clone();
                value["process"].as_object_mut().unwrap().extend(process.as_object().unwrap().clone());
            });
            spec.put_init_above(Path::new("/r"), 3).unwrap();
            spec.confine("fastmig", Some("init")).unwrap();
            assert_eq!(spec.value["process"]["apparmorProfile"], expected, "{process}");
            let arguments = spec.value["process"]["args"].as_array().unwrap();
            let (head, tail) = arguments.split_at(arguments.iter().position(|word| word == "--").unwrap());
            let named = expected == "init";
            assert_eq!(head[3..], if named { vec![json!("--profile"), json!("fastmig")] } else { vec![] });
            assert_eq!(tail[1..3], [json!("redis-server"), json!("--save")]);
        }
    }

    #[test]
    fn the_facts_are_the_processes() {
        let facts = spec(|_| {}).facts().unwrap();
        assert_eq!(facts.command, ["redis-server", "--save", ""]);
        assert_eq!((facts.path.as_deref(), facts.cwd.as_str()), (Some("/bin"), "/data"));
    }
}
