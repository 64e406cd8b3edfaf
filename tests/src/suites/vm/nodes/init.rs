//! The init under a profile of its own, narrower than its container's, wherever the application can leave it.

use std::time::Duration;

use anyhow::{ensure, Context, Result};

use super::apparmor::{node, OURS};
use super::container::{quoted, Container, FASTMIG, RUNC};
use crate::framework::process::wait_until;
use crate::framework::Case;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "apparmor: an init has its own profile, applications, sessions and what is restored their container's",
        run: |_| labels().into(),
    },
    Case { name: "apparmor: the same below runc's own shim", run: |_| below_runcs_shim().into() },
    Case { name: "apparmor: an init may do nothing but its work", run: |_| bounds().into() },
    Case {
        name: "apparmor: where no privileges may be gained the init has its container's profile",
        run: |_| unprivileged().into(),
    },
];

const SLEEP: &[&str] = &["python3", "-c", "import time\nwhile True: time.sleep(0.05)"];

/// As docker's containers are by default.
const FREE: &[&str] = &["--seccomp", "--allow-new-privs"];

/// As docker has it: its shim calls us in runc's place, and names a session's process by a file. Here for another user than root.
const BELOW_RUNCS: &[&str] =
    &["--seccomp", "--allow-new-privs", "--user 1000:1000", "--runc-binary /usr/bin/fastmig"];

fn require_labels(container: &Container) -> Result<()> {
    container.require_init_label()?;
    let label = container.exec("cat /proc/self/attr/apparmor/current")?;
    ensure!(label.trim() == OURS, "a session is under {label}");
    Ok(())
}

fn below_runcs_shim() -> Result<()> {
    let node = node()?;
    let container = Container::run(&node, "below", (RUNC, BELOW_RUNCS), "python", SLEEP)?;
    require_labels(&container)
}

fn labels() -> Result<()> {
    let node = node()?;
    let container = Container::run(&node, "narrow", (FASTMIG, FREE), "python", SLEEP)?;
    require_labels(&container)?;
    container.save_and_restore()?;
    require_labels(&container).context("after the restore")?;
    // Both ways of signals: to the application by way of the init, and to the init from a session.
    container.exec("kill -TERM 1")?;
    let ended = || node.sh("ctr tasks ls | grep narrow").is_ok_and(|line| line.contains("STOPPED"));
    wait_until(Duration::from_secs(60), ended)
}

/// What a program under the init's profile gets for an answer: it takes the init's place, for the init itself asks for nothing else.
const ATTEMPTS: &str = r#"
sub told { printf "%s %s\n", $_[0], $_[1] ? "done" : $!{EACCES} || $!{EPERM} ? "denied" : "failed: $!" }
sub opened { my ($how, $path) = @_; open(my $file, $how, $path) }
open(my $own, ">", "/proc/self/attr/apparmor/current") or die;
syswrite($own, "changeprofile fastmig-init") or die;
told("reads", opened("<", "/etc/passwd"));
told("writes", opened(">", "/tmp/made-by-init"));
told("sets", opened(">>", "/proc/sys/kernel/ns_last_pid"));
told("executes", exec("/bin/true"));
my ($what, $place, $kind) = ("none", "/mnt", "tmpfs");
told("mounts", syscall(165, $what, $place, $kind, 0, 0) == 0);
told("connects", socket(my $inet, 2, 1, 0));
told("signals", kill(0, getppid()));
told("becomes", syscall(117, 0, 0, 1) == 0);
told("traces", syscall(101, 16, getppid(), 0, 0) == 0);
told("leaves", defined syswrite($own, "changeprofile unconfined"));
told("looks", opened("<", "/proc/sys/kernel/ns_last_pid"));
told("goes", defined syswrite($own, "changeprofile fastmig-container"));
"#;

fn bounds() -> Result<()> {
    let node = node()?;
    // Perl comes with every Debian, and has all it needs once it runs.
    let said = node.sh(&format!("cd /; perl -MErrno -e {}", quoted(ATTEMPTS)))?;
    let denied: Vec<_> = said.lines().filter_map(|line| line.strip_suffix(" denied")).collect();
    let meant = [
        "reads", "writes", "sets", "executes", "mounts", "connects", "signals", "becomes", "traces", "leaves",
    ];
    ensure!(denied == meant, "{said}");
    ensure!(said.ends_with("looks done\ngoes done\n"), "{said}");
    Ok(())
}

fn unprivileged() -> Result<()> {
    let node = node()?;
    let container = Container::run(&node, "strict", (FASTMIG, &["--seccomp"]), "python", SLEEP)?;
    container.require_label(OURS)
}
