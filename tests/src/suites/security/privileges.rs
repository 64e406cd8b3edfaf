//! An application has what runc would have given it, before it is saved and after it is restored: capabilities, users, filters,
//! and what it may write below `/proc/sys`.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use serde_json::Value;

use super::stage::{confined, host};
use crate::apps::container::{Container, Setup};
use crate::framework::filters::seccomp_filters;
use crate::framework::process::wait_until;
use crate::framework::{Case, Ctx, Host};
use crate::suites::migration::stage::nothing_is_left;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "privileges: root with docker's default capabilities is as under runc",
        run: |ctx| same(ctx, &["--seccomp"]).into(),
    },
    Case {
        name: "privileges: a user who may gain none is as under runc",
        run: |ctx| same(ctx, &["--seccomp", "--user", "1000:1000"]).into(),
    },
    Case {
        name: "privileges: a user who may gain some is as under runc",
        run: |ctx| same(ctx, &["--seccomp", "--allow-new-privs", "--user", "1000:1000"]).into(),
    },
    Case {
        name: "privileges: capabilities more and less are as under runc",
        run: |ctx| {
            let more = ["--seccomp", "--cap-add", "CAP_SYS_NICE", "--cap-drop", "CAP_CHOWN"];
            same(ctx, &more).into()
        },
    },
    Case { name: "privileges: no filter at all is as under runc", run: |ctx| same(ctx, NO_FILTER).into() },
    Case { name: "privileges: the seccomp filter stays what it is", run: |ctx| filters(ctx).into() },
    Case {
        name: "privileges: the same files below /proc/sys can be written as under runc",
        run: |ctx| sysctls(ctx).into(),
    },
];

/// FastMig answers io_uring with a filter of its own where there is none, unless told otherwise.
const NO_FILTER: &[&str] = &["--annotation", "fastmig.dev/io-uring=allow"];

/// The stock runtime, beside which FastMig is put.
const RUNC: &str = "io.containerd.runc.v2";

const LIMIT: Duration = Duration::from_secs(60);

/// Tells what it is and what it may open for writing, at once and whenever it gets SIGUSR1; then also the number of a child.
const TELL: &str = r#"
import errno, json, os, signal, sys, time
WORDS = ("Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Seccomp_filters")
def tell(*_):
    status = dict(line.rstrip("\n").split(":", 1) for line in open("/proc/self/status"))
    said = {word: status.get(word, "").split() for word in WORDS}
    said["sysctls"] = files = {}
    for place, _, names in os.walk("/proc/sys"):
        for name in names:
            path = os.path.join(place, name)
            try:
                os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
                files[path] = "writable"
            except OSError as e:
                files[path] = errno.errorcode[e.errno]
    child = os.fork()
    if child == 0: os._exit(0)
    os.waitpid(child, 0)
    said["child"] = child
    print(json.dumps(said), flush=True)
signal.signal(signal.SIGUSR1, tell)
tell()
while True: time.sleep(0.02)
"#;

/// What an application tells of itself.
struct Told(Value);

impl Told {
    /// The `number`th time.
    fn by(container: &Container, number: usize) -> Result<Self> {
        let lines = || -> Vec<String> {
            let output = container.output().unwrap_or_default();
            String::from_utf8_lossy(&output).lines().map(String::from).collect()
        };
        wait_until(LIMIT, || lines().len() >= number).context("it does not tell")?;
        let lines = lines();
        let line = &lines[number - 1];
        Ok(Self(serde_json::from_str(line).with_context(|| format!("it tells {line:?}"))?))
    }

    /// Without the number of its child, which differs.
    fn is_as(&self, other: &Self) -> Result<()> {
        let (Some(found), Some(wanted)) = (self.0.as_object(), other.0.as_object()) else {
            anyhow::bail!("nothing was told");
        };
        for (word, value) in found.iter().filter(|(word, _)| *word != "child" && *word != "sysctls") {
            ensure!(Some(value) == wanted.get(word), "{word}: {value}, not {:?}", wanted.get(word));
        }
        let (found, wanted) = (self.sysctls(), other.sysctls());
        ensure!(found.len() > 100, "only {} files below /proc/sys", found.len());
        let differ: Vec<_> = found.iter().filter(|entry| !wanted.contains(entry)).collect();
        ensure!(found.len() == wanted.len() && differ.is_empty(), "below /proc/sys: {differ:?}");
        Ok(())
    }

    fn sysctls(&self) -> Vec<(String, String)> {
        let files = self.0["sysctls"].as_object().into_iter().flatten();
        files.map(|(path, how)| (path.clone(), how.as_str().unwrap_or_default().to_owned())).collect()
    }

    fn child(&self) -> i64 {
        self.0["child"].as_i64().unwrap_or_default()
    }
}

fn setup(options: &[&str]) -> Setup {
    Setup { options: options.iter().map(|&o| o.to_owned()).collect(), ..confined(&["python3", "-c", TELL]) }
}

/// What an application says of itself under the stock runtime.
fn under_runc(host: &Arc<Host>, options: &[&str]) -> Result<Told> {
    let container = Container::adopt(host, "stock");
    let log = format!("file://{}", container.log());
    let mut arguments = setup(options).arguments("stock");
    arguments[1] = RUNC.to_owned();
    host.cmd(["rm", "-f", &container.log()]).ok()?;
    host.cmd(["ctr", "run", "-d", "--log-uri", &log].map(String::from).into_iter().chain(arguments)).ok()?;
    let told = Told::by(&container, 1)?;
    container.remove()?;
    Ok(told)
}

/// As it is at first, and once it was saved and restored.
fn under_fastmig(host: &Arc<Host>, options: &[&str]) -> Result<(Told, Told)> {
    let container = Container::run(host, "ours", &setup(options))?;
    let first = Told::by(&container, 1)?;
    container.checkpoint("/srv/privileges")?;
    container.restore("/srv/privileges")?;
    host.cmd(["ctr", "tasks", "kill", "-s", "SIGUSR1", container.id()]).ok()?;
    let again = Told::by(&container, 2)?;
    container.remove()?;
    host.cmd(["rm", "-rf", "/srv/privileges"]).ok()?;
    Ok((first, again))
}

pub(super) fn same(ctx: &Ctx, options: &[&str]) -> Result<()> {
    let host = host(ctx)?;
    let stock = under_runc(&host, options)?;
    let (first, again) = under_fastmig(&host, options)?;
    first.is_as(&stock).context("before it was saved")?;
    again.is_as(&stock).context("after it was restored")?;
    nothing_is_left(&host)
}

/// The last pid that is given is FastMig's to set, and never the application's.
fn sysctls(ctx: &Ctx) -> Result<()> {
    let host = host(ctx)?;
    let options = &["--seccomp"];
    let stock = under_runc(&host, options)?;
    let (first, again) = under_fastmig(&host, options)?;
    for (told, when) in [(&first, "before"), (&again, "after")] {
        told.is_as(&stock).context(when)?;
        let last = told.sysctls().into_iter().find(|(path, _)| path == "/proc/sys/kernel/ns_last_pid");
        let (_, how) = last.context("there is no ns_last_pid")?;
        ensure!(how != "writable", "{when}: the application may set the last pid");
        let writable = told.sysctls().iter().filter(|(_, how)| how == "writable").count();
        println!(
            "    {when}: {writable} of {} files below /proc/sys can be opened for writing",
            told.sysctls().len()
        );
    }
    // It was set: the next process has the number after the last one that the application used.
    ensure!(
        again.child() == first.child() + 1 || again.child() == 1002,
        "{} after {}",
        again.child(),
        first.child()
    );
    nothing_is_left(&host)
}

fn filters(ctx: &Ctx) -> Result<()> {
    let host = host(ctx)?;
    let container = Container::run(&host, "filtered", &setup(&["--seccomp"]))?;
    Told::by(&container, 1)?;
    let first = container.status()?.pid;
    let own = seccomp_filters(&host, first, 1)?;
    ensure!(own.len() == 1 && own[0].len() > 100, "the init has {} filters", own.len());
    let before = seccomp_filters(&host, first, 1001)?;
    ensure!(before == own, "the application runs under other filters than the init");
    container.checkpoint("/srv/filters")?;
    container.restore("/srv/filters")?;
    let after = seccomp_filters(&host, first, 1001)?;
    ensure!(after == before, "the filter is another one after the restore");
    container.remove()?;
    host.cmd(["rm", "-rf", "/srv/filters"]).ok()?;
    nothing_is_left(&host)
}
