//! What `fastmig` costs in front of runc: the time and the memory of commands that it hands over, and of a whole container.
//!
//! Memory is the anonymous memory and kernel memory that a cgroup is charged for a command of the wrapper's own (`status`),
//! against that for runc's `list`; files are charged to whoever read them first.

use std::time::Duration;

use anyhow::{Context, Result};
use fastmig_tests::framework::image::reference;
use fastmig_tests::framework::Host;

use super::IMAGE;
use crate::bench::Bench;
use crate::figures::Metric;

/// Calls that one time is of.
const CALLS: u32 = 10;

const TIME: Metric = Metric::new("time", "ms");
const MEMORY: Metric = Metric::new("charged", "kB");

const COMMANDS: [(&str, &str); 4] = [
    ("features", "features"),
    ("state", "state plain"),
    ("list", "list -q"),
    ("run-true", "run -b /bench-commands/bundle b </dev/null"),
];

const TOOLS: [(&str, &str, &str); 2] =
    [("runc", "runc", "runc list"), ("fastmig-wrapper", "fastmig", "fastmig status")];

/// A container of runc's, `plain`, and a bundle whose command is `true`. Argument: the image.
const PREPARE: &str = r#"
mkdir -p /bench-commands /tmp/image && mount -t tmpfs bench /bench-commands
mkdir -p /bench-commands/bundle/rootfs && cd /bench-commands/bundle
ctr images mount "$1" /tmp/image && cp -a /tmp/image/. rootfs/ && ctr images unmount --rm /tmp/image
runc spec && jq '.process.terminal = false | .process.args = ["sleep", "1000"]' config.json >c && mv c config.json
runc run -d plain </dev/null >/dev/null 2>&1 && jq '.process.args = ["true"]' config.json >c && mv c config.json
"#;

const REMOVE: &str = "runc delete -f plain; umount /bench-commands";

/// Measures.
pub(super) fn run(bench: &mut Bench, host: &Host) -> Result<()> {
    host.cmd(["sh", "-ec", PREPARE, "sh", &reference(IMAGE)]).ok().context("no bundle")?;
    let measured = measure(bench, host);
    host.sh(REMOVE).ok()?;
    measured
}

fn measure(bench: &mut Bench, host: &Host) -> Result<()> {
    let charges = host.sh("test -d /sys/fs/cgroup/memory").output()?.status.success();
    if !charges {
        bench.leave_out("memory of a command", "this machine has no memory cgroups of version 1");
    }
    for round in 0..bench.rounds(3, 10) {
        if round > 0 && !bench.has_time() {
            break;
        }
        for (name, command) in COMMANDS {
            for (tool, program, _) in TOOLS {
                let time = time(host, &format!("{program} {command}"))?;
                bench.note(name, tool, TIME, time);
            }
        }
        for (tool, _, command) in TOOLS.into_iter().filter(|_| charges) {
            bench.add("command", tool, MEMORY, memory(host, command)?);
        }
    }
    Ok(())
}

/// Milliseconds of one call.
fn time(host: &Host, command: &str) -> Result<f64> {
    let script = format!(
        "s=${{EPOCHREALTIME/[.,]/}}; for i in {{1..{CALLS}}}; do {command} >/dev/null; done; \
         echo $((${{EPOCHREALTIME/[.,]/}} - s))"
    );
    let told = host.cmd(["bash", "-ec", &script]).timeout(Duration::from_secs(60)).ok()?;
    Ok(told.trim().parse::<f64>()? / 1000.0 / f64::from(CALLS))
}

/// The most that a cgroup of its own was charged for `command`, in kB.
fn memory(host: &Host, command: &str) -> Result<f64> {
    let script = format!(
        "g=/sys/fs/cgroup/memory/bench; mkdir $g; sh -c \"echo \\$\\$ > $g/cgroup.procs; exec {command}\" >/dev/null; \
         cat $g/memory.max_usage_in_bytes; echo 0 > $g/memory.force_empty; rmdir $g"
    );
    Ok(host.sh(&script).ok()?.trim().parse::<f64>()? / 1024.0)
}
