//! The OCI's own validation programs, with runc and with FastMig: what is in order with runc is with FastMig.

mod programs;
mod tap;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::scope;
use std::time::Duration;

use anyhow::{anyhow, ensure, Context, Result};

use self::tap::Points;
use crate::framework::{dist, golang, Case, Ctx, Generation, Host};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "OCI validation: what is in order with runc is with FastMig (trixie)",
        run: |ctx| golang::needed(|| side_by_side(ctx, Generation::Trixie)),
    },
    Case {
        name: "OCI validation: what is in order with runc is with FastMig (forky)",
        run: |ctx| golang::needed(|| side_by_side(ctx, Generation::Forky)),
    },
];

/// What is in order with runc and not with FastMig, and why.
const KNOWN: &[(&str, &str)] = &[(
    "hooks_stdin: - the state of the container MUST be passed to \"poststop\" hook over stdin",
    "a hook is told the bundle that runc got: FastMig's, in which all files of the client's are found",
)];

const RUNTIMES: [&str; 2] = ["runc", "fastmig"];

/// One program; some wait ten seconds for what does not happen.
const LIMIT: Duration = Duration::from_secs(120);

/// Fewer than this in order with runc, and the comparison shows nothing.
const ENOUGH: usize = 2000;

/// What each program said.
type Report = BTreeMap<String, Points>;

/// A host for each runtime: the programs give their cgroups the same names.
fn side_by_side(ctx: &Ctx, generation: Generation) -> Result<()> {
    let session = ctx.session()?;
    let programs = programs::built(session.cache())?;
    let names = programs::names(&programs)?;
    let hosts = RUNTIMES
        .map(|runtime| session.host(&format!("v{}-{runtime}", &generation.suite()[..1]), generation))
        .into_iter()
        .collect::<Result<Vec<Arc<Host>>>>()?;
    hosts[1].install(&dist::build()?)?;
    let place = hosts[0].share(&programs)?;
    let reports = scope(|scope| {
        let threads = [0, 1].map(|n| {
            let (host, names, place) = (&hosts[n], &names, &place);
            scope.spawn(move || run_all(host, RUNTIMES[n], place, names))
        });
        let ends = threads.into_iter().map(|run| run.join().map_err(|_| anyhow!("a run panicked"))?);
        ends.collect::<Result<Vec<Report>>>()
    })?;
    let in_order = |report: &Report| report.values().map(Points::in_order).sum::<usize>();
    let [model, other] = [in_order(&reports[0]), in_order(&reports[1])];
    println!(
        "    OCI validation, {generation}: {} programs, in order: {model} with runc, {other} with FastMig",
        names.len()
    );
    ensure!(
        model >= ENOUGH,
        "only {model} points are in order with runc: something is wrong with the set-up"
    );
    let wrong = differences(&reports[0], &reports[1]);
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

fn run_all(host: &Host, runtime: &str, place: &str, names: &[String]) -> Result<Report> {
    let run = |name: &String| {
        let program = host.cmd([format!("{place}/{name}")]).env("RUNTIME", runtime).dir(place).timeout(LIMIT);
        let output = program.output().with_context(|| format!("{name} with {runtime}"))?;
        Ok((name.clone(), Points::read(&output.out(), output.status.success())))
    };
    names.iter().map(run).collect()
}

/// What is in order with runc and not with FastMig, unless it is known; and what is known wrongly.
fn differences(model: &Report, other: &Report) -> Vec<String> {
    let lost = model.iter().flat_map(|(program, points)| {
        let nothing = Points::default();
        let lost = points.lost_in(other.get(program).unwrap_or(&nothing));
        lost.into_iter().map(move |point| format!("{program}: {point}"))
    });
    let (known, mut wrong): (Vec<String>, Vec<String>) =
        lost.partition(|line| KNOWN.iter().any(|(point, _)| line.starts_with(point)));
    let stale = KNOWN.iter().filter(|(point, _)| !known.iter().any(|line| line.starts_with(point)));
    wrong.extend(stale.map(|(point, reason)| format!("in order, and is listed ({reason}): {point}")));
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(points: &[(&str, &str)]) -> Report {
        points.iter().map(|(program, text)| ((*program).to_owned(), Points::read(text, true))).collect()
    }

    #[test]
    fn an_unknown_difference_is_told_and_a_stale_known_one_too() {
        let (program, point) = KNOWN[0].0.split_once(": ").unwrap();
        let listed = format!("ok 1 {point}");
        let model = report(&[("a", "ok 1 - b\n"), (program, &listed)]);
        assert_eq!(differences(&model, &report(&[("a", "ok 1 - b\n"), (program, "")])), Vec::<String>::new());
        assert_eq!(
            differences(&model, &report(&[(program, "")])),
            ["a: - b: 1 times, now 0", "a: the program failed"]
        );
        assert!(differences(&model, &model)[0].starts_with("in order, and is listed"));
    }
}
