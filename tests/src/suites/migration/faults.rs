//! Whatever breaks, whenever: exactly one copy lives, no acknowledged write is lost, and the next try succeeds.
//!
//! A daemon that is started with `FASTMIGD_STOP_AT=ROLE:POINT` stops itself (SIGSTOP) when it comes there, so that the fault
//! strikes at that very moment.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};

use super::stage::{nothing_is_left, pair_of_daemons, with_images};
use crate::apps::container::{Container, Setup};
use crate::apps::load::Load;
use crate::apps::migrating::{begin, command, logs, migrate};
use crate::apps::{self, peer::Peer, App};
use crate::framework::process::wait_until;
use crate::framework::{Case, Ctx, Host};

pub(super) const CASES: &[Case] = &[
    Case { name: "the source's daemon is killed at every phase", run: |ctx| table(ctx, SOURCE_DIES).into() },
    Case {
        name: "the destination's daemon is killed at every phase",
        run: |ctx| table(ctx, DESTINATION_DIES).into(),
    },
    Case { name: "CRIU is killed on either side", run: |ctx| table(ctx, CRIU_DIES).into() },
    Case { name: "the connection is cut at every phase", run: |ctx| table(ctx, CUT).into() },
    Case { name: "the connection falls silent", run: |ctx| table(ctx, SILENT).into() },
    Case { name: "the destination's shim is killed", run: |ctx| table(ctx, SHIM_DIES).into() },
    Case { name: "the destination runs out of memory", run: |ctx| table(ctx, NO_MEMORY).into() },
    Case { name: "a disk is full", run: |ctx| table(ctx, NO_SPACE).into() },
];

const STOP_LIMIT: Duration = Duration::from_secs(30);
/// The longest limit of a phase, and some more.
const END_LIMIT: Duration = Duration::from_secs(120);
const SETTLED_LIMIT: Duration = Duration::from_secs(60);
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
const ENOUGH: u64 = 50;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Source,
    Destination,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The daemon that has stopped is killed, and started again.
    Daemon,
    /// The CRIU of this side.
    Criu(Side),
    /// Both ends hear of it at once.
    Cut,
    /// Packets are lost from then on.
    Silent,
    /// The shim of the container that waits, which takes the container with it.
    Shim,
    /// The container that waits may hold no more.
    Memory,
    /// Nothing can be written on this side, from the beginning.
    Space,
}

/// Where the application must be afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lives {
    Source,
    Destination,
    /// The moment decides.
    Either,
}

type Cell = (Side, &'static str, Fault, Lives);

const SOURCE_DIES: &[Cell] = &[
    (Side::Source, "connect", Fault::Daemon, Lives::Source),
    (Side::Source, "prepare", Fault::Daemon, Lives::Source),
    (Side::Source, "files", Fault::Daemon, Lives::Source),
    (Side::Source, "ready", Fault::Daemon, Lives::Source),
    (Side::Source, "freeze", Fault::Daemon, Lives::Source),
    (Side::Source, "freeze-done", Fault::Daemon, Lives::Source),
    (Side::Source, "dump", Fault::Daemon, Lives::Source),
    (Side::Source, "dump-done", Fault::Daemon, Lives::Source),
    (Side::Source, "restore", Fault::Daemon, Lives::Source),
    (Side::Source, "restore-done", Fault::Daemon, Lives::Source),
    (Side::Source, "fenced", Fault::Daemon, Lives::Source),
    (Side::Source, "deciding", Fault::Daemon, Lives::Source),
    (Side::Source, "commit-sent", Fault::Daemon, Lives::Destination),
    (Side::Source, "commit-done", Fault::Daemon, Lives::Destination),
    (Side::Source, "end", Fault::Daemon, Lives::Destination),
    (Side::Source, "finish", Fault::Daemon, Lives::Destination),
];

const DESTINATION_DIES: &[Cell] = &[
    (Side::Destination, "connect", Fault::Daemon, Lives::Source),
    (Side::Destination, "prepare", Fault::Daemon, Lives::Source),
    (Side::Destination, "files", Fault::Daemon, Lives::Source),
    (Side::Destination, "ready", Fault::Daemon, Lives::Source),
    (Side::Destination, "ready-done", Fault::Daemon, Lives::Source),
    (Side::Destination, "dump", Fault::Daemon, Lives::Source),
    (Side::Destination, "restore", Fault::Daemon, Lives::Source),
    (Side::Destination, "restore-done", Fault::Daemon, Lives::Source),
    (Side::Destination, "commit", Fault::Daemon, Lives::Source),
    (Side::Destination, "committed", Fault::Daemon, Lives::Destination),
    (Side::Destination, "released", Fault::Daemon, Lives::Destination),
    (Side::Destination, "finish", Fault::Daemon, Lives::Destination),
];

const CRIU_DIES: &[Cell] = &[
    (Side::Source, "freeze", Fault::Criu(Side::Source), Lives::Source),
    (Side::Source, "dump", Fault::Criu(Side::Source), Lives::Source),
    (Side::Source, "dump", Fault::Criu(Side::Destination), Lives::Source),
    (Side::Destination, "restore", Fault::Criu(Side::Destination), Lives::Source),
];

const CUT: &[Cell] = &[
    (Side::Source, "prepare", Fault::Cut, Lives::Source),
    (Side::Source, "files", Fault::Cut, Lives::Source),
    (Side::Source, "ready", Fault::Cut, Lives::Source),
    (Side::Source, "freeze-done", Fault::Cut, Lives::Source),
    (Side::Source, "dump-done", Fault::Cut, Lives::Source),
    (Side::Destination, "restore", Fault::Cut, Lives::Source),
    // The source's commit may have come already.
    (Side::Destination, "restore-done", Fault::Cut, Lives::Either),
    (Side::Source, "deciding", Fault::Cut, Lives::Source),
    (Side::Destination, "committed", Fault::Cut, Lives::Destination),
    (Side::Source, "commit-done", Fault::Cut, Lives::Destination),
];

const SILENT: &[Cell] = &[
    (Side::Source, "ready", Fault::Silent, Lives::Source),
    (Side::Source, "dump-done", Fault::Silent, Lives::Source),
    (Side::Source, "deciding", Fault::Silent, Lives::Either),
    (Side::Destination, "committed", Fault::Silent, Lives::Destination),
];

const SHIM_DIES: &[Cell] = &[
    (Side::Destination, "ready-done", Fault::Shim, Lives::Source),
    (Side::Destination, "restore", Fault::Shim, Lives::Source),
];

const NO_MEMORY: &[Cell] = &[(Side::Destination, "dump", Fault::Memory, Lives::Source)];

const NO_SPACE: &[Cell] =
    &[(Side::Source, "", Fault::Space, Lives::Source), (Side::Destination, "", Fault::Space, Lives::Source)];

fn table(ctx: &Ctx, cells: &[Cell]) -> Result<()> {
    let (a, b) = pair_of_daemons(ctx)?;
    for host in [&a, &b] {
        with_images(host, &["redis"])?;
    }
    let mut game = Game::begin(&a, &b)?;
    for cell in cells {
        let begun = std::time::Instant::now();
        let outcome = game.play(*cell);
        let (side, point, fault, _) = cell;
        println!("    {side:?} at {point}, {fault:?}: {:.1} s", begun.elapsed().as_secs_f32());
        outcome.with_context(|| format!("{cell:?}\n{}", logs(&game.ends[0], &game.ends[1])))?;
    }
    game.end()
}

/// One application and the two containers that it can be in.
struct Game {
    app: Box<dyn App>,
    ends: [Container; 2],
    peers: [Peer; 2],
    /// Where it is.
    at: usize,
}

impl Game {
    fn begin(a: &Arc<Host>, b: &Arc<Host>) -> Result<Self> {
        let mut app = apps::named("redis").context("there is no redis")?;
        let ends = [
            Container::run(a, "fault-1", &Setup::of("redis"))?,
            Container::run(b, "fault-2", &Setup::of("redis").in_standby())?,
        ];
        let peers = [Peer::new(a, app.port(), a)?, Peer::new(b, app.port(), a)?];
        app.fill(&peers[0])?;
        Ok(Self { app, ends, peers, at: 0 })
    }

    fn end(self) -> Result<()> {
        let hosts = self.ends.each_ref().map(|end| Arc::clone(&end.host));
        for end in self.ends {
            end.remove()?;
        }
        hosts.iter().try_for_each(|host| nothing_is_left(host))
    }

    fn source(&self) -> &Container {
        &self.ends[self.at]
    }

    fn destination(&self) -> &Container {
        &self.ends[1 - self.at]
    }

    fn side(&self, side: Side) -> &Container {
        match side {
            Side::Source => self.source(),
            Side::Destination => self.destination(),
        }
    }

    fn play(&mut self, (side, point, fault, lives): Cell) -> Result<()> {
        let load = Load::start(self.app.clients(), &self.peers);
        load.wait_for_more(self.at, ENOUGH, ANSWER_LIMIT)?;
        match fault {
            Fault::Space => self.refuse_on_full_disk(side)?,
            _ => self.strike(side, point, fault)?,
        }
        let found = self.settled()?;
        let wanted = match lives {
            Lives::Source => self.at,
            Lives::Destination => 1 - self.at,
            Lives::Either => found,
        };
        ensure!(found == wanted, "the application is on host {}", self.ends[found].host.name());
        load.wait_for_more(found, ENOUGH, ANSWER_LIMIT).context("it does not answer")?;
        self.at = found;
        // The next try.
        self.refresh()?;
        migrate(self.source(), self.destination(), &[]).context("the next try")?;
        self.at = 1 - self.at;
        load.wait_for_more(self.at, ENOUGH, ANSWER_LIMIT).context("after the next try")?;
        let traffic = load.stop()?;
        self.app.verify(&self.peers[self.at], &traffic).map(drop)
    }

    /// A migration, and what befalls it.
    fn strike(&self, side: Side, point: &str, fault: Fault) -> Result<()> {
        let stopped = &self.side(side).host;
        let role = if side == Side::Source { "source" } else { "destination" };
        stopped.stop_fastmigd()?;
        stopped.start_fastmigd_with(&[("FASTMIGD_STOP_AT", &format!("{role}:{point}"))])?;
        let migration = begin(self.source(), self.destination())?;
        let pid = stopped.fastmigd_pid()?.to_string();
        wait_until(STOP_LIMIT, || state_of(stopped, &pid) == Some('T')).with_context(|| {
            format!("the migration never came to {role}:{point}; {}", logs(self.source(), self.destination()))
        })?;
        self.inflict(fault)?;
        if fault == Fault::Daemon {
            stopped.kill_fastmigd()?;
        } else {
            stopped.cmd(["kill", "-CONT", &pid]).ok()?;
        }
        if matches!(fault, Fault::Cut | Fault::Daemon) {
            // Both ends have heard of it before anybody comes back.
            std::thread::sleep(Duration::from_secs(2));
        }
        if fault == Fault::Cut {
            self.relieve(fault)?;
        }
        if fault == Fault::Daemon {
            stopped.start_fastmigd()?;
        }
        if fault == Fault::Silent {
            std::thread::sleep(Duration::from_secs(20));
            self.relieve(fault)?;
        }
        migration.wait(END_LIMIT).context("fastmig migrate does not end")?;
        self.relieve(fault)?;
        if fault != Fault::Daemon {
            stopped.stop_fastmigd()?;
            stopped.start_fastmigd()?;
        }
        Ok(())
    }

    /// What cannot be written down is not begun, and whoever asked hears why.
    fn refuse_on_full_disk(&self, side: Side) -> Result<()> {
        let full = &self.side(side).host;
        full.sh(FULL_DISK).ok()?;
        let answer = command(self.source(), self.destination(), &[]).output();
        full.stop_fastmigd()?;
        full.sh(OWN_DISK).ok()?;
        full.start_fastmigd()?;
        let answer = answer?;
        let said = format!("{}{}", answer.out(), answer.err());
        ensure!(!answer.status.success(), "it moved with a full disk");
        ensure!(said.contains("No space left"), "the reason is not told: {said}");
        Ok(())
    }

    fn inflict(&self, fault: Fault) -> Result<()> {
        match fault {
            Fault::Daemon => Ok(()),
            Fault::Criu(side) => self.kill_criu(side),
            Fault::Cut => self.ends.iter().try_for_each(|end| end.host.sh(REJECT).ok().map(drop)),
            Fault::Silent => self.source().host.sh(DROP).ok().map(drop),
            Fault::Shim => self.kill_shim(),
            Fault::Memory => self.limit_memory("tight"),
            Fault::Space => bail!("a disk is full from the beginning"),
        }
    }

    fn relieve(&self, fault: Fault) -> Result<()> {
        match fault {
            Fault::Cut | Fault::Silent => {
                self.ends.iter().try_for_each(|end| end.host.sh(ACCEPT).ok().map(drop))
            }
            Fault::Memory => self.limit_memory("none"),
            _ => Ok(()),
        }
    }

    fn kill_criu(&self, side: Side) -> Result<()> {
        self.side(side).host.kill_criu()
    }

    fn kill_shim(&self) -> Result<()> {
        let end = self.destination();
        let pid = end.status()?.pid.to_string();
        end.host.cmd(["sh", "-ec", KILL_PARENT, "sh", &pid]).ok().map(drop)
    }

    fn limit_memory(&self, limit: &str) -> Result<()> {
        let end = self.destination();
        let pid = end.status()?.pid.to_string();
        end.host.cmd(["sh", "-ec", LIMIT_MEMORY, "sh", &pid, limit]).ok().map(drop)
    }

    /// Which end it is at, once that is clear. Never is it at both.
    fn settled(&self) -> Result<usize> {
        let mut found = None;
        let waited = wait_until(SETTLED_LIMIT, || {
            let states = self.ends.each_ref().map(|end| {
                end.operate("status", &[]).map(|status| {
                    let settled = status["migration"].is_null();
                    (status["application"].as_str().unwrap_or_default().to_owned(), settled)
                })
            });
            let runs = |index: usize| matches!(&states[index], Ok((state, true)) if state == "running");
            let rests = |index: usize| match &states[index] {
                Ok((state, settled)) => *settled && (state == "standby" || state == "ended"),
                // Its container has gone.
                Err(_) => true,
            };
            found = [0, 1].into_iter().find(|&index| runs(index) && rests(1 - index));
            found.is_some()
        });
        match (waited, found) {
            (Ok(()), Some(found)) => Ok(found),
            _ => bail!(
                "it is not clear where the application is: {:?}",
                self.ends.each_ref().map(|end| end.operate("status", &[]).map(|status| status.to_string()))
            ),
        }
    }

    /// A container that a fault has ended is made anew.
    fn refresh(&mut self) -> Result<()> {
        let index = 1 - self.at;
        if self.ends[index].status().is_ok_and(|status| status.application == "standby") {
            return Ok(());
        }
        let host = Arc::clone(&self.ends[index].host);
        let name = format!("fault-{}", index + 1);
        let fresh = || Container::run(&host, &name, &Setup::of("redis").in_standby());
        drop(std::mem::replace(&mut self.ends[index], Container::adopt(&host, "fault-none")));
        self.ends[index] = fresh()?;
        Ok(())
    }
}

/// A process's state, as its host counts it.
pub(in crate::suites) fn state_of(host: &Host, pid: &str) -> Option<char> {
    let stat = String::from_utf8(host.read_file(&format!("/proc/{pid}/stat")).ok()?).ok()?;
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

/// Whatever comes for a daemon or from one is answered with a reset, but for resets. On both hosts, or one of them never hears
/// of it.
pub(in crate::suites) const REJECT: &str = "nft -f - <<'EOF'
table inet faults {
  chain in {
    type filter hook input priority 0
    tcp dport 7443 tcp flags & rst != rst reject with tcp reset
    tcp sport 7443 tcp flags & rst != rst reject with tcp reset
  }
}
EOF";
pub(in crate::suites) const DROP: &str = "nft -f - <<'EOF'
table inet faults {
  chain out { type filter hook output priority 0; tcp dport 7443 drop; tcp sport 7443 drop; }
  chain in { type filter hook input priority 0; tcp dport 7443 drop; tcp sport 7443 drop; }
}
EOF";
pub(in crate::suites) const ACCEPT: &str = "nft delete table inet faults 2>/dev/null || true";

/// The journal lies on a small disk, which is full.
const FULL_DISK: &str = "mount -t tmpfs -o size=64k,mode=700 tmpfs /var/lib/fastmig/journal; \
                         head -c 1048576 /dev/zero >/var/lib/fastmig/journal/.full 2>/dev/null || true";
const OWN_DISK: &str = "umount /var/lib/fastmig/journal";

const KILL_PARENT: &str = "kill -9 $(sed -n 's/^PPid:[[:space:]]*//p' /proc/$1/status)";

/// As much as is used and not only cached, and a little; cgroup v1 and v2.
pub(in crate::suites) const LIMIT_MEMORY: &str = "
path=$(sed -n 's/^[0-9]*:memory://p' /proc/$1/cgroup)
if test -n \"$path\"; then
  dir=/sys/fs/cgroup/memory$path; used=usage_in_bytes; limit=limit_in_bytes; none=-1
else
  dir=/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/$1/cgroup); used=current; limit=max; none=max
fi
case $2 in
  tight)
    files=$(awk '{ v[$1] = $2 } END { t = \"total_cache\" in v ? \"total_\" : \"\"; print v[t \"inactive_file\"] + v[t \"active_file\"] }' $dir/memory.stat)
    echo $(($(cat $dir/memory.$used) - files + 1048576)) >$dir/memory.$limit;;
  none) echo $none >$dir/memory.$limit;;
  *) echo $2 >$dir/memory.$limit;;
esac";
