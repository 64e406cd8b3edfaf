//! How a container ends: exit code, outputs and events.

use std::time::Duration;

use anyhow::{ensure, Context, Result};

use crate::framework::image::reference;
use crate::framework::{Ctx, Generation, Host};
use crate::suites::shim::stage::{self, ctr_run, seen_under_stock, Events, Task, FASTMIG, SOON, STOCK};

/// A container to run under both shims.
struct Run {
    id: &'static str,
    image: &'static str,
    options: &'static [&'static str],
    argv: &'static [&'static str],
    code: i32,
    /// A part of what must be seen: of standard error, or of the events.
    shows: &'static str,
}

const PLAIN: Run = Run { id: "", image: "busybox", options: &[], argv: &[], code: 0, shows: "" };

/// A shell that sent itself the signal would, as PID 1 of a stock container, survive it.
const CRASH: &[&str] = &["python3", "-c", "import ctypes; ctypes.string_at(0)"];
const HUNGRY: &[&str] = &["python3", "-c", "a = []\nwhile True: a.append(bytearray(1 << 20))"];

const ENDS: &[Run] = &[
    Run { id: "true", argv: &["true"], shows: "/tasks/exit", ..PLAIN },
    Run { id: "false", argv: &["false"], code: 1, shows: "exit_status=1 ", ..PLAIN },
    Run {
        id: "seven",
        argv: &["sh", "-c", "echo out; echo err >&2; exit 7"],
        code: 7,
        shows: "exit_status=7 ",
        ..PLAIN
    },
    Run { id: "crash", image: "python", argv: CRASH, code: 139, shows: "exit_status=139 ", ..PLAIN },
    Run {
        id: "oom",
        image: "python",
        options: &["--memory-limit", "50000000"],
        argv: HUNGRY,
        code: 137,
        shows: "/tasks/oom",
    },
    Run {
        id: "child",
        argv: &["sh", "-c", "(sleep 1000 &) ; exit 9"],
        code: 9,
        shows: "exit_status=9 ",
        ..PLAIN
    },
];

const REFUSALS: &[Run] = &[
    Run {
        id: "nowhere",
        argv: &["nope"],
        code: 1,
        shows: r#"exec: "nope": executable file not found in $PATH"#,
        ..PLAIN
    },
    Run {
        id: "missing",
        argv: &["/nope"],
        code: 1,
        shows: r#"exec: "/nope": stat /nope: no such file or directory"#,
        ..PLAIN
    },
    Run {
        id: "plain",
        argv: &["/etc/passwd"],
        code: 1,
        shows: r#"exec: "/etc/passwd": permission denied"#,
        ..PLAIN
    },
    Run { id: "directory", argv: &["/etc"], code: 1, shows: r#"exec: "/etc": is a directory"#, ..PLAIN },
    Run { id: "relative", argv: &["./nope"], code: 1, shows: r#"exec: "./nope": "#, ..PLAIN },
    Run {
        id: "user",
        options: &["--user", "1000:1000", "--mount", "type=tmpfs,dst=/closed,options=mode=0700"],
        argv: &["/closed/nope"],
        code: 1,
        shows: r#"exec: "/closed/nope": "#,
        ..PLAIN
    },
    Run {
        id: "cwd",
        options: &["--cwd", "/etc/passwd"],
        argv: &["true"],
        code: 1,
        shows: "/etc/passwd",
        ..PLAIN
    },
];

/// All that a user and a client of containerd see of a container's end.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    code: Option<i32>,
    stdout: String,
    stderr: String,
    events: Vec<String>,
}

fn look(host: &Host, events: &Events, runtime: &str, run: &Run, limit: Duration) -> Result<Seen> {
    let mark = events.mark();
    let options = [&["--rm"], run.options].concat();
    let output = ctr_run(host, runtime, &options, run.image, run.id, run.argv).output()?;
    Ok(Seen {
        code: output.status.code(),
        stdout: output.out(),
        // A phrase that runc 1.2 and later put in; ours is that of 1.1.
        stderr: output.err().replace("error during container init: ", ""),
        events: events.until_removed(run.id, mark, limit)?,
    })
}

fn same(ctx: &Ctx, generation: Generation, runs: &[Run]) -> Result<()> {
    let host = stage::host(ctx, generation)?;
    let events = Events::record(&host)?;
    for run in runs {
        let stock = seen_under_stock(|limit| look(&host, &events, STOCK, run, limit))?;
        let ours = look(&host, &events, FASTMIG, run, SOON)?;
        ensure!(stock == ours, "{:?}: the stock shim shows {stock:#?}\nFastMig's {ours:#?}", run.argv);
        ensure!(ours.code == Some(run.code), "{:?}: {ours:#?}", run.argv);
        let all = format!("{}{}", ours.stderr, ours.events.join("\n"));
        ensure!(all.contains(run.shows), "{:?} does not show {}: {ours:#?}", run.argv, run.shows);
    }
    drop(events);
    stage::nothing_is_left(&host)
}

pub(super) fn ends(ctx: &Ctx, generation: Generation) -> Result<()> {
    same(ctx, generation, ENDS)
}

pub(super) fn refusals(ctx: &Ctx, generation: Generation) -> Result<()> {
    same(ctx, generation, REFUSALS)
}

/// Says which signal it got and ends with a code of its own.
const TRAPS: &str = "for s in HUP INT QUIT USR1 USR2 TERM; do trap \"echo got $s; exit 42\" $s; done; \
                     trap 'echo winch' WINCH; echo ready; while :; do sleep 0.02; done";

pub(super) fn signals(ctx: &Ctx, generation: Generation) -> Result<()> {
    let host = stage::host(ctx, generation)?;
    for signal in ["HUP", "INT", "QUIT", "USR1", "USR2", "TERM"] {
        let seen = [STOCK, FASTMIG].map(|runtime| signalled(&host, runtime, signal, &[]));
        let [stock, ours] = seen.map(|seen| seen.with_context(|| signal.to_owned()));
        let (stock, ours) = (stock?, ours?);
        ensure!(stock == ours, "{signal}: the stock shim gives {stock:?}, FastMig's {ours:?}");
        ensure!(ours == (Some(42), format!("ready\ngot {signal}\n")), "{signal}: {ours:?}");
    }
    for options in [&[][..], &["--all"]] {
        let [stock, ours] = [STOCK, FASTMIG].map(|runtime| signalled(&host, runtime, "KILL", options));
        let (stock, ours) = (stock?, ours?);
        ensure!(stock == ours && ours.0 == Some(137), "KILL {options:?}: {stock:?}, FastMig's {ours:?}");
    }
    interrupted(&host)?;
    stage::nothing_is_left(&host)
}

fn signalled(host: &Host, runtime: &str, signal: &str, options: &[&str]) -> Result<(Option<i32>, String)> {
    let task = Task { host, id: format!("s-{}", signal.to_lowercase()) };
    let run = ctr_run(host, runtime, &["--rm"], "busybox", &task.id, &["sh", "-c", TRAPS]);
    let mut run = run.spawn()?;
    run.wait_for_output("ready", SOON)?;
    task.ctr(&[&["kill", "-s", signal], options].concat(), &[]).ok()?;
    let output = run.wait(SOON)?;
    Ok((output.status.code(), output.out()))
}

/// `ctr run` hands on what it gets itself.
fn interrupted(host: &Host) -> Result<()> {
    let task = Task { host, id: "s-ctr".into() };
    let run = format!(
        "echo $$ >/tmp/ctr.pid; exec ctr run --rm --runtime {FASTMIG} {} {} sh -c \"$0\"",
        reference("busybox"),
        task.id
    );
    let mut run = host.cmd(["sh", "-c", &run, TRAPS]).spawn()?;
    run.wait_for_output("ready", SOON)?;
    host.sh("kill -WINCH $(cat /tmp/ctr.pid)").ok()?;
    run.wait_for_output("winch", SOON)?;
    host.sh("kill -INT $(cat /tmp/ctr.pid)").ok()?;
    let output = run.wait(SOON)?;
    ensure!(output.status.code() == Some(42) && output.out().contains("got INT"), "{output:?}");
    Ok(())
}
