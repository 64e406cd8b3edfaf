//! What FastMig may do differently from runc in the field's conformance tests: nothing that is not named here with its reason.

use super::critest::{Ending, Report};

/// A spec that does not pass, and why. The spec by the end of its name, which may be that of a whole group.
pub(super) struct Known {
    pub(super) spec: &'static str,
    pub(super) reason: &'static str,
}

/// What does not pass with stock runc either: no fault of FastMig, and nothing that it can be measured by.
pub(super) const WITH_RUNC: &[Known] = &[Known {
    spec: "public image with digest should be pulled and removed",
    reason: "it wants one image by its digest, which no image made here can have",
}];

/// What is different under FastMig.
pub(super) const WITH_FASTMIG: &[Known] = &[Known {
    spec: "runtime should support ContainerPID",
    reason: "it looks for the application at pid 1, where FastMig has its init",
}];

/// What is different under it besides, when each container has its own process numbers.
pub(super) const WITH_OWN_PIDS: &[Known] = &[
    Known { spec: "should support nil profile, which is unconfined", reason: IO_URING },
    Known { spec: "should support seccomp unconfined on the container", reason: IO_URING },
];

const IO_URING: &str =
    "where no profile decides, a filter answers io_uring with ENOSYS, and a filter is seen";

/// What is different besides with its shim under a type of its own. Under that of the stock shim these run.
pub(super) const WITH_OWN_TYPE: &[Known] = &[
    Known { spec: "should reject a recursive readonly mount", reason: NO_FEATURES },
    Known { spec: "should support recursive readonly mounts", reason: NO_FEATURES },
    Known { spec: "Security Context UserNamespaces", reason: NO_FEATURES },
];

const NO_FEATURES: &str =
    "containerd asks for a runtime's features only under the type io.containerd.runc.v2";

/// Counts, for the line that a run prints.
pub(super) fn count(report: &Report) -> String {
    let count = |is: fn(&Ending) -> bool| report.values().filter(|ending| is(ending)).count();
    let passed = count(|ending| matches!(ending, Ending::Passed));
    let skipped = count(|ending| matches!(ending, Ending::Skipped(_)));
    format!("{passed} pass, {} fail, {skipped} skipped", report.len() - passed - skipped)
}

/// So many specs may fail with stock runc without being known to: on a busy machine it runs into limits, too.
const MODEL_FAILURES: usize = 2;

/// What is wrong with stock runc's report. A few specs that fail are printed, and cannot be compared; with more of them the
/// node is not set up well.
pub(super) fn faults_of_model(model: &Report) -> Vec<String> {
    let known: Vec<&Known> = WITH_RUNC.iter().collect();
    let failed = model.iter().filter_map(|(spec, ending)| match ending {
        Ending::Failed(message) if !is_known(spec, &known) => Some(format!("runc fails {spec}: {message}")),
        _ => None,
    });
    let mut failed: Vec<String> = failed.collect();
    if failed.len() <= MODEL_FAILURES {
        failed.drain(..).for_each(|line| println!("    not compared: {line}"));
    }
    failed.extend(unused(model, &known, |ending| *ending == Ending::Passed));
    failed
}

/// Each spec that passes with runc and does not pass with `handler`, unless it is known.
pub(super) fn differences(model: &Report, handler: &str, report: &Report, known: &[&Known]) -> Vec<String> {
    let passed = model.iter().filter(|(_, ending)| **ending == Ending::Passed);
    let differs = passed.filter_map(|(spec, _)| match report.get(spec) {
        Some(Ending::Passed) => None,
        Some(_) if is_known(spec, known) => None,
        Some(ending) => Some(format!("{handler}: {spec}: {ending:?}")),
        None => Some(format!("{handler}: {spec}: did not run")),
    });
    differs.chain(unused(report, known, |ending| *ending == Ending::Passed)).collect()
}

/// Entries of a list whose specs do what they are listed not to do, or are no more.
fn unused(report: &Report, known: &[&Known], passed: fn(&Ending) -> bool) -> Vec<String> {
    let stale = known.iter().filter(|entry| {
        let mut named = report.iter().filter(|(spec, _)| spec.contains(entry.spec)).peekable();
        named.peek().is_none() || named.all(|(_, ending)| passed(ending))
    });
    stale.map(|entry| format!("passes, and is listed ({}): {}", entry.reason, entry.spec)).collect()
}

fn is_known(spec: &str, known: &[&Known]) -> bool {
    known.iter().any(|entry| spec.contains(entry.spec))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(specs: &[(&str, Ending)]) -> Report {
        specs.iter().map(|(spec, ending)| ((*spec).to_owned(), ending.clone())).collect()
    }

    #[test]
    fn only_an_unlisted_difference_counts_and_a_stale_entry_too() {
        let failed = || Ending::Failed("x".into());
        let model = report(&[("a", Ending::Passed), ("b", Ending::Passed), ("c", failed())]);
        let other = report(&[("a", Ending::Passed), ("b", Ending::Skipped("y".into())), ("c", failed())]);
        let (a, b) = (Known { spec: "a", reason: "z" }, Known { spec: "b", reason: "z" });
        assert_eq!(differences(&model, "h", &other, &[&b]), Vec::<String>::new());
        assert_eq!(differences(&model, "h", &other, &[]), ["h: b: Skipped(\"y\")"]);
        assert_eq!(differences(&model, "h", &other, &[&a, &b]), ["passes, and is listed (z): a"]);
        assert_eq!(differences(&model, "h", &report(&[("a", Ending::Passed)]), &[]), ["h: b: did not run"]);
        assert_eq!(count(&other), "1 pass, 1 fail, 1 skipped");
    }

    #[test]
    fn a_model_may_fail_here_and_there_and_no_more() {
        let of = |failing: usize| -> Report {
            let known = (WITH_RUNC[0].spec.to_owned(), Ending::Failed("x".into()));
            (0..failing).map(|n| (format!("s{n}"), Ending::Failed("x".into()))).chain([known]).collect()
        };
        assert_eq!(faults_of_model(&of(MODEL_FAILURES)), Vec::<String>::new());
        assert_eq!(faults_of_model(&of(MODEL_FAILURES + 1)).len(), MODEL_FAILURES + 1);
    }
}
