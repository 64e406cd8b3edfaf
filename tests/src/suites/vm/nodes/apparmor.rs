//! Under AppArmor: an application may do what it may under runc with containerd's default profile, before and after a restore;
//! and no image chooses its own profile.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{ensure, Context, Result};
use serde_json::Value;

use super::container::{quoted, Container, FASTMIG, RUNC};
use crate::framework::vm::{Kernel, Node};
use crate::framework::Case;

pub(super) const CASES: &[Case] = &[
    Case { name: "apparmor: installed, loaded and enforced", run: |_| installed().into() },
    Case {
        name: "apparmor: the same files below /proc/sys can be written as under runc",
        run: |_| sysctls().into(),
    },
    Case {
        name: "apparmor: the profiles by themselves leave nothing more than containerd's",
        run: |_| profiles().into(),
    },
    Case { name: "apparmor: a container with a profile of its own keeps it", run: |_| own_profile().into() },
    Case { name: "apparmor: CRIU runs under its own profile", run: |_| helper().into() },
    Case { name: "apparmor: no image chooses a profile", run: |_| image_decides().into() },
];

/// containerd's default profile, under the name that its CRI plugin gives it.
const DEFAULT: &str = "--apparmor-default-profile cri-containerd.apparmor.d";

pub(super) const OURS: &str = "fastmig-container (enforce)";

/// Tells which files below `/proc/sys` it may open for writing, at once and whenever it gets SIGUSR1; and a child's number.
const TELL: &str = r#"
import errno, json, os, signal, time
def tell(*_):
    files = {}
    for place, _, names in os.walk("/proc/sys"):
        for name in names:
            path = os.path.join(place, name)
            try:
                os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
                files[path] = "writable"
            except OSError as e:
                files[path] = errno.errorcode[e.errno]
    child = os.fork()
    if child == 0: os._exit(0)
    os.waitpid(child, 0)
    print(json.dumps({"files": files, "child": child}), flush=True)
signal.signal(signal.SIGUSR1, tell)
tell()
while True: time.sleep(0.05)
"#;

const SLEEP: &[&str] = &["python3", "-c", "import time\nwhile True: time.sleep(0.05)"];

/// Writes each other label that a CRIU has while the file `/tmp/watch` is there.
const WATCH: &str = r#"
import os, time
seen = set()
while os.path.exists("/tmp/watch"):
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if open(f"/proc/{pid}/comm").read().strip() in ("criu", "ld-linux-x86-64"):
                seen.add(open(f"/proc/{pid}/attr/apparmor/current").read().strip())
        except OSError:
            pass
print(sorted(seen))
"#;

pub(super) fn node() -> Result<Arc<Node>> {
    let node = Arc::clone(&super::cluster(Kernel::Trixie)?.nodes[0]);
    node.sh("printf '[confinement]\\napparmor = true\\n' >/etc/fastmig/config.toml")?;
    Ok(node)
}

fn installed() -> Result<()> {
    let node = node()?;
    ensure!(node.sh("cat /proc/1/comm")? == "systemd\n", "PID 1 is not systemd");
    ensure!(node.sh("stat -fc %T /sys/fs/cgroup")? == "cgroup2fs\n", "no cgroup v2");
    let loaded = node.sh("cat /sys/kernel/security/apparmor/profiles")?;
    for profile in [OURS, "fastmig-criu (enforce)"] {
        ensure!(loaded.lines().any(|line| line == profile), "{profile} is not among\n{loaded}");
    }
    node.sh("fastmig check").map(drop)
}

/// By path, how an attempt to write ends.
fn told(line: &str) -> Result<(BTreeMap<String, String>, i64)> {
    let said: Value = serde_json::from_str(line).with_context(|| format!("it tells {line:?}"))?;
    let files = said["files"].as_object().context("no files")?.iter();
    let files = files.map(|(path, how)| (path.clone(), how.as_str().unwrap_or_default().to_owned()));
    Ok((files.collect(), said["child"].as_i64().unwrap_or_default()))
}

fn same(found: &BTreeMap<String, String>, stock: &BTreeMap<String, String>, when: &str) -> Result<()> {
    let writable = |all: &BTreeMap<String, String>| -> Vec<String> {
        all.iter().filter(|(_, how)| *how == "writable").map(|(path, _)| path.clone()).collect()
    };
    ensure!(found.len() > 100 && found.keys().eq(stock.keys()), "{when}: other files below /proc/sys");
    ensure!(writable(found) == writable(stock), "{when}: {:?}, not {:?}", writable(found), writable(stock));
    let last = found.get("/proc/sys/kernel/ns_last_pid").context("there is no ns_last_pid")?;
    ensure!(last != "writable", "{when}: the application may set the last pid");
    println!(
        "    {when}: {} of {} files below /proc/sys can be opened for writing",
        writable(found).len(),
        found.len()
    );
    Ok(())
}

fn sysctls() -> Result<()> {
    let node = node()?;
    let command = ["python3", "-c", TELL];
    let stock = Container::run(&node, "stock", (RUNC, &["--seccomp", DEFAULT]), "python", &command)?;
    let (stock, _) = told(&stock.wait_for_line(1)?)?;
    let ours = Container::run(&node, "ours", (FASTMIG, &["--seccomp"]), "python", &command)?;
    let (first, _) = told(&ours.wait_for_line(1)?)?;
    same(&first, &stock, "before")?;
    ours.require_label(OURS)?;
    ours.save_and_restore()?;
    ours.require_label(OURS)?;
    ours.node.sh("ctr tasks kill -s SIGUSR1 ours")?;
    let (again, child) = told(&ours.wait_for_line(2)?)?;
    same(&again, &stock, "after")?;
    // It was set for it: the next process has the number after the last one that the application used.
    ensure!((1002..1010).contains(&child), "a child after the restore is {child}");
    Ok(())
}

/// Outside any container, as root with all capabilities, `/proc/sys` mounted for writing: what the profiles alone forbid.
fn profiles() -> Result<()> {
    let node = node()?;
    // containerd's exists once a container has asked for it.
    drop(Container::run(&node, "asks", (RUNC, &[DEFAULT]), "python", SLEEP)?);
    let once = TELL.split("signal.signal").next().unwrap_or_default().to_owned() + "tell()";
    let under = |profile: &str| -> Result<BTreeMap<String, String>> {
        let exec = format!(
            "import os, sys; open('/proc/self/attr/apparmor/exec', 'w').write('exec {profile}'); os.execv(sys.executable, ['python3', '-c', sys.argv[1]])"
        );
        let line = node.sh(&format!("python3 -c {} {}", quoted(&exec), quoted(&once)))?;
        Ok(told(line.trim())?.0)
    };
    let (stock, ours) = (under("cri-containerd.apparmor.d")?, under("fastmig-container")?);
    ensure!(under("unconfined")?.values().any(|how| how == "writable"), "nothing can be written anyway");
    same(&ours, &stock, "the profile for containers")?;
    let helper = under("fastmig-criu")?;
    let settable = |(path, how): (&String, &String)| {
        (how == "writable").then(|| path.strip_prefix("/proc/sys/kernel/").map(str::to_owned)).flatten()
    };
    // Below its directories, too: `keys/maxkeys` begins with none of them.
    let settable: Vec<String> = helper.iter().filter_map(settable).collect();
    let meant = |name: &String| {
        name == "ns_last_pid"
            || ["auto_msgmni", "msg", "sem", "shm"].iter().any(|begin| name.starts_with(begin))
    };
    ensure!(
        settable.contains(&"ns_last_pid".to_owned()) && settable.iter().all(meant),
        "CRIU's: {settable:?}"
    );
    let outside =
        |path: &&String| !["/proc/sys/kernel/", "/proc/sys/fs/mqueue/"].iter().any(|at| path.starts_with(at));
    let more: Vec<_> = helper.iter().filter(|(path, how)| *how == "writable" && outside(path)).collect();
    ensure!(more.is_empty(), "CRIU's also leaves {more:?}");
    Ok(())
}

fn own_profile() -> Result<()> {
    let node = node()?;
    let container = Container::run(&node, "own", (FASTMIG, &[DEFAULT, "--seccomp"]), "python", SLEEP)?;
    container.require_label("cri-containerd.apparmor.d (enforce)")?;
    container.save_and_restore()?;
    container.require_label("cri-containerd.apparmor.d (enforce)")
}

fn helper() -> Result<()> {
    let node = node()?;
    let container = Container::run(&node, "helped", (FASTMIG, &["--seccomp"]), "python", SLEEP)?;
    node.sh("touch /tmp/watch")?;
    let watcher = node.command(&format!("python3 -c {}", quoted(WATCH))).spawn()?;
    let result = container.save_and_restore();
    node.sh("rm /tmp/watch")?;
    let seen = watcher.wait(std::time::Duration::from_secs(60))?.out();
    result?;
    ensure!(seen.trim() == "['fastmig-criu (enforce)']", "CRIU was under {seen}");
    container.require_label(OURS)
}

/// What was saved without a profile, or under another one, comes up under its new container's, or not at all.
fn image_decides() -> Result<()> {
    let node = node()?;
    let options: &[&str] = &["--seccomp"];
    let free = ["--seccomp", "--apparmor-profile unconfined"];
    let saved = |id: &str, options: &[&str]| -> Result<()> {
        let container = Container::run(&node, id, (FASTMIG, options), "python", SLEEP)?;
        let path = format!("/var/tmp/from-{id}");
        node.sh(&format!("rm -rf {path}"))?;
        container.operate("checkpoint", &format!("--standby --image-path {path}")).map(drop)
    };
    saved("free", &free)?;
    saved("other", &["--seccomp", DEFAULT])?;
    let target = Container::in_standby(&node, "target", options, "python")?;
    let refused = node.output("fastmig restore target --image-path /var/tmp/from-free")?;
    ensure!(
        !refused.status.success() && refused.err().contains("AppArmor profile"),
        "without a profile: {refused:?}"
    );
    ensure!(target.application()? == "standby", "after the refusal: {}", target.application()?);
    target.operate("restore", "--image-path /var/tmp/from-other")?;
    target.require_label(OURS)?;
    node.sh("rm -rf /var/tmp/from-free /var/tmp/from-other").map(drop)
}
