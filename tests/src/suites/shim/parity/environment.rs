//! What the application finds around itself: identity, rights, limits, files, variables.

use std::collections::BTreeSet;

use anyhow::{ensure, Context, Result};

use crate::framework::{Ctx, Generation, Host};
use crate::suites::shim::stage::{self, ctr_run, Task, FASTMIG, STOCK};

/// One section for each thing. Every command looks at itself: a shell that waits for one has pipes and a signal mask of its own.
const LOOK: &str = r"
echo '# identity'; id; hostname; pwd; umask; nice
echo '# variables'; env | sort
echo '# rights'; grep -E '^(Uid|Gid|Groups|Cap...|NoNewPrivs|Sig(Pnd|Blk|Ign|Cgt)|ShdPnd|Cpus_allowed|Mems_allowed)' /proc/self/status
echo '# seccomp'; grep -E '^Seccomp:' /proc/self/status
echo '# limits'; cat /proc/self/limits; ulimit -a
echo '# oom'; cat /proc/self/oom_score_adj
echo '# descriptors'; ls -l /proc/self/fd
echo '# devices'; ls -l /dev
echo '# mounts'; cat /proc/self/mountinfo
echo '# kernel'; test -w /proc/sys/kernel/hostname; echo $?; cat /proc/self/attr/current /proc/self/loginuid /proc/self/timerslack_ns 2>/dev/null
echo '# namespaces'; ls /proc/self/ns
";

/// Containers of many kinds.
const KINDS: &[&[&str]] = &[
    &[],
    &["--seccomp"],
    &["--user", "1000:1001", "--cwd", "/tmp", "--env", "A=b c", "--env", "LANG=C"],
    &["--cap-add", "CAP_SYS_PTRACE", "--cap-drop", "CAP_CHOWN", "--allow-new-privs"],
    &["--privileged"],
    &["--read-only", "--hostname", "other", "--memory-limit", "100000000", "--cpus", "0.5"],
    &["--net-host", "--seccomp", "--user", "7"],
    &["--annotation", "fastmig.dev/io-uring=allow"],
];

pub(super) fn same(ctx: &Ctx, generation: Generation) -> Result<()> {
    let host = stage::host(ctx, generation)?;
    for options in KINDS {
        let stock = look(&host, STOCK, options)?;
        let mut ours = look(&host, FASTMIG, options)?;
        let added: Vec<String> = ours.difference(&stock).cloned().collect();
        let ours_alone =
            added.iter().filter(|line| is_allowed(line, options)).cloned().collect::<BTreeSet<_>>();
        ensure!(
            ours_alone.iter().any(|line| line.starts_with("mounts: /dev/.fastmig ")),
            "the mount of FastMig is not seen: the test looks at the wrong thing"
        );
        ours.retain(|line| !ours_alone.contains(line));
        let missing: Vec<_> = stock.difference(&ours).filter(|line| !is_allowed(line, options)).collect();
        let more: Vec<_> = ours.difference(&stock).collect();
        ensure!(missing.is_empty() && more.is_empty(), "{options:?}: missing {missing:#?}, more {more:#?}");
    }
    stage::nothing_is_left(&host)
}

/// The read-only directory, and the filter that keeps io_uring out where the container has no filter.
fn is_allowed(line: &str, options: &[&str]) -> bool {
    let filtered = options.contains(&"--seccomp") || options.contains(&"fastmig.dev/io-uring=allow");
    line.starts_with("mounts: /dev/.fastmig ro,nosuid,nodev")
        || line.starts_with("devices: drwx") && line.ends_with(" .fastmig")
        || (!filtered && line.starts_with("seccomp: "))
}

/// The lines that the application sees, each with its section.
fn look(host: &Host, runtime: &str, options: &[&str]) -> Result<BTreeSet<String>> {
    let options = [&["--rm"], options].concat();
    let text = ctr_run(host, runtime, &options, "busybox", "look", &["sh", "-c", LOOK]).ok()?;
    let mut section = "";
    let mut lines = BTreeSet::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("# ") {
            section = name;
            continue;
        }
        let told = match section {
            "mounts" => mount(line).with_context(|| line.to_owned())?,
            "descriptors" => descriptor(line),
            "devices" => device(line),
            "rights" => right(line),
            _ => line.to_owned(),
        };
        lines.insert(format!("{section}: {told}"));
    }
    ensure!(lines.len() > 80, "only {} lines: {text}", lines.len());
    Ok(lines)
}

/// Without the signals that C libraries keep for themselves (32, 33): whoever is started by `posix_spawn` finds them ignored, and runc
/// hands that on; no program can tell.
fn right(line: &str) -> String {
    const LIBRARY: u64 = 3 << 31;
    let ignored = line.strip_prefix("SigIgn:\t").and_then(|set| u64::from_str_radix(set, 16).ok());
    ignored.map_or_else(|| line.to_owned(), |set| format!("SigIgn:\t{:016x}", set & !LIBRARY))
}

/// Number and target of a descriptor, without the numbers of pipes and processes.
fn descriptor(line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().rev().take(3).collect();
    words.into_iter().rev().collect::<Vec<_>>().join(" ").replace(|c: char| c.is_ascii_digit(), "N")
}

/// Mode, owner, number and name of a device, without size and time.
fn device(line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    let name = words.iter().position(|word| word.contains(':')).map_or(0, |time| time + 1);
    let device = line.starts_with('c').then(|| words.get(4..6)).flatten().unwrap_or_default();
    [words.get(..4).unwrap_or_default(), device, words.get(name..).unwrap_or_default()].concat().join(" ")
}

/// Place, options and kind of a mount, without numbers and without the paths of one snapshot.
fn mount(line: &str) -> Option<String> {
    let (left, right) = line.split_once(" - ")?;
    let left: Vec<&str> = left.split(' ').collect();
    let kind = right.split(' ').next()?;
    Some(format!("{} {} {kind}", left.get(4)?, left.get(5)?))
}

pub(super) fn left_alone(ctx: &Ctx, generation: Generation) -> Result<()> {
    let host = stage::host(ctx, generation)?;
    let off = ["--annotation", "fastmig.dev/mode=off"];
    let task = Task::start(&host, FASTMIG, &off, "off", &["sleep", "1000"])?;
    let first = task.sh("tr '\\0' ' ' </proc/1/cmdline; ls -d /dev/.fastmig 2>&1 | tail -n 1")?;
    ensure!(first.starts_with("sleep 1000 ") && first.contains("No such file"), "{first}");
    let state = task.state()?;
    ensure!(
        state["warm"] == false && state["left_alone"].as_str().is_some_and(|why| why.contains("mode=off")),
        "{state}"
    );
    let refused = task.fastmig("checkpoint", &["--image-path", "/tmp/off"]).output()?;
    ensure!(!refused.status.success() && refused.out().contains("mode=off"), "{refused:?}");
    task.remove()?;
    let joins = Task::start(&host, FASTMIG, &[], "warm", &["sleep", "1000"])?;
    let first = joins.sh("cat /proc/1/comm")?;
    ensure!(first == "fastmig-init\n", "PID 1 is {first}");
    let shared = format!("pid:/proc/{}/ns/pid", joins.pid()?);
    let guest = Task::start(&host, FASTMIG, &["--with-ns", &shared], "guest", &["sleep", "1000"])?;
    ensure!(guest.state()?["warm"] == false, "{}", guest.state()?);
    guest.remove()?;
    joins.remove()?;
    stage::nothing_is_left(&host)
}
