//! What an application wrote, changed and deleted in its root file system, and in memory, is there after a move.

use anyhow::{ensure, Context, Result};

use super::hosts;
use crate::apps::container::{Container, Setup};
use crate::apps::moving::{move_application, IMAGES};
use crate::framework::{Ctx, Generation};
use crate::suites::shim::stage::nothing_is_left;

/// All that an overlay's upper directory can hold.
const CHANGES: &str = r#"set -e
mkdir -p /data/deep/er; echo one > /data/deep/x; ln /data/deep/x /data/hard; ln -s ../data//deep/ /data/sym; mkfifo -m 620 /data/pipe
chmod 4755 /data/deep/x; chown 1000:1001 /data/deep; chmod 1770 /data/deep; touch -d @1000000000.123456789 /data/deep/er
truncate -s 300M /data/sparse; printf island | dd of=/data/sparse bs=1 seek=100000000 conv=notrunc status=none
rm /etc/debian_version; rm -r /usr/share/debianutils; rm -r /etc/cron.daily; mkdir /etc/cron.daily; echo new > /etc/cron.daily/new
echo more >> /etc/issue; mv /etc/motd /etc/renamed 2>/dev/null || mv /etc/issue.net /etc/renamed; rm /etc/shells; mkdir /etc/shells
mkdir /dev/shm/in; echo memory > /dev/shm/in/memory; echo cached > /cache/file; chown -h 7:8 /data/sym"#;

/// Every path with what it is; the sizes and times of directories are the overlay's own affair.
const LIST: &str = r#"find / /dev/shm /cache -xdev \( -path /dev -o -path /proc -o -path /sys \) -prune -o \
    -type d -printf '%y %m %U %G %p\n' -o -printf '%y %m %U %G %s %n %T@ %l %p\n' | sort
cat /data/hard /etc/cron.daily/* /etc/issue /etc/renamed /dev/shm/in/memory /cache/file; sha256sum < /data/sparse; stat -c %y /data/deep/er"#;

pub(super) fn travel(ctx: &Ctx, generations: [Generation; 2]) -> Result<()> {
    let [from, to] = hosts(ctx, generations, "python")?;
    let setup = Setup::of("python").with(["--mount", "type=tmpfs,dst=/cache,options=rw"]).running([
        "sh",
        "-c",
        "while :; do read line < /proc/uptime; echo $line > /data-from-shell; sleep 0.05; done",
    ]);
    let source = Container::run(&from, "files-1", &setup)?;
    let destination = Container::run(&to, "files-2", &setup.clone().in_standby())?;
    let third = Container::run(&to, "files-3", &setup.in_standby())?;
    source.exec("changes", &["sh", "-c", CHANGES])?;
    // What the destination had of its own gives way.
    destination
        .exec("own", &["sh", "-c", "mkdir -p /data/sparse/own; ln -s /nowhere /data/deep; rm /etc/issue"])?;

    let moved = move_application(&source, &destination)?;
    ensure!(moved["checkpoint"]["files"].as_u64() > Some(20), "few files travelled: {}", moved["checkpoint"]);
    let first = source.exec("list", &["sh", "-c", LIST])?;
    let second = without_the_clock(&destination.exec("list", &["sh", "-c", LIST])?);
    same(&without_the_clock(&first), &second)?;
    ensure!(second.contains("island") || second.contains(" /data/sparse"), "nothing was compared");
    let blocks = destination.exec("blocks", &["stat", "-c", "%b", "/data/sparse"])?;
    ensure!(blocks.trim().parse::<u64>()? < 2048, "a sparse file became dense: {blocks} blocks");

    // And on, from what was put back.
    move_application(&destination, &third)?;
    same(&second, &without_the_clock(&third.exec("list", &["sh", "-c", LIST])?))?;
    for container in [source, destination, third] {
        container.remove()?;
    }
    nothing_is_left(&from)?;
    nothing_is_left(&to)
}

/// The application goes on writing one file, and two are mounted from the host.
fn without_the_clock(list: &str) -> String {
    let others = ["/data-from-shell", "/etc/hosts", "/etc/resolv.conf"];
    list.lines().filter(|line| !others.iter().any(|end| line.ends_with(end))).collect::<Vec<_>>().join("\n")
}

fn same(one: &str, other: &str) -> Result<()> {
    let only = |a: &str, b: &str| -> Vec<String> {
        let b: std::collections::HashSet<&str> = b.lines().collect();
        a.lines().filter(|line| !b.contains(line)).map(str::to_owned).collect()
    };
    let (gone, come) = (only(one, other), only(other, one));
    ensure!(gone.is_empty() && come.is_empty(), "missing: {gone:#?}\ntoo much: {come:#?}");
    Ok(())
}

/// Without the option no files travel, and a restore that needs one says which.
pub(super) fn left_behind(ctx: &Ctx, generation: Generation) -> Result<()> {
    let [host, _] = hosts(ctx, [generation; 2], "python")?;
    let setup = Setup::of("python").running(["sh", "-c", "exec 3> /only-here; while :; do sleep 1; done"]);
    let source = Container::run(&host, "left-1", &setup)?;
    let destination = Container::run(&host, "left-2", &setup.in_standby())?;
    let image = format!("{IMAGES}/left");
    host.cmd(["mkdir", "-p", "-m", "700", IMAGES]).ok()?;
    source.operate("checkpoint", &["--standby", "--image-path", &image])?;
    let refused = destination.operation("restore", &["--image-path", &image]).output()?;
    ensure!(!refused.status.success() && refused.out().contains("only-here"), "not said: {}", refused.out());
    destination.require("standby").context("after a failed restore")?;
    for container in [source, destination] {
        container.remove()?;
    }
    host.cmd(["rm", "-rf", &image]).ok()?;
    nothing_is_left(&host)
}
