//! Where FastMig steps aside: podman of a user who is not root, and containers with a user namespace.

use std::time::Duration;

use anyhow::{ensure, Result};

use super::stage;
use crate::framework::image::archive;
use crate::framework::{Case, Ctx, Generation, Host};

pub(super) const CASES: &[Case] = &[
    Case { name: "rootless podman works as with runc", run: |ctx| rootless(ctx).into() },
    Case {
        name: "a container with a user namespace is left to runc, and status says why",
        run: |ctx| mapped(ctx).into(),
    },
];

const SCRIPT: &str = include_str!("../../../fixtures/parity/rootless.sh");

/// A user with ids to give away, and a home and a runtime directory as a login makes them; `$1`: an image.
const PREPARE: &str = r#"
id tester >/dev/null 2>&1 || useradd -m -u 1500 -s /bin/bash tester
for file in /etc/subuid /etc/subgid; do grep -q ^tester: $file || echo tester:100000:65536 >>$file; done
mountpoint -q /home/tester || mount -t tmpfs -o uid=1500,mode=700 none /home/tester
install -d -o tester -m 700 /run/user/1500
su tester -c "cd; XDG_RUNTIME_DIR=/run/user/1500 podman load -q -i $1"
su tester -c "cd; XDG_RUNTIME_DIR=/run/user/1500 podman tag docker.io/library/busybox:1 busybox:1"
"#;

fn rootless(ctx: &Ctx) -> Result<()> {
    let host = stage::host(ctx, Generation::Trixie)?;
    let file = archive(ctx.session()?.cache(), "busybox")?;
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    host.cmd(["bash", "-ec", PREPARE, "bash", &format!("/shared/{name}")]).ok()?;
    host.write_file("/tmp/rootless.sh", SCRIPT)?;
    let tell = |runtime: &str| {
        let line = format!("bash /tmp/rootless.sh {runtime}");
        host.cmd(["su", "tester", "-c", &line]).timeout(Duration::from_secs(60)).ok()
    };
    let (model, told) = (tell("runc")?, tell("fastmig")?);
    for expected in ["code 3", "inside", "ended 5", "1500"] {
        ensure!(model.contains(expected), "runc does not tell {expected:?} but:\n{model}");
    }
    ensure!(told == model, "with fastmig:\n{told}\nwith runc:\n{model}");
    Ok(())
}

fn mapped(ctx: &Ctx) -> Result<()> {
    let host = stage::host(ctx, Generation::Trixie)?;
    let told = look(&host);
    host.cmd(["podman", "rm", "-f", "-t", "0", "mapped"]).ok()?;
    told
}

fn look(host: &Host) -> Result<()> {
    let map = ["--uidmap", "0:200000:1000", "--gidmap", "0:200000:1000"];
    let run = [&["podman", "--runtime", "fastmig", "run", "-d", "--name", "mapped"], map.as_slice()].concat();
    host.cmd([run.as_slice(), &["busybox:1", "sleep", "1000"]].concat()).ok()?;
    let ids = host.cmd(["podman", "exec", "mapped", "cat", "/proc/self/uid_map"]).ok()?;
    ensure!(ids.split_whitespace().eq(["0", "200000", "1000"]), "its ids are {ids}");
    let status = host.cmd(["fastmig", "status", "mapped"]).ok()?;
    ensure!(status.contains("left to runc") && status.contains("user namespace"), "{status}");
    Ok(())
}
