//! What a CRIU inside the container cannot do: refused by name, before anything is stopped.

use anyhow::{ensure, Result};

use super::{counts_on, host, start, INSIDE, PLACE, USER};
use crate::framework::Ctx;
use crate::suites::migration::stage::nothing_is_left;
use crate::suites::security::craft::Checkpoint;
use crate::suites::security::stage::Settings;

/// What an application is made of, the container's options, and what is said.
const REFUSED: &[(&str, &[&str], &str)] = &[
    ("", &["--seccomp", "--user", "1000:1000"], "seccomp filter"),
    ("", &["--user", "1000:1000", "--annotation", "fastmig.dev/tcp=keep"], "keep TCP connections"),
    ("os.setgroups([]); os.setgid(1000); os.setuid(1000)", &[], "other users or groups"),
    (
        "import ctypes\nl = ctypes.CDLL(None)\nassert l.inotify_add_watch(l.inotify_init(), b'/tmp', 0x100) >= 0",
        USER,
        "watches files (inotify)",
    ),
    ("import ctypes\nassert ctypes.CDLL(None).prctl(4, 0, 0, 0, 0) == 0", USER, "hides itself"),
    (
        "import ctypes\nl = ctypes.CDLL(None)\nl.shmat.restype = ctypes.c_void_p\n\
         i = l.shmget(0, 8192, 0o600)\nassert i >= 0\nl.shmat(i, None, 0)",
        USER,
        "System V shared memory",
    ),
    ("import ctypes\nassert ctypes.CDLL(None).unshare(0x04000000) == 0", &["--cap-add", "CAP_SYS_ADMIN"], "namespaces of a process's own"),
];

/// An application of a host that has run for longer.
pub(super) fn later_clock(ctx: &Ctx) -> Result<()> {
    let host = host(ctx)?;
    let _settings = Settings::write(&host, INSIDE)?;
    let container = start(&host, "", USER)?;
    container.checkpoint(PLACE)?;
    let (good, place) = (host.outside(PLACE), host.outside("/srv/inside-later"));
    let checkpoint = Checkpoint::copy(&good, &place)?;
    checkpoint.message("timens-0.img", |clocks| {
        clocks.within(1, |clock| clock.set_number(1, clock.number(1).unwrap_or_default() + 1_000_000))
    })?;
    checkpoint.seal()?;
    let output = container.operation("restore", &["--image-path", "/srv/inside-later"]).output()?;
    let text = output.out() + &output.err();
    ensure!(!output.status.success() && text.contains("runs for less time"), "{text}");
    container.require("standby")?;
    container.restore(PLACE)?;
    counts_on(&container)?;
    container.remove()?;
    host.cmd(["rm", "-rf", PLACE, "/srv/inside-later"]).ok()?;
    nothing_is_left(&host)
}

pub(super) fn refused(ctx: &Ctx) -> Result<()> {
    let host = host(ctx)?;
    for (program, options, words) in REFUSED {
        let container = start(&host, program, options)?;
        let before = container.status()?;
        let settings = Settings::write(&host, INSIDE)?;
        let output = container.operation("checkpoint", &["--standby", "--image-path", PLACE]).output()?;
        let checked = container.operation("check", &[]).output()?;
        drop(settings);
        ensure!(checked.out().contains(words), "not told beforehand: {}{}", checked.out(), checked.err());
        let text = output.out() + &output.err();
        ensure!(!output.status.success(), "{words}: it goes well");
        ensure!(text.contains(words) && text.contains("in-container"), "not {words:?}, but: {text}");
        let after = container.require("running")?;
        ensure!((after.pid, after.runs) == (before.pid, before.runs), "{words}: it is another one");
        counts_on(&container)?;
        container.remove()?;
    }
    nothing_is_left(&host)
}
