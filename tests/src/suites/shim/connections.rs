//! What becomes of an established TCP connection: it lives on over a checkpoint and a restore, or is closed, as asked.

use std::time::Duration;

use anyhow::{ensure, Context, Result};

use super::stage::{host, nothing_is_left, on_both, Task, FASTMIG, SOON};
use crate::apps::conversation::{self, CLIENT, SERVER};
use crate::framework::{Background, Case, Ctx, Generation, Host};

pub(super) const CASES: &[Case] = on_both![
    "an established connection lives on when it is kept" => kept,
    "an established connection is closed otherwise" => closed,
    "a lock on connections goes with its container" => unlocked_by_removal,
];

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
    pair.restore(&["--tcp-established"])?;
    conversation::require_alive(&mut pair.client)?;
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
