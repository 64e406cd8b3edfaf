//! Our own programs whose memory is moved (`tests/programs`): how one is run, what it is asked, and one move of it.

use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use serde_json::Value;

use super::container::{Container, Setup};
use super::migrating;
use super::peer::{Connection, Peer};
use crate::framework::image::programs::{NAME, PROGRAM};
use crate::framework::process::wait_until;
use crate::framework::Host;

/// Arguments of `fastmig migrate` for every move of memory in the tests.
pub const MIGRATE: &[&str] = &["--strategy", "pre-copy", "--verify"];

const PORT: u16 = 7900;

/// Filling some GiB takes seconds on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(10);

/// What it does before it is moved, and afterwards before it is looked at again.
const LIFE: Duration = Duration::from_millis(400);

/// Programs of the image have this in their path.
const PSS: &str = r#"
for process in /proc/[0-9]*; do
  case $(readlink $process/exe) in
    */fastmig-test-programs) sed -n 's/^Pss: *\([0-9]*\) kB/\1/p' $process/smaps_rollup;;
  esac
done | awk '{ sum += $1 } END { print sum + 0 }'
"#;

/// What a container of it is made of. `words` are the program's name and arguments.
pub fn setup(words: &[&str]) -> Setup {
    Setup::of(NAME).running([&[PROGRAM], words].concat())
}

/// The image that it needs.
pub fn image() -> &'static str {
    NAME
}

/// A program as a client reaches it.
#[derive(Debug)]
pub struct Program(Peer);

impl Program {
    /// The one that runs on `host`, or will.
    pub fn on(host: &Host) -> Result<Self> {
        Ok(Self(Peer::new(host, PORT, host)?))
    }

    /// Waits until it answers: its memory is filled then.
    pub fn wait_until_up(&self) -> Result<()> {
        self.0.wait_until_up(START_LIMIT)
    }

    /// Whether anything listens there.
    pub fn is_up(&self) -> bool {
        self.0.connect().is_ok()
    }

    /// Its answer to one request.
    pub fn ask(&self, request: &str) -> Result<Value> {
        self.talk().with_context(|| format!("nobody to ask for {request}"))?.ask(request)
    }

    /// A connection to it, for several requests.
    pub fn talk(&self) -> Result<Conversation> {
        Ok(Conversation(self.0.connect()?))
    }

    /// Fails unless all of its memory is as it must be; answers what it said.
    pub fn check(&self) -> Result<Value> {
        let told = self.ask("check")?;
        ensure!(told["ok"] == true, "its memory is wrong: {told}");
        ensure!(told["pages"].as_u64() > Some(0), "it has no memory: {told}");
        Ok(told)
    }

    /// Which life of the program this is.
    pub fn life(&self) -> Result<Value> {
        Ok(self.ask("stat")?["life"].clone())
    }

    /// Forgets how long it stood still so far.
    pub fn reset(&self) -> Result<()> {
        self.ask("reset").map(drop)
    }

    /// The longest pause that it saw since it was told to forget.
    pub fn pause(&self) -> Result<Duration> {
        let told = self.ask("stat")?;
        Ok(Duration::from_micros(told["max_gap_us"].as_u64().with_context(|| format!("no pause in {told}"))?))
    }
}

/// One connection to a program.
#[derive(Debug)]
pub struct Conversation(Connection);

impl Conversation {
    /// Its answer to one request.
    pub fn ask(&mut self, request: &str) -> Result<Value> {
        self.0.send(format!("{request}\n").as_bytes())?;
        let line = self.0.line().with_context(|| format!("no answer to {request}"))?;
        serde_json::from_str(&line).with_context(|| format!("not JSON: {line}"))
    }
}

/// KiB that all processes of such programs on `host` hold, each page by its share.
pub fn held_kib(host: &Host) -> Result<u64> {
    host.sh(PSS).ok()?.trim().parse().context("no number")
}

/// A program in one of two containers on two hosts.
#[derive(Debug)]
pub struct Pair {
    ends: [Container; 2],
    programs: [Program; 2],
    at: usize,
}

/// What a move was like.
#[derive(Debug)]
pub struct Moved {
    /// What FastMig reported.
    pub report: Value,
    /// How long the program stood still, by its own clock.
    pub pause: Duration,
    /// What its processes held before and afterwards.
    pub held_kib: [u64; 2],
    /// Pages that may only be written now, though they must be read too.
    pub write_only: u64,
}

impl Pair {
    /// Runs it on `from`, and lets a container wait for it on `to`. The image must be there.
    pub fn start(from: &Arc<Host>, to: &Arc<Host>, words: &[&str]) -> Result<Self> {
        let setup = setup(words);
        let ends = [
            Container::run(from, "memory-1", &setup)?,
            Container::run(to, "memory-2", &setup.clone().in_standby())?,
        ];
        let pair = Self { ends, programs: [Program::on(from)?, Program::on(to)?], at: 0 };
        pair.program().wait_until_up().with_context(|| pair.told())?;
        Ok(pair)
    }

    /// The program, where it is.
    pub fn program(&self) -> &Program {
        &self.programs[self.at]
    }

    /// The container that it is in, and the one that waits.
    pub fn containers(&self) -> [&Container; 2] {
        [&self.ends[self.at], &self.ends[1 - self.at]]
    }

    /// Says that it is in the other container now.
    pub fn has_moved(&mut self) {
        self.at = 1 - self.at;
    }

    /// Moves it once, and looks at all of its memory before and after. It is the same program then, and the only one.
    pub fn migrate(&mut self) -> Result<Moved> {
        self.migrate_with(MIGRATE)
    }

    /// The same, with other arguments.
    pub fn migrate_with(&mut self, options: &[&str]) -> Result<Moved> {
        self.migrate_by(|source, destination| migrating::migrate(source, destination, options))
    }

    /// The same, by whoever answers the report.
    pub fn migrate_by(
        &mut self,
        migrate: impl FnOnce(&Container, &Container) -> Result<Value>,
    ) -> Result<Moved> {
        sleep(LIFE);
        self.program().check().context("before the move")?;
        let life = self.program().life()?;
        let [source, destination] = self.containers();
        let before = held_kib(&source.host)?;
        self.program().reset()?;
        let report = migrate(source, destination)?;
        self.has_moved();
        let (pause, check) = self.require_alive(&life).with_context(|| self.told())?;
        let write_only = check["write_only"].as_u64().unwrap_or(0);
        let held_kib = [before, held_kib(&self.containers()[0].host)?];
        sleep(LIFE);
        self.program().check().context("some time after the move")?;
        Ok(Moved { report, pause, held_kib, write_only })
    }

    /// Fails unless this life of the program goes on here, and here alone; answers its longest pause, and its check.
    pub fn require_alive(&self, life: &Value) -> Result<(Duration, Value)> {
        let pause = self.program().pause()?;
        let check = self.program().check().context("after the move")?;
        let now = self.program().life()?;
        ensure!(now == *life, "this is another program: {now} in place of {life}");
        let ticks = || Ok::<_, anyhow::Error>(self.program().ask("stat")?["ticks"].as_u64());
        let before = ticks()?;
        wait_until(SOON, || ticks().is_ok_and(|now| now > before)).context("its clock stands still")?;
        ensure!(!self.programs[1 - self.at].is_up(), "it still answers where it was");
        Ok((pause, check))
    }

    /// Ends it, and removes both containers.
    pub fn remove(self) -> Result<()> {
        self.ends.into_iter().try_for_each(Container::remove)
    }

    fn told(&self) -> String {
        let [here, there] = self.containers();
        let output = |container: &Container| {
            let output = container.output().unwrap_or_default();
            format!(
                "{} on {} wrote: {}",
                container.id(),
                container.host.name(),
                String::from_utf8_lossy(&output)
            )
        };
        format!("{}; {}", output(here), output(there))
    }
}
