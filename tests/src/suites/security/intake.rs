//! A host of the cluster that somebody has taken over: with a good certificate, and images that no honest one sends.

use std::sync::Arc;

use anyhow::{bail, ensure, Context, Result};

use super::outside::{self, Outside, CONTENT, SECRET};
use super::stage::{confined, Settings};
use crate::apps::container::Container;
use crate::apps::migrating::{command, migrate};
use crate::framework::process::wait_until;
use crate::framework::{Case, Ctx, Host};
use crate::suites::migration::stage::{nothing_is_left, pair_of_daemons, with_images};

pub(super) const CASES: &[Case] = &[Case {
    name: "peers: images that no honest host sends stay in their container",
    run: |ctx| intake(ctx).into(),
}];

/// What the source adds to its images right before it sends them, as a shell script does in their directory.
const ADDED: &[(&str, &str)] = &[
    ("a process that is not there", "head -c 500 /dev/urandom > core-4711.img"),
    ("mounts that are not there", "head -c 500 /dev/urandom > mountpoints-99.img"),
    ("memory of nobody", "head -c 3000000 /dev/urandom > pages-77.img"),
    ("another file of the name of a directory", "echo x > parent"),
    ("a hidden name", "echo x > .hidden.img"),
    ("a name that is none", "echo x > 'a b'"),
    ("a name like a path", "echo x > '..%2fsecret'"),
    ("a name of 255 bytes", "echo x > $(head -c 255 /dev/zero | tr '\\0' x)"),
    ("many", "for i in $(seq 3000); do : > core-$((i + 5000)).img; done"),
    ("a link to a secret", "ln -s /srv/outside/secret link.img"),
    ("a pipe", "mkfifo pipe.img"),
    ("a directory", "mkdir -p below.img/parent"),
];

/// Runs on the source in each migration.
const HOOK: &str = "[[hook]]\nwhen = \"pre-checkpoint\"\ncommand = [\"/bin/sh\", \"/var/tmp/add.sh\"]\non_failure = \"abort\"\n";

const LIMIT: std::time::Duration = std::time::Duration::from_secs(30);

fn intake(ctx: &Ctx) -> Result<()> {
    let (a, b) = pair_of_daemons(ctx)?;
    for host in [&a, &b] {
        with_images(host, &["python"])?;
        outside::prepare(host)?;
    }
    let settings = Settings::write(&a, HOOK)?;
    let result = again(&a).and_then(|()| each(&a, &b));
    drop(settings);
    again(&a)?;
    a.cmd(["rm", "-f", "/var/tmp/add.sh"]).ok()?;
    result
}

/// The daemon reads its settings when it starts.
fn again(host: &Host) -> Result<()> {
    host.stop_fastmigd()?;
    host.start_fastmigd()
}

fn each(a: &Arc<Host>, b: &Arc<Host>) -> Result<()> {
    let program =
        "import time\nm = bytearray(8 << 20)\nprint('ready', flush=True)\nwhile True: time.sleep(0.02)";
    let setup = confined(&["python3", "-c", program]);
    let source = Container::run(a, "intake-1", &setup)?;
    let destination = Container::run(b, "intake-2", &setup.in_standby())?;
    let neighbour = Container::run(b, "neighbour", &confined(&["sleep", "100000"]))?;
    let ready = || source.output().is_ok_and(|output| output.starts_with(b"ready"));
    wait_until(LIMIT, ready).context("the application does not come up")?;
    let pid = neighbour.status()?.pid;
    let (mut wrong, mut taken) = (Vec::new(), 0);
    for (name, script) in ADDED {
        a.write_file(
            "/var/tmp/add.sh",
            format!("cd /run/fastmig/*/intake-1/images && touch /var/tmp/added && {script}\n"),
        )?;
        match one(&source, &destination, pid) {
            Ok(moved) => taken += usize::from(moved),
            Err(error) => wrong.push(format!("{name}: {error:#}")),
        }
        if destination.require("running").is_ok() {
            migrate(&destination, &source, &[]).with_context(|| format!("back, after {name}"))?;
        }
        source.require("running")?;
    }
    if !wrong.is_empty() {
        bail!("{} of {}:\n{}", wrong.len(), ADDED.len(), wrong.join("\n"));
    }
    println!("    {} sets of images, of which {taken} do no harm and the others are refused", ADDED.len());
    for container in [source, destination, neighbour] {
        container.remove()?;
    }
    nothing_is_left(a)?;
    nothing_is_left(b)
}

/// Whether it came to a move.
fn one(source: &Container, destination: &Container, neighbour: i32) -> Result<bool> {
    let (a, b) = (&source.host, &destination.host);
    a.cmd(["rm", "-f", "/var/tmp/added"]).ok()?;
    let before = Outside::of(b, neighbour)?;
    let output = command(source, destination, &["--strategy", "pre-copy"]).output()?;
    Outside::of(b, neighbour)?.is_as(&before)?;
    let text = output.out() + &output.err();
    a.cmd(["test", "-e", "/var/tmp/added"]).ok().with_context(|| format!("nothing was added: {text}"))?;
    ensure!(!text.contains(CONTENT.trim()), "{SECRET} is told: {text}");
    let spool = b.sh("ls -d /run/fastmig/*/intake-2/images 2>/dev/null || true").ok()?;
    ensure!(spool.trim().is_empty(), "images are left: {spool}");
    if output.status.success() {
        destination.require("running")?;
        return Ok(true);
    }
    destination.require("standby")?;
    source.require("running")?;
    Ok(false)
}
