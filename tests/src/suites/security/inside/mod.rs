//! CRIU inside the container: what it has, what works so, and what is refused by name.
//!
//! | file | what |
//! |---|---|
//! | this one | on one host |
//! | `moves` | to another one |
//! | `refused` | what it cannot do |
//! | `watch` | CRIU while it works |

mod moves;
mod refused;
mod watch;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{ensure, Context, Result};

use self::watch::{watched, Seen};
use super::capabilities::{lines, DEFAULT};
use super::privileges::same;
use super::stage::{self, Settings};
use crate::apps::container::{Container, Setup};
use crate::framework::process::wait_until;
use crate::framework::{Case, Ctx, Host};
use crate::suites::migration::stage::nothing_is_left;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "in-container: a user's application has what it has under runc, before and after",
        run: |ctx| as_under_runc(ctx, USER).into(),
    },
    Case {
        name: "in-container: so has a user's that may gain privileges",
        run: |ctx| as_under_runc(ctx, &[USER, &["--allow-new-privs"]].concat()).into(),
    },
    Case {
        name: "in-container: so has root's with docker's default capabilities",
        run: |ctx| as_under_runc(ctx, &[]).into(),
    },
    Case {
        name: "in-container: so has root's with two capabilities, which may gain more",
        run: |ctx| {
            let dropped = DEFAULT.iter().filter(|name| !["KILL", "CHOWN"].contains(name));
            let dropped: Vec<String> =
                dropped.flat_map(|name| ["--cap-drop".into(), format!("CAP_{name}")]).collect();
            let dropped: Vec<&str> = dropped.iter().map(String::as_str).collect();
            as_under_runc(ctx, &[&dropped[..], &["--allow-new-privs"]].concat()).into()
        },
    },
    Case {
        name: "in-container: CRIU is a process of the container with two capabilities",
        run: |ctx| who(ctx).into(),
    },
    Case {
        name: "in-container: trees, threads, files, pipes and sockets live on",
        run: |ctx| lives_on(ctx).into(),
    },
    Case { name: "in-container: each capability is needed", run: |ctx| taken_away(ctx).into() },
    Case { name: "in-container: no clock goes back", run: |ctx| refused::later_clock(ctx).into() },
    Case { name: "in-container: an application moves to another host", run: |ctx| moves::moves(ctx).into() },
    Case {
        name: "in-container: what it cannot do is refused by name",
        run: |ctx| refused::refused(ctx).into(),
    },
];

const INSIDE: &str = "[limits]\ncriu = 20\n[confinement]\nmode = \"in-container\"\n";

/// No filter, of which only a privileged CRIU can know.
const UNFILTERED: &[&str] = &["--annotation", "fastmig.dev/io-uring=allow"];

const USER: &[&str] = &["--user", "1000:1000"];

const PLACE: &str = "/srv/inside";

const LIMIT: Duration = Duration::from_secs(30);

/// The two, as the kernel writes them: CAP_CHECKPOINT_RESTORE and CAP_SYS_PTRACE.
const DUMPS: u64 = 1 << 40 | 1 << 19;
const RESTORES: u64 = 1 << 40;

/// Without what a case that failed may have left of it.
fn host(ctx: &Ctx) -> Result<Arc<Host>> {
    let host = stage::host(ctx)?;
    host.cmd(["rm", "-rf", PLACE]).ok()?;
    Ok(host)
}

fn as_under_runc(ctx: &Ctx, options: &[&str]) -> Result<()> {
    let host = host(ctx)?;
    let _settings = Settings::write(&host, INSIDE)?;
    same(ctx, &[UNFILTERED, options].concat())
}

fn setup(program: &str, options: &[&str]) -> Setup {
    let program = format!("import os, sys, time\n{program}\nprint('ready', flush=True)\n{RUNS}");
    let options = [UNFILTERED, options].concat().into_iter().map(String::from).collect();
    Setup { image: "python".into(), options, ..Setup::default() }.running(["python3", "-c", &program])
}

/// Counts on, where it can be seen.
const RUNS: &str = "i = 0\nwhile True:\n  i += 1; open('/tmp/count', 'w').write(str(i)); time.sleep(0.02)";

fn start(host: &Arc<Host>, program: &str, options: &[&str]) -> Result<Container> {
    let container = Container::run(host, "inside", &setup(program, options))?;
    let ready = || container.output().is_ok_and(|output| output.starts_with(b"ready"));
    wait_until(LIMIT, ready).context("the application does not come up")?;
    Ok(container)
}

/// It goes on counting, from where it was.
fn counts_on(container: &Container) -> Result<()> {
    let pid = container.require("running")?.pid;
    let count = || -> u64 {
        let text = container.host.read_file(&format!("/proc/{pid}/root/tmp/count")).unwrap_or_default();
        String::from_utf8_lossy(&text).parse().unwrap_or(0)
    };
    let before = count();
    wait_until(LIMIT, || count() > before + 2).context("it does not count on")
}

fn who(ctx: &Ctx) -> Result<()> {
    let host = host(ctx)?;
    let _settings = Settings::write(&host, INSIDE)?;
    let container = start(&host, "m = bytearray(64 << 20)", USER)?;
    let first = container.status()?.pid;
    let status = String::from_utf8(host.read_file(&format!("/proc/{first}/status"))?)?;
    let bounding = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).context("no bounding set")?;
    let bounding = u64::from_str_radix(bounding.trim(), 16)?;
    let wanted = |given: u64, bounding: u64| {
        BTreeSet::from([Seen {
            sets: [given, given, given, bounding, given],
            users: "1000 1000 1000 1000 / 1000 1000 1000 1000".into(),
            no_new_privs: "1".into(),
            elsewhere: Vec::new(),
        }])
    };
    let dumping = watched(&container, || container.checkpoint(PLACE))?;
    ensure!(dumping == wanted(DUMPS, DUMPS), "while it saves: {dumping:#x?}");
    let restoring = watched(&container, || container.restore(PLACE))?;
    ensure!(restoring == wanted(RESTORES, bounding), "while it restores: {restoring:#x?}");
    counts_on(&container)?;
    container.remove()?;
    host.cmd(["rm", "-rf", PLACE]).ok()?;
    nothing_is_left(&host)
}

/// What a plain application is made of. `check` sees whether it is still so.
const PLAIN: &str = "
import select, signal, socket, threading
log = open('/tmp/log', 'a+'); log.write('x' * 100); log.flush()
ghost = open('/tmp/ghost', 'w+'); os.unlink('/tmp/ghost'); ghost.write('g' * 100); ghost.flush()
read, write = os.pipe()
pair = socket.socketpair()
server = socket.socket(); server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); server.bind(('127.0.0.1', 7777)); server.listen()
client = socket.create_connection(('127.0.0.1', 7777)); accepted = server.accept()[0]
poll = select.epoll(); poll.register(read, select.EPOLLIN)
memory = os.memfd_create('m'); os.write(memory, b'm' * 10000)
heap = os.urandom(1 << 20); sum = hash(heap)
child = os.fork()
if child == 0:
    while True: time.sleep(0.05)
beats = 0
def beat():
    global beats
    while True: beats += 1; time.sleep(0.01)
threading.Thread(target=beat, daemon=True).start()
def check(*_):
    wrong = []
    ghost.seek(0)
    if ghost.read() != 'g' * 100: wrong.append('a deleted file')
    if os.fstat(log.fileno()).st_size != 100: wrong.append('a file')
    os.write(write, b'p')
    if not poll.poll(1) or os.read(read, 1) != b'p': wrong.append('a pipe')
    pair[0].send(b's')
    if pair[1].recv(1) != b's': wrong.append('a pair of sockets')
    if os.pread(memory, 9, 9991) != b'm' * 9: wrong.append('a memfd')
    if hash(heap) != sum: wrong.append('memory')
    try: os.kill(child, 0)
    except OSError: wrong.append('a child')
    before = beats; time.sleep(0.2)
    if beats == before: wrong.append('a thread')
    new = socket.create_connection(('127.0.0.1', 7777))
    if os.getpid() != 1001: wrong.append('its number')
    print('checked', wrong, flush=True)
signal.signal(signal.SIGUSR1, check)
";

fn lives_on(ctx: &Ctx) -> Result<()> {
    let host = host(ctx)?;
    let _settings = Settings::write(&host, INSIDE)?;
    let container = start(&host, PLAIN, USER)?;
    for round in 1..=2 {
        // Left running, saved again and restored: both ways from a checkpoint.
        container.operate("checkpoint", &["--leave-running", "--image-path", "/srv/inside-running"])?;
        counts_on(&container)?;
        host.cmd(["rm", "-rf", "/srv/inside-running", PLACE]).ok()?;
        container.checkpoint(PLACE)?;
        let owners = host.sh(&format!("find {PLACE} -printf '%U:%G %m\\n' | sort -u")).ok()?;
        ensure!(owners.trim() == "0:0 600\n0:0 700", "the checkpoint is whose? {owners}");
        container.restore(PLACE)?;
        host.cmd(["ctr", "tasks", "kill", "-s", "SIGUSR1", container.id()]).ok()?;
        let said = || String::from_utf8_lossy(&container.output().unwrap_or_default()).into_owned();
        wait_until(LIMIT, || said().matches("checked").count() >= round).context("it does not answer")?;
        ensure!(said().matches("checked []").count() == round, "it has lost: {}", said());
        counts_on(&container)?;
    }
    container.remove()?;
    host.cmd(["rm", "-rf", PLACE]).ok()?;
    nothing_is_left(&host)
}

/// The second table of `docs/capabilities.md`.
fn taken_away(ctx: &Ctx) -> Result<()> {
    let host = host(ctx)?;
    let mine: Vec<_> = lines()?.into_iter().filter(|line| line.operation.ends_with(" inside")).collect();
    ensure!(!mine.is_empty(), "the table has no line for it");
    for line in mine {
        let container = start(&host, "", if line.application.contains("root") { &[] } else { USER })?;
        let before = container.status()?;
        let less = format!("{INSIDE}withhold = [\"{}\"]\n", line.capability);
        let (verb, options): (_, &[&str]) = if line.operation.starts_with("dump") {
            ("checkpoint", &["--standby", "--image-path", PLACE])
        } else {
            let _settings = Settings::write(&host, INSIDE)?;
            container.checkpoint(PLACE)?;
            ("restore", &["--image-path", PLACE])
        };
        let settings = Settings::write(&host, &less)?;
        let output = container.operation(verb, options).output()?;
        drop(settings);
        let text = output.out() + &output.err();
        ensure!(!output.status.success(), "{line:?}: it goes well without");
        ensure!(text.contains(line.words), "{line:?}: {text}");
        if verb == "restore" {
            container.require("standby")?;
            let _settings = Settings::write(&host, INSIDE)?;
            container.restore(PLACE)?;
        } else {
            let after = container.require("running")?;
            ensure!((after.pid, after.runs) == (before.pid, before.runs), "{line:?}: it is another one");
        }
        counts_on(&container)?;
        container.remove()?;
        host.cmd(["rm", "-rf", PLACE]).ok()?;
    }
    host.sh("rm -rf /var/log/fastmig").ok()?;
    nothing_is_left(&host)
}
