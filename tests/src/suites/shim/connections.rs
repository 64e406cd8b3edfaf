//! What becomes of an established TCP connection: it lives on over a checkpoint and a restore, or is closed, as asked.

use std::time::Duration;

use anyhow::{ensure, Context, Result};

use super::stage::{host, nothing_is_left, on_both, Task, FASTMIG, SOON};
use crate::framework::{Background, Case, Ctx, Generation, Host};

pub(super) const CASES: &[Case] = on_both![
    "an established connection lives on when it is kept" => kept,
    "an established connection is closed otherwise" => closed,
    "a lock on connections goes with its container" => unlocked_by_removal,
];

/// Counts the lines of each connection.
const SERVER: &str = "
import socket, threading
def serve(c):
    for n, _ in enumerate(c.makefile('rb'), 1):
        c.sendall(b'%d\\n' % n)
s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(('0.0.0.0', 7777)); s.listen()
while True:
    threading.Thread(target=serve, args=(s.accept()[0],), daemon=True).start()
";

/// Speaks on one connection as long as it lives, and says what it heard.
const CLIENT: &str = "
import socket, sys, time
s = socket.create_connection((sys.argv[1], 7777), timeout=30)
f = s.makefile('rb')
try:
    while True:
        s.sendall(b'x\\n')
        line = f.readline()
        if not line: break
        print('heard', int(line), flush=True)
        time.sleep(0.02)
except OSError as e:
    print(e, flush=True)
print('closed', flush=True)
";

struct Pair<'a> {
    task: Task<'a>,
    client: Background,
}

impl<'a> Pair<'a> {
    fn up(server: &'a Host, other: &Host) -> Result<Self> {
        let argv = ["python3", "-c", SERVER];
        let task = Task::start_of("python", server, FASTMIG, &["--net-host"], "tcp", &argv)?;
        server.sh("for i in $(seq 100); do ss -ltn | grep -q :7777 && exit; sleep 0.1; done; exit 1").ok()?;
        let client =
            other.cmd(["python3", "-c", CLIENT, &server.address()]).timeout(Duration::from_secs(120));
        let mut client = client.spawn()?;
        client.wait_for_output("heard 5\n", SOON)?;
        Ok(Self { task, client })
    }

    fn heard(&self) -> Vec<u64> {
        let text = String::from_utf8_lossy(&self.client.stdout()).into_owned();
        text.lines().filter_map(|line| line.strip_prefix("heard ")?.parse().ok()).collect()
    }

    fn checkpoint(&self, options: &[&str]) -> Result<()> {
        let options = [&["--image-path", IMAGE, "--standby"], options].concat();
        self.task.fastmig("checkpoint", &options).ok().map(drop)
    }

    fn restore(&self, options: &[&str]) -> Result<()> {
        self.task.fastmig("restore", &[&["--image-path", IMAGE], options].concat()).ok().map(drop)
    }
}

const IMAGE: &str = "/var/lib/fastmig/tcp-image";

fn locks(host: &Host) -> Result<String> {
    let tables = host.cmd(["nft", "list", "tables"]).ok()?;
    Ok(tables.lines().filter(|line| line.contains("CRIU-")).collect())
}

fn clean(host: &Host) -> Result<()> {
    host.sh(&format!("rm -rf {IMAGE}")).ok()?;
    let left = locks(host)?;
    ensure!(left.is_empty(), "a lock is left: {left}");
    nothing_is_left(host)
}

fn other(generation: Generation) -> Generation {
    match generation {
        Generation::Trixie => Generation::Forky,
        Generation::Forky => Generation::Trixie,
    }
}

fn kept(ctx: &Ctx, generation: Generation) -> Result<()> {
    let (server, client) = (host(ctx, generation)?, host(ctx, other(generation))?);
    let mut pair = Pair::up(&server, &client)?;
    pair.checkpoint(&["--tcp-established"])?;
    ensure!(!locks(&server)?.is_empty(), "nothing holds the connection while the application is away");
    let before = *pair.heard().last().context("the client heard nothing")?;
    pair.restore(&["--tcp-established"])?;
    pair.client.wait_for_output(&format!("heard {}\n", before + 20), SOON)?;
    let heard = pair.heard();
    ensure!(heard.iter().zip(1..).all(|(&n, i)| n == i), "an answer is lost or doubled: {heard:?}");
    ensure!(locks(&server)?.is_empty(), "the connection is still locked");
    drop(pair);
    clean(&server)
}

fn closed(ctx: &Ctx, generation: Generation) -> Result<()> {
    let (server, client) = (host(ctx, generation)?, host(ctx, other(generation))?);
    let mut pair = Pair::up(&server, &client)?;
    pair.checkpoint(&[])?;
    pair.client.wait_for_output("closed", SOON)?;
    pair.restore(&[])?;
    let mut again = client.cmd(["python3", "-c", CLIENT, &server.address()]).spawn()?;
    again.wait_for_output("heard 3\n", SOON).context("the restored server takes no new connection")?;
    drop((again, pair));
    clean(&server)
}

fn unlocked_by_removal(ctx: &Ctx, generation: Generation) -> Result<()> {
    let (server, client) = (host(ctx, generation)?, host(ctx, other(generation))?);
    let pair = Pair::up(&server, &client)?;
    pair.checkpoint(&["--tcp-established"])?;
    ensure!(!locks(&server)?.is_empty(), "nothing holds the connection");
    pair.task.remove()?;
    clean(&server)
}
