//! One run of critest on a node, and what became of each of its specs.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use serde_json::Value;

use crate::framework::Host;

/// A run takes some 100 s on a quiet machine.
const LIMIT: Duration = Duration::from_secs(900);

/// How a spec ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ending {
    Passed,
    /// Skipped by the spec itself, for this reason.
    Skipped(String),
    /// Anything else, with the first lines of the message.
    Failed(String),
}

/// The specs of a run by their full names.
pub(super) type Report = BTreeMap<String, Ending>;

/// A spec has limits of its own, into which a busy machine runs without anybody's fault: it is tried a second time, and
/// that is printed.
const ATTEMPTS: &str = "--ginkgo.flake-attempts=2";

/// Runs all specs with a runtime handler; `program` is one of the two that [`super::tools`] builds.
pub(super) fn run(host: &Host, program: &str, handler: &str) -> Result<Report> {
    let file = format!("/var/log/{program}-{handler}.json");
    let (handler, report) = (format!("--runtime-handler={handler}"), format!("--ginkgo.json-report={file}"));
    let argv = [program, "--ginkgo.no-color", ATTEMPTS, &handler, &report];
    let output = host.cmd(argv).dir("/var/tmp").timeout(LIMIT).output()?;
    // It exits with 1 when a spec failed: the report tells which.
    let text = host.read_file(&file).with_context(|| format!("critest: {}{}", output.out(), output.err()))?;
    let report = serde_json::from_slice(&text)?;
    for spec in tried_again(&report) {
        println!("    {program} {handler}: passed at its second attempt: {spec}");
    }
    let report = parse(&report)?;
    ensure!(!report.is_empty(), "critest ran no spec: {}{}", output.out(), output.err());
    Ok(report)
}

/// Ginkgo's report: suites with the specs in them, and what ran around them.
fn parse(report: &Value) -> Result<Report> {
    ensure!(report.is_array(), "a report without suites: {report}");
    let mut found = Report::new();
    for node in nodes(report) {
        let is_spec = node["LeafNodeType"] == "It";
        match ending(node) {
            Some(ending) if is_spec => found.insert(name(node), ending),
            Some(Ending::Failed(message)) => {
                found.insert(format!("({})", node["LeafNodeType"]), Ending::Failed(message))
            }
            _ => None,
        };
    }
    Ok(found)
}

fn nodes(report: &Value) -> impl Iterator<Item = &Value> {
    let suites = report.as_array().into_iter().flatten();
    suites.flat_map(|suite| suite["SpecReports"].as_array().into_iter().flatten())
}

fn tried_again(report: &Value) -> impl Iterator<Item = String> + '_ {
    let again = |node: &&Value| node["State"] == "passed" && node["NumAttempts"].as_u64() > Some(1);
    nodes(report).filter(again).map(name)
}

/// How a spec ended; nothing for one that the run was not asked for.
fn ending(node: &Value) -> Option<Ending> {
    let message = node["Failure"]["Message"].as_str().unwrap_or_default();
    match node["State"].as_str() {
        Some("passed") => Some(Ending::Passed),
        Some("skipped") if message.is_empty() => None,
        Some("skipped") => Some(Ending::Skipped(message.to_owned())),
        state => {
            let lines: Vec<&str> = message.lines().take(4).collect();
            Some(Ending::Failed(format!("{}: {}", state.unwrap_or("no state"), lines.join(" "))))
        }
    }
}

fn name(node: &Value) -> String {
    let containers = node["ContainerHierarchyTexts"].as_array().into_iter().flatten();
    let texts: Vec<&str> = containers.chain([&node["LeafNodeText"]]).filter_map(Value::as_str).collect();
    texts.join(" ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn specs_are_read_and_those_not_asked_for_left_out() {
        let spec = |name: &str, state: &str, message: &str| {
            json!({
                "ContainerHierarchyTexts": ["[k8s.io] Container", "inner"], "LeafNodeText": name, "LeafNodeType": "It",
                "State": state, "Failure": { "Message": message },
            })
        };
        let after = json!({ "LeafNodeType": "AfterSuite", "LeafNodeText": "", "State": "failed" });
        let report = parse(&json!([{ "SpecReports": [
            spec("a", "passed", ""), spec("b", "skipped", "no AppArmor"), spec("c", "skipped", ""),
            spec("d", "panicked", "one\ntwo"), after,
        ]}]))
        .unwrap();
        let of = |name: &str| report.get(&format!("[k8s.io] Container inner {name}"));
        assert_eq!(of("a"), Some(&Ending::Passed));
        assert_eq!(of("b"), Some(&Ending::Skipped("no AppArmor".into())));
        assert_eq!(of("c"), None);
        assert_eq!(of("d"), Some(&Ending::Failed("panicked: one two".into())));
        assert_eq!(report.len(), 4, "a failure around the specs is kept: {report:?}");
    }

    #[test]
    fn a_second_attempt_is_seen() {
        let spec = |name: &str, attempts: u64| json!({ "LeafNodeText": name, "State": "passed", "NumAttempts": attempts });
        let report = json!([{ "SpecReports": [spec("a", 1), spec("b", 2)] }]);
        assert_eq!(tried_again(&report).collect::<Vec<_>>(), ["b"]);
    }
}
