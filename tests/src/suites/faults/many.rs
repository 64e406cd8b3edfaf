//! A thousand restarts in place leave nothing behind, and lose no line.

use std::sync::Arc;

use anyhow::{ensure, Context, Result};

use super::stage::{write_policy, SHIM, WRAPPER};
use crate::framework::process::wait_until;
use crate::framework::{Case, Ctx, Generation, Host};
use crate::suites::clients::client::{Client, Setup, CTR, DOCKER};
use crate::suites::clients::container::Container;
use crate::suites::clients::stage::host;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "a thousand restarts in place: ctr, shim",
        run: |ctx| many(ctx, &CTR, SHIM, "f-many-s").into(),
    },
    Case {
        name: "a thousand restarts in place: docker, wrapper",
        run: |ctx| many(ctx, &DOCKER, WRAPPER, "f-many-w").into(),
    },
];

const RESTARTS: u64 = 1000;
const LIMIT: std::time::Duration = std::time::Duration::from_secs(300);

const POLICY: &str = "version = 1\n[backoff]\nfirst = \"0s\"\n[[rule]]\ncode = 3\naction = \"scratch\"\n";

/// A fast life with two lines in it; the last one lives on.
const APPLICATION: &str = r#"
n=$(cat /tmp/n 2>/dev/null || echo 0); n=$((n + 1)); echo $n > /tmp/n
echo "begin $n"; echo "end $n" >&2
[ $n -le 1000 ] && exit 3
exec sleep 1000
"#;

/// What could grow: descriptors and threads of PID 1, its keeper and its shim, mounts, cgroups, files, processes.
const COUNT: &str = r#"
shim=$(pgrep -f -- "-id $2" | head -1); [ -n "$shim" ] || shim=$(awk '/^PPid/ { print $2 }' "/proc/$1/status")
for pid in $1 $3 $shim; do
    ls "/proc/$pid/fd" | wc -l
    ls "/proc/$pid/task" | wc -l
done
wc -l < /proc/mounts
find /sys/fs/cgroup -type d | wc -l
find /run/fastmig -not -name '*.new' | wc -l
ls -d /proc/[0-9]* | wc -l
"#;

struct Counts(Vec<i64>);

fn count(host: &Host, container: &Container) -> Result<Counts> {
    let status = container.fastmig("status", &[])?;
    let [pid, keeper] = [&status["pid"], &status["policy"]["keeper"]].map(|number| number.to_string());
    let id = status["id"].as_str().context("no id")?.to_owned();
    let said = host.cmd(["sh", "-ec", COUNT, "sh", &pid, &id, &keeper]).ok()?;
    let numbers: Result<Vec<i64>, _> = said.split_whitespace().map(str::parse).collect();
    Ok(Counts(numbers?))
}

fn many(ctx: &Ctx, client: &'static dyn Client, runtime: &str, name: &str) -> Result<()> {
    let host = host(ctx, Generation::Forky)?;
    write_policy(&host, "many", POLICY)?;
    let mut setup = Setup::of("busybox", name, runtime);
    setup.annotations.push(("fastmig.dev/policy".into(), "many".into()));
    setup.command =
        ["sh", "-c", "while [ ! -e /tmp/go ]; do sleep 0.05; done; exec sh /tmp/a"].map(String::from).into();
    setup.command[2] = format!(
        "if [ ! -e /tmp/go ]; then while [ ! -e /tmp/go ]; do sleep 0.05; done; exit 3; fi{APPLICATION}"
    );
    let container = Container::run(&host, client, &setup)?;
    let before = count(&host, &container)?;
    container.exec(&["touch", "/tmp/go"]).ok()?;
    let last = format!("end {}\n", RESTARTS + 1);
    wait_until(LIMIT, || container.logs().is_ok_and(|log| log.contains(&last)))
        .with_context(|| format!("too slow: {}", container.fastmig("status", &[]).unwrap_or_default()))?;
    every_line_in_order(&container)?;
    let status = container.fastmig("status", &[])?;
    ensure!(status["policy"]["restarts"] == RESTARTS + 1, "{status}");
    nothing_grows(&host, &container, &before)?;
    container.remove()
}

/// Each stream on its own: clients that keep two streams apart may tell them one after the other.
fn every_line_in_order(container: &Container) -> Result<()> {
    let log = container.logs()?;
    for word in ["begin", "end"] {
        let prefix = format!("{word} ");
        let told: Vec<u64> =
            log.lines().filter_map(|line| line.strip_prefix(&prefix)?.trim().parse().ok()).collect();
        ensure!(told.iter().copied().eq(1..=RESTARTS + 1), "{word}: a line is lost or out of order");
    }
    Ok(())
}

/// Once what is on its way out has gone; two more are another's.
fn nothing_grows(host: &Arc<Host>, container: &Container, before: &Counts) -> Result<()> {
    const OTHERS: i64 = 3;
    let mut after = Counts(Vec::new());
    let settled = wait_until(std::time::Duration::from_secs(20), || {
        after = count(host, container).unwrap_or(Counts(vec![i64::MAX]));
        after.0.iter().zip(&before.0).all(|(after, before)| *after <= before + OTHERS)
    });
    ensure!(settled.is_ok(), "something grew: {:?}, then {:?}", before.0, after.0);
    Ok(())
}
