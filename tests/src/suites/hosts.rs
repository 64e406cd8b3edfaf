//! The test hosts themselves: what every other suite takes for granted.

use std::path::Path;
use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};

use crate::framework::suite::run_cases;
use crate::framework::{Case, Ctx, Generation, Host, Outcome, Tally};

const CASES: &[Case] = &[
    Case { name: "two generations reach each other", run: |ctx| reach(ctx).into() },
    Case { name: "a process of a host sees nothing of this machine", run: |ctx| apart(ctx).into() },
    Case { name: "bundled criu runs on trixie", run: |ctx| criu(ctx, Generation::Trixie).into() },
    Case { name: "bundled criu runs on forky", run: |ctx| criu(ctx, Generation::Forky).into() },
    Case {
        name: "containers run on trixie and leave nothing",
        run: |ctx| containers(ctx, Generation::Trixie).into(),
    },
    Case {
        name: "containers run on forky and leave nothing",
        run: |ctx| containers(ctx, Generation::Forky).into(),
    },
    Case { name: "leftovers are seen", run: |ctx| leftovers(ctx).into() },
    Case { name: "a killed containerd can start again", run: |ctx| restart(ctx).into() },
    Case { name: "a host with frozen processes and mounts goes down", run: |ctx| down(ctx).into() },
];

pub(super) fn run(ctx: &Ctx) -> Result<Tally> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(run_cases(
            "hosts",
            ctx,
            &[Case { name: "hosts", run: |_| Outcome::Skipped("needs root".into()) }],
        ));
    }
    Ok(run_cases("hosts", ctx, CASES))
}

fn pair(ctx: &Ctx) -> Result<[std::sync::Arc<Host>; 2]> {
    let session = ctx.session()?;
    Ok([session.host("a", Generation::Trixie)?, session.host("b", Generation::Forky)?])
}

fn reach(ctx: &Ctx) -> Result<()> {
    let [a, b] = pair(ctx)?;
    for (from, to) in [(&a, &b), (&b, &a)] {
        from.cmd(["ping", "-c", "1", "-W", "2", &to.address()]).ok()?;
    }
    a.write_file("/shared/note", "from a")?;
    ensure!(b.read_file("/shared/note")? == b"from a", "the shared directory is not shared");
    Ok(())
}

fn apart(ctx: &Ctx) -> Result<()> {
    let [a, _] = pair(ctx)?;
    let environment = a.cmd(["env"]).ok()?;
    let mut names: Vec<&str> = environment.lines().filter_map(|line| line.split('=').next()).collect();
    names.sort_unstable();
    ensure!(names == ["HOME", "LANG", "PATH", "TERM"], "environment: {names:?}");
    ensure!(a.sh("echo /proc/self/fd/*").ok()?.split_whitespace().count() <= 4, "inherited descriptors");
    ensure!(a.cmd(["ps", "-e", "-o", "comm="]).ok()?.starts_with("tini\n"), "PID 1 is not tini");
    let cgroups = a.cmd(["cat", "/proc/self/cgroup"]).ok()?;
    let is_own = |line: &str| line.ends_with(":/") || line.ends_with(":/host");
    ensure!(cgroups.lines().all(is_own), "a cgroup of this machine shows: {cgroups}");
    for (path, expected) in [("/run", "tmpfs"), ("/", "overlay")] {
        let found = a.cmd(["stat", "-f", "-c", "%T", path]).ok()?;
        ensure!(found.trim().starts_with(expected), "{path} is on {found}");
    }
    let containerd = a.cmd(["stat", "-f", "-c", "%T", "/var/lib/containerd"]).ok()?;
    ensure!(!containerd.starts_with("overlay"), "overlayfs takes no upper directory on an overlay");
    Ok(())
}

fn criu(ctx: &Ctx, generation: Generation) -> Result<()> {
    let [a, b] = pair(ctx)?;
    let host = if generation == Generation::Trixie { a } else { b };
    let dir = "/usr/lib/fastmig/runtime/criu";
    let loader = format!("{dir}/ld-linux-x86-64.so.2");
    let (libraries, program) = (format!("{dir}/lib"), format!("{dir}/criu"));
    let argv = [&loader, "--inhibit-cache", "--library-path", &libraries, &program, "check"];
    let output = host.cmd(argv).output()?;
    ensure!(output.out().contains("Looks good"), "criu check: {}{}", output.out(), output.err());
    Ok(())
}

fn containers(ctx: &Ctx, generation: Generation) -> Result<()> {
    let host = ctx.session()?.fresh_host("c", generation)?;
    host.start_containerd()?;
    host.import_images(&["busybox", "redis"])?;
    let run = ["ctr", "run", "--rm", "docker.io/library/busybox:1", "one", "sh", "-c", "echo hello; exit 7"];
    let output = host.cmd(run).output()?;
    ensure!(output.status.code() == Some(7) && output.out() == "hello\n", "{output:?}");
    host.cmd(["ctr", "run", "-d", "--null-io", "docker.io/library/redis:1", "two"]).ok()?;
    let ping =
        "for i in $(seq 50); do ctr t exec --exec-id p$i two redis-cli ping && exit; sleep 0.1; done; exit 1";
    ensure!(host.sh(ping).ok()? == "PONG\n", "redis does not answer");
    host.sh("ctr t kill -s KILL two; ctr t rm -f two; ctr c rm two").ok()?;
    let left = host.leftovers()?;
    ensure!(left.is_empty(), "left behind: {left:#?}");
    host.down()
}

fn leftovers(ctx: &Ctx) -> Result<()> {
    let host = ctx.session()?.fresh_host("c", Generation::Trixie)?;
    host.sh("setsid sleep 4242 & mkdir -p /run/fastmig/x /mnt/y && mount -t tmpfs none /mnt/y").ok()?;
    let left = host.leftovers()?;
    for expected in ["process sleep 4242", "file /run/fastmig/x", "mount /mnt/y"] {
        ensure!(left.iter().any(|line| line == expected), "{expected} is not among {left:?}");
    }
    ensure!(left.len() == 3, "too many: {left:?}");
    Ok(())
}

fn restart(ctx: &Ctx) -> Result<()> {
    let host = ctx.session()?.fresh_host("c", Generation::Forky)?;
    host.start_containerd()?;
    host.kill_containerd()?;
    ensure!(
        host.cmd(["ctr", "--timeout", "1s", "version"]).output()?.err().contains("containerd"),
        "it still answers"
    );
    host.start_containerd()
}

fn down(ctx: &Ctx) -> Result<()> {
    let host = ctx.session()?.fresh_host("c", Generation::Trixie)?;
    let freezer = "/sys/fs/cgroup/freezer";
    let script = format!(
        "mount -t tmpfs none /mnt; setsid sleep 4243 & \
         if test -d {freezer}; then mkdir {freezer}/x; echo $! >{freezer}/x/cgroup.procs; echo FROZEN >{freezer}/x/freezer.state; fi"
    );
    host.sh(&script).ok()?;
    let (pid, disk) = (host.pid(), host.shared_dir().with_file_name("c"));
    let still = host.cmd(["sleep", "4244"]).timeout(Duration::from_secs(30)).spawn()?;
    ensure!(disk.is_dir(), "{} is not there", disk.display());
    host.down()?;
    ensure!(
        still.wait(Duration::from_secs(5)).context("a command outlived its host")?.status.code() != Some(0),
        "it ended well"
    );
    for gone in [Path::new("/proc").join(pid.to_string()), disk] {
        if gone.exists() {
            bail!("{} is still there", gone.display());
        }
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    ensure!(!mounts.contains("/fastmig/hosts/"), "mounts remain on this machine:\n{mounts}");
    Ok(())
}
