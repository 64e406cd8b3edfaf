//! critest with runc and with FastMig, each on a node of its own, at the same time.

use std::sync::Arc;
use std::thread::scope;

use anyhow::{anyhow, ensure, Context, Result};

use super::compare::{
    count, differences, faults_of_model, Known, WITH_FASTMIG, WITH_OWN_PIDS, WITH_OWN_TYPE,
};
use super::critest::{self, Report};
use super::node::{node, RUNC, SHIM, SHIM_AS_RUNC, WRAPPER};
use super::tools::{CRITEST, CRITEST_OWN_PIDS};
use crate::framework::{Ctx, Generation, Host};

/// One of the two critests, a letter for its nodes, and what FastMig may do differently in it.
struct Program {
    name: &'static str,
    letter: &'static str,
    known: &'static [Known],
}

const PROGRAMS: [Program; 2] = [
    Program { name: CRITEST, letter: "s", known: &[] },
    Program { name: CRITEST_OWN_PIDS, letter: "o", known: WITH_OWN_PIDS },
];

/// A runtime handler, the name of its nodes, and what FastMig may do differently under it.
struct Handler {
    name: &'static str,
    node: &'static str,
    known: &'static [&'static [Known]],
}

/// The first is the model of the others.
const HANDLERS: [Handler; 4] = [
    Handler { name: RUNC, node: "runc", known: &[] },
    Handler { name: WRAPPER, node: "oci", known: &[WITH_FASTMIG] },
    Handler { name: SHIM, node: "shim", known: &[WITH_FASTMIG, WITH_OWN_TYPE] },
    Handler { name: SHIM_AS_RUNC, node: "as", known: &[WITH_FASTMIG] },
];

pub(super) fn side_by_side(ctx: &Ctx, generation: Generation) -> Result<()> {
    let runs: Vec<(&Program, &Handler)> =
        PROGRAMS.iter().flat_map(|program| HANDLERS.iter().map(move |handler| (program, handler))).collect();
    let nodes = runs.iter().map(|run| node_of(ctx, generation, run)).collect::<Result<Vec<_>>>()?;
    let reports = run_at_once(&runs, &nodes)?;
    for ((program, handler), report) in runs.iter().zip(&reports) {
        println!("    {}, {generation}, {}: {}", program.name, handler.name, count(report));
    }
    let mut wrong = nodes.iter().map(|host| forgotten(host)).collect::<Result<Vec<_>>>()?.concat();
    for (program, reports) in PROGRAMS.iter().zip(reports.chunks(HANDLERS.len())) {
        wrong.extend(compare(program, reports)?);
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// A node for each run: one run removes the images of another, and takes its ports.
fn node_of(
    ctx: &Ctx,
    generation: Generation,
    (program, handler): &(&Program, &Handler),
) -> Result<Arc<Host>> {
    let name = format!("{}{}-{}", &generation.suite()[..1], program.letter, handler.node);
    node(ctx.session()?, &name, generation)
}

/// A run is mostly waiting, so that one hardly slows down another.
fn run_at_once(runs: &[(&Program, &Handler)], nodes: &[Arc<Host>]) -> Result<Vec<Report>> {
    scope(|scope| {
        let threads: Vec<_> = runs
            .iter()
            .zip(nodes)
            .map(|((program, handler), host)| scope.spawn(|| critest::run(host, program.name, handler.name)))
            .collect();
        let ends = threads.into_iter().map(|run| run.join().map_err(|_| anyhow!("a run panicked"))?);
        ends.collect()
    })
}

/// Containers that FastMig still knows, and CRI no more.
fn forgotten(host: &Host) -> Result<Vec<String>> {
    let list = |script: &str| host.sh(script).ok();
    let known_to_cri = list("crictl pods -q --no-trunc; crictl ps -a -q --no-trunc")?;
    let known_to_us = list("for dir in /run/fastmig/*/*/; do test ! -d $dir || basename $dir; done")?;
    let left = known_to_us.lines().filter(|id| !known_to_cri.lines().any(|known| known == *id));
    Ok(left.map(|id| format!("{}: FastMig still knows {id}", host.name())).collect())
}

/// What is wrong in the reports of one program, in the order of the handlers.
fn compare(program: &Program, reports: &[Report]) -> Result<Vec<String>> {
    let (model, others) = reports.split_first().context("no report")?;
    let mut wrong = faults_of_model(model);
    for (handler, report) in HANDLERS[1..].iter().zip(others) {
        let known: Vec<&Known> = handler.known.iter().copied().flatten().chain(program.known).collect();
        let name = format!("{}, {}", program.name, handler.name);
        wrong.extend(differences(model, &name, report, &known));
    }
    Ok(wrong)
}
