//! A peer or a store that cannot be reached, or that is reached and never answers.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Result};

use super::phases::{Operation, Phase};
use super::seen::Fate;
use super::subject::Subject;
use crate::framework::Host;
use crate::suites::migration::faults::{ACCEPT, DROP};

pub(super) const PEER: &str = "the peer cannot be reached, or hangs";
pub(super) const STORE: &str = "the store cannot be reached, or hangs";

/// What hangs must have been given up by then.
const LIMIT: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy)]
enum Trouble {
    /// Nobody listens.
    Closed,
    /// Packets are lost.
    Silent,
    /// Its process stands still.
    Stopped,
}

pub(super) fn peer(subject: &mut Subject, phase: Phase, _number: u32) -> Result<()> {
    if phase != Phase::Migrating {
        return Ok(());
    }
    for trouble in [Trouble::Closed, Trouble::Silent, Trouble::Stopped] {
        subject.ready(phase)?;
        let far = subject.destination().host.clone();
        trouble.begin(&far)?;
        let begun = Instant::now();
        let operation = subject.performed(phase);
        let took = begun.elapsed();
        trouble.end(&far)?;
        let Operation::Failed(said) = operation? else { bail!("{trouble:?}: it has moved") };
        println!("        {trouble:?} after {:.1} s: {}", took.as_secs_f32(), said.trim());
        ensure!(took < LIMIT, "{trouble:?}: it took {took:?}");
        let fate = subject.settled()?;
        ensure!(fate == Fate::RunsOn, "{trouble:?}: {fate:?}");
        subject.note(fate, "given up within the limit of the connection");
    }
    Ok(())
}

impl Trouble {
    fn begin(self, host: &Host) -> Result<()> {
        match self {
            Self::Closed => host.stop_fastmigd(),
            Self::Silent => host.sh(DROP).ok().map(drop),
            Self::Stopped => signal(host, "STOP"),
        }
    }

    fn end(self, host: &Host) -> Result<()> {
        match self {
            Self::Closed => host.start_fastmigd(),
            Self::Silent => host.sh(ACCEPT).ok().map(drop),
            Self::Stopped => signal(host, "CONT"),
        }
    }
}

fn signal(host: &Host, signal: &str) -> Result<()> {
    let pid = host.fastmigd_pid()?.to_string();
    host.cmd(["kill", &format!("-{signal}"), &pid]).ok().map(drop)
}

/// A port where nobody listens.
const CLOSED: u16 = 9;

const SILENCE: &str = "nft -f - <<'EOF'
table inet store {
  chain out { type filter hook output priority 0; tcp dport 9 drop; }
}
EOF";
const SOUND: &str = "nft delete table inet store";

pub(super) fn store(subject: &mut Subject, phase: Phase, _number: u32) -> Result<()> {
    let options = match phase {
        Phase::Checkpointing => "--leave-running --files --to s3://bucket/table/",
        Phase::Restoring => "--from s3://bucket/table/",
        Phase::Normal | Phase::Migrating => return Ok(()),
    };
    let verb = if phase == Phase::Restoring { "restore" } else { "checkpoint" };
    let host = subject.source().host.clone();
    let settings = format!("[store]\ntimeout = 3\ns3_endpoint = \"http://127.0.0.1:{CLOSED}\"\n");
    for hangs in [false, true] {
        subject.ready(phase)?;
        host.write_file("/etc/fastmig/config.toml", settings.clone())?;
        if hangs {
            host.sh(SILENCE).ok()?;
        }
        let script = format!(
            "AWS_ACCESS_KEY_ID=x AWS_SECRET_ACCESS_KEY=y fastmig --json {verb} {} {options}",
            subject.source().id()
        );
        let begun = Instant::now();
        let said = host.sh(&script).timeout(2 * LIMIT).output();
        let took = begun.elapsed();
        if hangs {
            host.sh(SOUND).ok()?;
        }
        host.cmd(["rm", "/etc/fastmig/config.toml"]).ok()?;
        let Operation::Failed(said) = Operation::of(&said?) else {
            bail!("nobody was there, and it succeeded")
        };
        println!("        hangs: {hangs}, after {:.1} s: {}", took.as_secs_f32(), said.trim());
        ensure!(took < LIMIT, "it took {took:?}");
        let fate = subject.settled()?;
        let expected = if phase == Phase::Restoring { Fate::Standby } else { Fate::RunsOn };
        ensure!(fate == expected, "{fate:?}");
        subject.note(fate, "given up within `store.timeout`");
        subject.recover()?;
    }
    Ok(())
}
