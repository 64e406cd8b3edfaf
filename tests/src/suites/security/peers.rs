//! Whoever reaches the daemon's port without a certificate of its cluster, or takes its time, or does not end.

use std::time::Duration;

use anyhow::{ensure, Result};

use super::outside::{self, Outside};
use super::stage::confined;
use crate::apps::container::Container;
use crate::framework::{Case, Ctx};
use crate::suites::migration::stage::{nothing_is_left, pair_of_daemons, with_images};

pub(super) const CASES: &[Case] =
    &[Case { name: "peers: strangers, endless and slow ones harm nobody", run: |ctx| strangers(ctx).into() }];

/// Each ends by itself or is hung up on; `$1` is the daemon's host, `$2` its port. What the daemon answers is shown.
const ATTACKS: &[(&str, &str)] = &[
    ("no TLS at all", "printf 'GET /v1/containers HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n' | nc_ $1 $2"),
    ("no certificate", "curl -sk --max-time 5 https://$1:$2/v1/containers"),
    (
        "a certificate of one's own",
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout /tmp/k -out /tmp/c -subj /CN=a \
         -addext 'subjectAltName=DNS:a' 2>/dev/null; curl -sk --max-time 5 --cert /tmp/c --key /tmp/k https://$1:$2/v1/containers",
    ),
    ("bytes without end", "head -c 50000000 /dev/zero | nc_ $1 $2 | head -c 200"),
    ("a hello of sixteen mebibytes", "printf '\\026\\003\\001\\377\\377' | nc_ $1 $2 | head -c 200"),
    ("a migration to somebody", "printf 'FMig\\0\\0\\0\\0' | nc_ $1 $2 | head -c 200"),
    (
        "two hundred who say nothing",
        "for i in $(seq 200); do (exec 3<>/dev/tcp/$1/$2; sleep 4) 2>/dev/null & done; sleep 1; wait",
    ),
];

/// Sends what it gets, and shows what comes back within five seconds.
const HELPER: &str =
    "nc_() { exec 3<>/dev/tcp/$1/$2 || return; cat >&3 2>/dev/null; timeout 5 cat <&3; exec 3>&-; }\n";

fn strangers(ctx: &Ctx) -> Result<()> {
    let (a, b) = pair_of_daemons(ctx)?;
    with_images(&b, &["busybox", "python"])?;
    outside::prepare(&b)?;
    let container = Container::run(&b, "waiting", &confined(&["sleep", "100000"]))?;
    let status = container.require("running")?;
    let before = Outside::of(&b, status.pid)?;
    let port = crate::framework::daemon::PORT.to_string();
    for (what, attack) in ATTACKS {
        let script = format!("{HELPER}{attack}");
        let command = ["bash", "-c", &script, "bash", &b.address(), &port];
        let answer = a.cmd(command).timeout(Duration::from_secs(60)).output()?;
        let told = String::from_utf8_lossy(&answer.stdout).into_owned();
        ensure!(!told.contains("waiting") && !told.contains("\"id\""), "{what}: told {told:?}");
        b.fastmigd_get("/healthz").map_err(|e| e.context(format!("after {what}")))?;
    }
    // Who belongs to the cluster is still heard.
    let peers = a.cmd(["fastmigd", "peers"]).ok()?;
    ensure!(peers.contains(b.name()), "{peers}");
    let after = container.require("running")?;
    ensure!((after.pid, after.runs) == (status.pid, status.runs), "the container: {after:?}");
    Outside::of(&b, status.pid)?.is_as(&before)?;
    container.remove()?;
    nothing_is_left(&b)
}
