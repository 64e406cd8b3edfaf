//! The fault table: what becomes of an application, whatever fails and whenever.
//!
//! Each cell lets one fault strike in one phase and then asks for the same: the policy or the failed operation says what
//! happened; the application answers, or its container is in standby and its status says why; and a later checkpoint, restore
//! and migration work. What was seen is the cell's text in `docs/faults.md`.
//!
//! `FASTMIG_FAULTS_TIMES=10` strikes each so often, from the second time on at a moment of chance.
//!
//! | file | what it is |
//! |---|---|
//! | `subject` | an application, and the two containers that it can be in |
//! | `gate` | what stands before CRIU, so that there is time to strike |
//! | `phases` | the columns: what is being done when a fault strikes |
//! | `fate` | what became of the application, waited for and set right |
//! | `seen` | what was seen, for the table |
//! | `ends` | the application ends: memory, disk, signals, exit codes |
//! | `criu` | CRIU is killed, and its own faults |
//! | `files` | files of a checkpoint are damaged |
//! | `services` | shim, daemon and containerd are killed |
//! | `far` | a peer or store that cannot be reached, or hangs |
//! | `power` | a host loses its power |
//! | `table` | the table in the documentation |

mod criu;
mod ends;
mod far;
mod fate;
mod files;
mod gate;
mod phases;
mod power;
mod seen;
mod services;
mod subject;
mod table;

use std::sync::Arc;

use anyhow::{anyhow, ensure, Context, Result};

use self::phases::Phase;
use self::subject::Subject;
use super::stage::write_policy;
use crate::framework::image::programs;
use crate::framework::{Case, Ctx, Host};
use crate::suites::migration::stage::{nothing_is_left, pair_of_daemons, with_images};

pub(in crate::suites) use self::table::put_into_docs;

pub(super) const CASES: &[Case] = &[
    Case { name: "table: the application, CRIU and checkpoints", run: |ctx| side_by_side(ctx).into() },
    Case { name: "table: the host's programs, the peer and the power", run: |ctx| one_by_one(ctx).into() },
    Case { name: "table: docs/faults.md says what was seen", run: |_| table::compare().into() },
];

/// The paper's rules, but for its waits between restarts.
const POLICY: &str = include_str!("../../../../../policy/policies/paper.toml");

/// One strike: its number tells the first, whose moment is chosen, from the others.
type Strike = fn(&mut Subject, Phase, u32) -> Result<()>;

/// What concerns one container and its host's CRIU: the phases are tried at the same time, each with an application of its own.
const OF_ONE_CONTAINER: &[(&str, Strike)] = &[
    (ends::MEMORY, ends::memory),
    (ends::DISK, ends::disk),
    (ends::CODES, ends::codes),
    (ends::SIGNALS, ends::signals),
    (criu::KILLED, criu::killed),
    (criu::FAULTS, criu::faults),
    (files::DAMAGED, files::damaged),
];

/// What others on the host would feel.
const OF_ALL: &[(&str, Strike)] = &[
    (ends::FULL, ends::full),
    (far::PEER, far::peer),
    (far::STORE, far::store),
    (services::DAEMON, services::daemon),
    (services::CONTAINERD, services::containerd),
    (services::SHIM, services::shim),
    (power::LOST, power::lost),
];

fn stage(ctx: &Ctx) -> Result<(Arc<Host>, Arc<Host>)> {
    let (a, b) = pair_of_daemons(ctx)?;
    for host in [&a, &b] {
        with_images(host, &[programs::NAME])?;
        gate::install(host)?;
        let policy = POLICY.replace("\"100ms\"", "\"0s\"").replace("\"10s\"", "\"0s\"");
        write_policy(host, "table", &policy)?;
    }
    Ok((a, b))
}

fn side_by_side(ctx: &Ctx) -> Result<()> {
    let (a, b) = stage(ctx)?;
    let errors: Vec<String> = std::thread::scope(|scope| {
        let phases = Phase::ALL.map(|phase| {
            let (a, b) = (&a, &b);
            scope.spawn(move || all(a, b, phase, OF_ONE_CONTAINER))
        });
        let results = phases.map(|phase| phase.join().unwrap_or_else(|_| Err(anyhow!("panicked"))));
        results.into_iter().filter_map(Result::err).map(|error| format!("{error:#}")).collect()
    });
    ensure!(errors.is_empty(), "{}", errors.join("\n"));
    end(&a, &b)
}

fn one_by_one(ctx: &Ctx) -> Result<()> {
    let (a, b) = stage(ctx)?;
    let errors = Phase::ALL.into_iter().filter_map(|phase| all(&a, &b, phase, OF_ALL).err());
    let errors: Vec<String> = errors.map(|error| format!("{error:#}")).collect();
    ensure!(errors.is_empty(), "{}", errors.join("\n"));
    end(&a, &b)
}

fn end(a: &Arc<Host>, b: &Arc<Host>) -> Result<()> {
    [a, b].into_iter().try_for_each(|host| nothing_is_left(host))
}

/// All faults in one phase. One that is not borne keeps none from being tried.
fn all(a: &Arc<Host>, b: &Arc<Host>, phase: Phase, faults: &[(&'static str, Strike)]) -> Result<()> {
    let mut errors = Vec::new();
    let mut subject = Subject::begin(a, b, phase)?;
    for (fault, strike) in faults {
        let begun = std::time::Instant::now();
        if let Err(error) = so_often(&mut subject, fault, phase, *strike) {
            errors.push(format!("{fault}, {phase}: {error:#}\n{}", subject.describe()));
            subject = Subject::begin(a, b, phase)?;
        }
        println!("    {fault}, {phase}: {:.1} s", begun.elapsed().as_secs_f32());
    }
    subject.end()?;
    ensure!(errors.is_empty(), "{}", errors.join("\n"));
    Ok(())
}

fn so_often(subject: &mut Subject, fault: &'static str, phase: Phase, strike: Strike) -> Result<()> {
    subject.of(fault);
    for number in 0..times() {
        strike(subject, phase, number)
            .and_then(|()| subject.goes_on())
            .with_context(|| format!("time {}", number + 1))?;
    }
    Ok(())
}

/// How often each fault strikes.
fn times() -> u32 {
    std::env::var("FASTMIG_FAULTS_TIMES").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}
