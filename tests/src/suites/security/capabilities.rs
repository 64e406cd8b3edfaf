//! The table of `docs/capabilities.md`, line by line: without one capability CRIU fails as it says, and nobody is harmed.

use std::sync::Arc;

use anyhow::{bail, ensure, Context, Result};

use super::stage::{confined, host, Settings};
use crate::apps::container::{Container, Setup};
use crate::framework::process::wait_until;
use crate::framework::{Case, Cmd, Ctx, Host};
use crate::suites::migration::stage::nothing_is_left;

const TABLE: &str = include_str!("../../../../docs/capabilities.md");

const LIMIT: std::time::Duration = std::time::Duration::from_secs(30);

/// An application that needs some of them, by the words of the table.
struct Application {
    what: &'static str,
    /// Of `ctr run`.
    options: &'static [&'static str],
    /// What it sets up.
    program: &'static str,
}

const APPLICATIONS: &[Application] = &[
    Application { what: "that just runs", options: &[], program: "" },
    Application {
        what: "that watches a directory",
        options: &[],
        program: "import ctypes\nl = ctypes.CDLL(None)\nassert l.inotify_add_watch(l.inotify_init(), b'/dev/shm', 0x100) >= 0",
    },
    Application {
        what: "with a file open that has lost the name it was opened by, in another user's directory",
        options: &["--user", "1000:1000"],
        program: "os.mkdir('/tmp/d', 0o700)\nf = open('/tmp/d/a', 'w')\nos.link('/tmp/d/a', '/tmp/d/b')\nos.unlink('/tmp/d/a')",
    },
    Application {
        what: "with another user's System V shared memory",
        options: &["--user", "1000:1000"],
        program: "import ctypes\nl = ctypes.CDLL(None)\nl.shmat.restype = ctypes.c_void_p\n\
                  i = l.shmget(0, 8192, 0o600)\nassert i >= 0\nl.shmat(i, None, 0)",
    },
    Application {
        what: "whose TCP connections are kept",
        options: &["--annotation", "fastmig.dev/tcp=keep", "--net-host"],
        program: "import socket\ns = socket.socket()\ns.bind(('127.0.0.1', 7777))\ns.listen()\n\
                  c = socket.create_connection(('127.0.0.1', 7777))\na = s.accept()",
    },
    Application {
        what: "with more memory locked than FastMig itself may lock",
        options: &["--user", "1000:1000"],
        program: "import ctypes, mmap\nl = ctypes.CDLL(None)\nm = mmap.mmap(-1, 1 << 20)\n\
                  b = (ctypes.c_char * (1 << 20)).from_buffer(m)\nassert l.mlock(ctypes.byref(b), 1 << 20) == 0",
    },
    Application { what: "of another user", options: &["--user", "1000:1000"], program: "" },
    Application {
        what: "of another user, with a deleted file open",
        options: &["--user", "1000:1000"],
        program: "f = open('/tmp/f', 'w+')\nos.unlink('/tmp/f')\nf.write('x')\nf.flush()",
    },
    Application {
        what: "with a deleted device node open",
        options: &[],
        program: "os.mknod('/tmp/n', 0o20666, os.makedev(1, 3))\nn = os.open('/tmp/n', 2)\nos.unlink('/tmp/n')",
    },
];

/// What docker gives a container: CRIU must hold what it hands on, so that an application is given only what it needs to set
/// itself up.
pub(super) const DEFAULT: &[&str] = &[
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

pub(super) const CASES: &[Case] = &[
    Case {
        name: "capability taken away: a dump fails as the table says",
        run: |ctx| each(ctx, "dump").into(),
    },
    Case {
        name: "capability taken away: a restore fails as the table says",
        run: |ctx| each(ctx, "restore").into(),
    },
];

/// A line of the table.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) capability: &'static str,
    pub(super) operation: &'static str,
    pub(super) words: &'static str,
    pub(super) application: &'static str,
}

pub(super) fn lines() -> Result<Vec<Line>> {
    let lines = TABLE.lines().filter(|line| line.starts_with("| CAP_")).map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [capability, operation, words, application] = cells[..] else { bail!("not four cells: {line}") };
        Ok(Line { capability, operation, words: words.trim_matches('`'), application })
    });
    lines.collect()
}

fn each(ctx: &Ctx, operation: &str) -> Result<()> {
    let host = host(ctx)?;
    let lines = lines()?;
    for application in APPLICATIONS {
        let mine = |line: &&Line| line.application == application.what && line.operation == operation;
        let mine: Vec<&Line> = lines.iter().filter(mine).collect();
        if !mine.is_empty() {
            let container = start(&host, application)?;
            for line in mine {
                match operation {
                    "dump" => no_dump(&host, &container, line),
                    _ => no_restore(&host, &container, line),
                }
                .with_context(|| format!("{line:?}"))?;
            }
            container.remove()?;
        }
    }
    host.sh("rm -rf /srv/capabilities /var/log/fastmig").ok()?;
    nothing_is_left(&host)
}

fn start(host: &Arc<Host>, application: &Application) -> Result<Container> {
    let program = format!(
        "import os, time\n{}\nprint('ready', flush=True)\nwhile True: time.sleep(0.02)",
        application.program
    );
    // Device nodes are made with a capability that the container keeps.
    let own = if application.program.contains("mknod") { None } else { Some("MKNOD") };
    let dropped = DEFAULT.iter().copied().chain(own);
    let dropped = dropped.flat_map(|name| ["--cap-drop".to_owned(), format!("CAP_{name}")]);
    let setup: Setup =
        confined(&["python3", "-c", &program]).with(dropped).with(application.options.iter().copied());
    let container = Container::run(host, "incapable", &setup)?;
    let ready = || container.output().is_ok_and(|output| output.starts_with(b"ready"));
    wait_until(LIMIT, ready)
        .with_context(|| format!("the application {} does not come up", application.what))?;
    Ok(container)
}

/// Settings that withhold the line's capability.
fn without(host: &Arc<Host>, line: &Line) -> Result<Settings> {
    Settings::write(
        host,
        &format!("[limits]\ncriu = 5\nfreeze = 3\n[confinement]\nwithhold = [\"{}\"]\n", line.capability),
    )
}

fn no_dump(host: &Arc<Host>, container: &Container, line: &Line) -> Result<()> {
    let arguments = ["--leave-running", "--image-path", "/srv/capabilities"];
    let before = container.status()?;
    let settings = without(host, line)?;
    let output = container.operation("checkpoint", &arguments).output()?;
    drop(settings);
    fails_as_said(&output, line)?;
    let after = container.require("running").context("after the failed dump")?;
    ensure!((before.pid, before.runs) == (after.pid, after.runs), "it is another one: {after:?}");
    Ok(())
}

fn no_restore(host: &Arc<Host>, container: &Container, line: &Line) -> Result<()> {
    host.sh("rm -rf /srv/capabilities").ok()?;
    container.operate("checkpoint", &["--standby", "--image-path", "/srv/capabilities"])?;
    let settings = without(host, line)?;
    let output = restore(host, container).output()?;
    drop(settings);
    fails_as_said(&output, line)?;
    container.require("standby").context("after the failed restore")?;
    restore(host, container).ok()?;
    container.require("running").map(drop)
}

/// By somebody who may lock little memory.
fn restore(host: &Host, container: &Container) -> Cmd {
    let limit = ["prlimit", "--memlock=65536:"];
    host.cmd(
        [&limit[..], &["fastmig", "--json", "restore", container.id(), "--image-path", "/srv/capabilities"]]
            .concat(),
    )
}

fn fails_as_said(output: &crate::framework::Output, line: &Line) -> Result<()> {
    let text = output.out() + &output.err();
    ensure!(!output.status.success(), "it goes well without");
    ensure!(text.contains(line.words), "not {:?}, but: {text}", line.words);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_table_is_tried() {
        let lines = lines().unwrap();
        assert!(lines.len() > 10, "{lines:?}");
        for line in lines.iter().filter(|line| !line.operation.ends_with(" inside")) {
            assert!(["dump", "restore"].contains(&line.operation), "{line:?}");
            assert!(APPLICATIONS.iter().any(|known| known.what == line.application), "{line:?}");
        }
    }
}
