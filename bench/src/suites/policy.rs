//! What deciding costs: rules over the end of a log, and beside it the paper's way, a program in Python that reads the same.
//!
//! Each figure is the median of whole decisions, from the file of the log to the answer.

use std::io::Write;
use std::path::Path;
use std::process::Command;

use anyhow::{ensure, Context, Result};
use fastmig_tests::framework::dist;

use crate::bench::Bench;
use crate::figures::Metric;

/// Lines in the log.
const SIZES: [usize; 6] = [0, 200, 2_000, 5_000, 10_000, 20_000];
/// Decisions by rules for each by the program.
const OF_RULES: usize = 5;

const DECISION: Metric = Metric::new("decision", "ms");

/// Ten patterns of which the last line fits the last.
const RULES: &str = r#"
version = 1
output_lines = 20000
[[rule]]
output = "out of memory|Cannot allocate memory"
action = "exit"
[[rule]]
output = "No space left on device"
action = "standby"
[[rule]]
output = "connection (refused|reset) by \\d+\\.\\d+\\.\\d+\\.\\d+"
action = "exit"
[[rule]]
output = "^panic: "
action = "exit"
[[rule]]
output = "Traceback \\(most recent call last\\)"
action = "exit"
[[rule]]
output = "(?i)segmentation fault"
action = "exit"
[[rule]]
output = "assertion .* failed at \\S+:\\d+"
action = "exit"
[[rule]]
output = "[Ff]atal.*code=(\\d+)"
action = "exit"
[[rule]]
output = "deadlock detected"
action = "exit"
[[rule]]
output = "giving up after [0-9]+ tries$"
action = "scratch"
"#;

/// The same in the paper's language.
const PROGRAM: &str = r#"#!/usr/bin/env python3
import json, re, sys
facts = json.load(sys.stdin)
patterns = ["out of memory|Cannot allocate memory", "No space left on device",
            r"connection (refused|reset) by \d+\.\d+\.\d+\.\d+", "^panic: ", r"Traceback \(most recent call last\)",
            "(?i)segmentation fault", r"assertion .* failed at \S+:\d+", r"[Ff]atal.*code=(\d+)", "deadlock detected"]
for pattern in [re.compile(p) for p in patterns]:
    if any(pattern.search(line) for line in facts["output"]):
        print(json.dumps({"action": "exit"})); sys.exit()
last = re.compile(r"giving up after [0-9]+ tries$")
print(json.dumps({"action": "scratch" if any(last.search(line) for line in facts["output"]) else "standby"}))
"#;

/// Measures.
pub(super) fn run(bench: &mut Bench) -> Result<()> {
    dist::build()?;
    let directory = std::env::temp_dir().join(format!("fastmig-bench-policy-{}", std::process::id()));
    std::fs::create_dir(&directory)?;
    let measured = measure(bench, &directory);
    std::fs::remove_dir_all(&directory)?;
    measured
}

fn measure(bench: &mut Bench, directory: &Path) -> Result<()> {
    let program = directory.join("decider");
    std::fs::write(&program, PROGRAM)?;
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let [rules, python] = ["rules.toml", "python.toml"].map(|name| directory.join(name));
    std::fs::write(&rules, RULES)?;
    let decider =
        format!("version = 1\noutput_lines = 20000\n[decider]\nprogram = {program:?}\nlimit = \"30s\"\n");
    std::fs::write(&python, decider)?;
    for lines in SIZES {
        let work = format!("{lines}-lines");
        let [plain, docker] = [log(directory, lines, plain_line)?, log(directory, lines, docker_line)?];
        let [by_rules, by_program] = if lines > 0 { ["scratch"; 2] } else { ["exit", "standby"] };
        for _ in 0..bench.rounds(5, 20) {
            for _ in 0..OF_RULES {
                bench.note(&work, "fastmig-rules", DECISION, decision(&rules, &plain, by_rules)?);
                bench.note(&work, "fastmig-rules-docker-log", DECISION, decision(&rules, &docker, by_rules)?);
            }
            bench.add(&work, "python", DECISION, decision(&python, &plain, by_program)?);
        }
    }
    Ok(())
}

fn plain_line(number: usize) -> String {
    format!("2026-11-21T10:00:00Z INFO worker {number}: served request {} in {} us", number * 7, number % 977)
}

fn docker_line(number: usize) -> String {
    format!(
        "{{\"log\":\"{}\\n\",\"stream\":\"stdout\",\"time\":\"2026-11-21T10:00:00Z\"}}",
        plain_line(number)
    )
}

fn log(directory: &Path, lines: usize, line: fn(usize) -> String) -> Result<std::path::PathBuf> {
    let path = directory.join("log").with_extension(if line(0).starts_with('{') { "json" } else { "txt" });
    let mut file = std::io::BufWriter::new(std::fs::File::create(&path)?);
    for number in 1..lines {
        writeln!(file, "{}", line(number))?;
    }
    if lines > 0 {
        writeln!(file, "{}", line(0).replace("served request 0 in 0 us", "giving up after 3 tries"))?;
    }
    file.flush()?;
    Ok(path)
}

/// Milliseconds of a whole decision, by the program as it is shipped.
fn decision(rules: &Path, log: &Path, expected: &str) -> Result<f64> {
    let output = Command::new(dist::dist_dir().join("bin/fastmig"))
        .args(["--json", "policy", "test", "--exit-code", "1", "--log"])
        .args([log, rules])
        .output()
        .context("no fastmig")?;
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    ensure!(answer["decision"]["action"] == expected, "decided wrongly: {answer}");
    let microseconds = answer["took_us"].as_u64().context("no time")?;
    Ok(f64::from(u32::try_from(microseconds)?) / 1000.0)
}
