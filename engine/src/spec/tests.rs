//! What becomes of specs.

use serde_json::json;

use super::*;
use crate::start_options::{IoUring, Mode};

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
            v["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "pid", "path": "/proc/7/ns/pid"}]);
        },
        |v| v["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "pid"}, {"type": "user"}]),
    ];
    for (number, case) in cases.into_iter().enumerate() {
        assert!(reason(case).is_some(), "case {number}");
    }
}

#[test]
fn start_modes_are_read_and_checked() {
    let start = |value: &str| spec(|v| v["annotations"] = json!({ START: value })).facts().map(|f| f.start);
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
