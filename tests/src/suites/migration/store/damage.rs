//! Stored checkpoints that somebody changed, cut off or swapped; and places that do not answer, do not let us in or are not
//! there.

use anyhow::{ensure, Context, Result};

use super::journey::nothing_on_its_way;
use super::places::{Kind, Stage};
use crate::apps::container::{Container, Setup};
use crate::framework::flip::FLIP;
use crate::framework::{golang, Case, Ctx};
use crate::suites::migration::stage::with_images;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "a damaged checkpoint in a directory is refused",
        run: |ctx| damage(ctx, Kind::Directory).into(),
    },
    Case {
        name: "a damaged checkpoint in a registry is refused",
        run: |ctx| damage(ctx, Kind::Registry).into(),
    },
    Case {
        name: "a damaged checkpoint in an object store is refused",
        run: |ctx| golang::needed(|| damage(ctx, Kind::Bucket)),
    },
    Case { name: "a place that fails is named with its remedy", run: |ctx| places(ctx).into() },
];

/// The largest file, which is a part: a byte in it is another one, one is missing, all of it is.
const HARMS: [&str; 3] = [
    "flip $file $(($(stat -c %s $file) / 2))",
    "size=$(stat -c %s $file); truncate -s $((size - 1)) $file",
    "rm $file",
];

fn damage(ctx: &Ctx, kind: Kind) -> Result<()> {
    let stage = Stage::new(ctx, kind)?;
    for host in [&stage.a, &stage.b] {
        with_images(host, &["busybox"])?;
    }
    let setup = Setup::of("busybox").running(["sh", "-c", "while :; do usleep 100000; done"]);
    let source = Container::run(&stage.a, "resting", &setup)?;
    let destination = Container::run(&stage.b, "resting", &setup.in_standby())?;
    source.wait_for("running")?;
    for (number, harm) in HARMS.iter().enumerate() {
        for (name, options) in [("plain", &[][..]), ("secret", &["--encrypt"])] {
            let location = stage.location(&format!("{name}-{number}"));
            let before = stage.a.sh(&files(&stage)).ok()?;
            source.operate("checkpoint", &[&["--leave-running", "--to", &location], options].concat())?;
            // The largest one that came with it.
            let after = stage.a.sh(&files(&stage)).ok()?;
            let file = after.lines().find(|line| !before.contains(line)).context("nothing was stored")?;
            let (_, file) = file.split_once(' ').context("no name")?;
            stage.a.sh(&format!("{FLIP}; file={file}; {harm}")).ok()?;
            let refused = destination.operation("restore", &["--from", &location]).output()?;
            let words = String::from_utf8_lossy(&refused.stdout).into_owned();
            ensure!(!refused.status.success() && words.contains("damaged"), "{harm}: {words}");
            destination.require("standby")?;
            nothing_on_its_way(&stage.b)?;
        }
    }
    // The next try, with one that nobody touched, succeeds.
    let location = stage.location("whole");
    source.operate("checkpoint", &["--standby", "--to", &location])?;
    destination.operate("restore", &["--from", &location])?;
    destination.remove()?;
    source.remove()
}

/// All files that hold what is stored, with their sizes, the largest first.
fn files(stage: &Stage) -> String {
    format!("find {} -type f -printf '%s %p\\n' | sort -rn", stage.data())
}

fn places(ctx: &Ctx) -> Result<()> {
    let stage = Stage::new(ctx, Kind::Registry)?;
    let b = &stage.b;
    let listing = |place: &str| -> Result<String> {
        let output = b.cmd(["fastmig", "checkpoints", "list", place]).output()?;
        ensure!(!output.status.success(), "{place} is listed");
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    };
    ensure!(stage.list()?.is_empty(), "an empty repository is not empty");
    let wrong = b.cmd(["fastmig", "checkpoints", "delete", &stage.location("none")]).output()?;
    let words = String::from_utf8_lossy(&wrong.stderr).into_owned();
    ensure!(words.contains("there is no checkpoint \"none\""), "{words}");
    // Without a password.
    b.write_file("/etc/fastmig/registry.json", "{}")?;
    let words = listing(&stage.place())?;
    ensure!(words.contains("refuses us") && words.contains("credentials"), "{words}");
    // Nobody listens.
    stage.stop()?;
    let words = listing(&stage.place())?;
    ensure!(words.contains("cannot be reached"), "{words}");
    let words = listing("ftp://x/y")?;
    ensure!(words.contains("is no place"), "{words}");
    Ok(())
}
