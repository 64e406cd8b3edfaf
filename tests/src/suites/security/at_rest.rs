//! What lies on a disk of an application's memory: root's alone, on every way that it takes.

use anyhow::{ensure, Result};

use super::stage::{confined, host};
use crate::apps::container::Container;
use crate::framework::{Case, Ctx};
use crate::suites::migration::stage::nothing_is_left;

pub(super) const CASES: &[Case] = &[Case {
    name: "at rest: a checkpoint and all that it went through are root's alone",
    run: |ctx| private(ctx).into(),
}];

/// Whatever of them others than root may look at.
const OPEN_TO_OTHERS: &str = "for place in \"$@\"; do [ -e $place ] && find $place ! -type l \
    \\( -perm /077 -o ! -user root -o ! -group root \\) -printf '%p %m %u:%g\\n'; done; true";

fn private(ctx: &Ctx) -> Result<()> {
    let host = host(ctx)?;
    // One that a user owns, with files of its own, and who is generous.
    let setup = confined(&["sh", "-c", "umask 0; echo secret > /tmp/secret; exec sleep 100000"]);
    let container = Container::run(&host, "resting", &setup.with(["--user", "1000:1000"]))?;
    container.require("running")?;
    // Whatever the caller's mask is.
    let save =
        "umask 0; fastmig checkpoint resting --leave-running --files --image-path /srv/rest/by-path && \
                fastmig checkpoint resting --leave-running --files --to /srv/rest/store/one";
    host.sh(save).ok()?;
    let found = host.cmd(["sh", "-c", OPEN_TO_OTHERS, "sh", "/srv/rest/by-path"]).ok()?;
    ensure!(found.is_empty(), "others than root may look at:\n{found}");
    // What is in these is behind their doors.
    let doors = "for door in /run/fastmig /var/lib/fastmig/staging /var/log/fastmig; do \
                 [ ! -e $door ] || find $door -maxdepth 0 -perm /077; done";
    let found = host.sh(doors).ok()?;
    ensure!(found.is_empty(), "others than root may look into:\n{found}");
    let objects = host.sh("find /srv/rest/store -type f -perm /077 -printf '%p %m\\n'").ok()?;
    ensure!(objects.is_empty(), "others than root may read what is stored:\n{objects}");
    let stored = host.sh("find /srv/rest/store -type f | wc -l").ok()?;
    ensure!(stored.trim().parse::<u32>()? >= 2, "nothing is stored");
    container.remove()?;
    host.sh("rm -rf /srv/rest /var/log/fastmig /var/lib/fastmig/staging").ok()?;
    nothing_is_left(&host)
}
