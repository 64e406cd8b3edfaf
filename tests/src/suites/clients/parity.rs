//! What users know of runc: the same script under the same client, once with runc and once with FastMig, tells the same.
//!
//! The scripts are in `tests/fixtures/parity`. Each finds the functions `c` (the client), `run` (the client's `run` with the
//! runtime in question) and the variables `program`, `run` and `c` (the same as words), `n` (a name that nobody else has),
//! `port` (a port, likewise) and `address` (the host's). A line `# without: the shim` leaves that out, and one
//! `# needs: COMMAND` all of it where the client has no such command. Lines `# expect: TEXT` say what it
//! must tell under runc already: two runtimes that fail alike are no parity.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{anyhow, bail, ensure, Context, Result};

use super::client::{Client, DOCKER, NERDCTL, PODMAN};
use super::stage;
use crate::framework::clients::DOCKER_SHIM;
use crate::framework::{Case, Ctx, Generation, Host, Outcome};

const WITHOUT_SHIM: &str = "\n# without: the shim\n";
const NEEDS: &str = "# needs: ";

const LIMIT: Duration = Duration::from_secs(90);

/// What stands before each script. `$1`: the client's program; `$2`: its `run` with the runtime; `$3`: a name; `$4`: a port.
const BEFORE: &str = r#"
program=$1 c=$1 run=$2 n=$3 port=$4
address=$(ip -o -4 addr show eth0 | awk '{ print $4 }' | cut -d/ -f1)
c() { $program "$@"; }
run() { $run "$@"; }
clear_away() {
    ids=$($program ps -aq --filter name=$n)
    test -z "$ids" || $program rm -f $ids >/dev/null 2>&1
    rm -rf /tmp/$n*
}
trap clear_away EXIT
exec 2>&1
"#;

macro_rules! script {
    ($name:literal) => {
        Script { name: $name, text: include_str!(concat!("../../../fixtures/parity/", $name, ".sh")) }
    };
}

/// A case for docker and podman, and, where that has the commands, one for nerdctl.
macro_rules! scripts {
    (all: $($all:literal)*; engines: $($engines:literal)*; $(only $client:ident: $($only:literal)*;)*) => {
        &[
            $(Case {
                name: concat!("parity: ", $all, " (docker, podman)"),
                run: |ctx| parity(ctx, &[&DOCKER, &PODMAN], &script!($all)),
            },
            Case {
                name: concat!("parity: ", $all, " (nerdctl)"),
                run: |ctx| parity(ctx, &[&NERDCTL], &script!($all)),
            },)*
            $(Case {
                name: concat!("parity: ", $engines, " (docker, podman)"),
                run: |ctx| parity(ctx, &[&DOCKER, &PODMAN], &script!($engines)),
            },)*
            $($(Case {
                name: concat!("parity: ", $only),
                run: |ctx| parity(ctx, &[&$client], &script!($only)),
            },)*)*
        ]
    };
}

pub(super) const CASES: &[Case] = scripts![
    all: "ports" "volumes" "process" "commands" "terminal" "signals" "life" "exec" "logs" "health" "init" "namespaces"
         "security" "resources" "pause" "files" "processes";
    engines: "attach" "restarts";
    only NERDCTL: "restarts-nerdctl" "checkpoint-nerdctl";
    only DOCKER: "checkpoint-docker";
    only PODMAN: "checkpoint-podman";
];

struct Script {
    name: &'static str,
    text: &'static str,
}

/// runc first, then what must not differ from it, the shim last.
fn runtimes(client: &dyn Client, script: &Script) -> &'static [&'static str] {
    let runtimes: &[&str] = match client.program() {
        "docker" => &["runc", "fastmig", DOCKER_SHIM],
        "podman" => &["runc", "fastmig"],
        _ => &["io.containerd.runc.v2", "fastmig", "io.containerd.fastmig.v1"],
    };
    if script.text.contains(WITHOUT_SHIM) {
        &runtimes[..2]
    } else {
        runtimes
    }
}

fn parity(ctx: &Ctx, clients: &[&'static dyn Client], script: &Script) -> Outcome {
    let needed: Vec<&str> = script.text.lines().filter_map(|line| line.strip_prefix(NEEDS)).collect();
    let lacking = |client: &&dyn Client| {
        client.missing().or_else(|| needed.iter().find_map(|command| client.lacks(command)))
    };
    match clients.iter().find_map(lacking) {
        Some(reason) => Outcome::Skipped(reason),
        None => compared(ctx, clients, script).into(),
    }
}

fn compared(ctx: &Ctx, clients: &[&'static dyn Client], script: &Script) -> Result<()> {
    let host = stage::host(ctx, Generation::Trixie)?;
    let errors: Vec<String> = std::thread::scope(|scope| {
        let compare = |client: &'static dyn Client| compare(&host, client, script);
        let running: Vec<_> =
            clients.iter().map(|client| (*client, scope.spawn(move || compare(*client)))).collect();
        let ended = running.into_iter().map(|(client, thread)| {
            (client, thread.join().unwrap_or_else(|_| Err(anyhow!("its thread panicked"))))
        });
        ended
            .filter_map(|(client, result)| Some(format!("{}: {:#}", client.program(), result.err()?)))
            .collect()
    });
    if !errors.is_empty() {
        bail!("{}", errors.join("\n"));
    }
    Ok(())
}

/// All runtimes of one client at the same time.
fn compare(host: &Arc<Host>, client: &dyn Client, script: &Script) -> Result<()> {
    let told: Vec<(&str, Result<String>)> = std::thread::scope(|scope| {
        let runs = runtimes(client, script)
            .iter()
            .map(|runtime| (*runtime, scope.spawn(|| tell(host, client, runtime, script))));
        let runs: Vec<_> = runs.collect();
        runs.into_iter()
            .map(|(runtime, run)| {
                (runtime, run.join().unwrap_or_else(|_| Err(anyhow!("its thread panicked"))))
            })
            .collect()
    });
    let mut told = told.into_iter();
    let model = told.next().context("no runtime")?.1?;
    for expected in script.text.lines().filter_map(|line| line.strip_prefix("# expect: ")) {
        ensure!(model.contains(expected), "runc does not tell {expected:?} but:\n{model}");
    }
    for (runtime, text) in told {
        let text = text.with_context(|| format!("with {runtime}"))?;
        ensure!(text == model, "with {runtime}:\n{text}\nwith runc:\n{model}");
    }
    Ok(())
}

/// What the script tells under this runtime, without what no two runs have in common.
fn tell(host: &Arc<Host>, client: &dyn Client, runtime: &str, script: &Script) -> Result<String> {
    let number = runtimes(client, script).iter().position(|known| *known == runtime).unwrap_or(0);
    let name = format!("{}-{}-{number}", script.name, client.program());
    let port = (20000 + 10 * usize::from(client.program().as_bytes()[0]) + number).to_string();
    let text = format!("{BEFORE}{}", script.text);
    let run = client.run_with(runtime).join(" ");
    let told = host
        .cmd(["bash", "-c", &text, "bash", client.program(), &run, &name, &port])
        .timeout(LIMIT)
        .output()?;
    let told = told.out().replace(&name, "NAME").replace(&port, "PORT");
    // podman begins with the runtime's name.
    Ok(without_chance(&told.replace(&format!("Error: {runtime}: "), "Error: RUNTIME: ")))
}

/// A text with `ID` in place of each of a container, short or long, and `TIME` in place of a time.
fn without_chance(text: &str) -> String {
    let is_id =
        |word: &str| matches!(word.len(), 12 | 64) && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let (mut result, mut word) = (String::new(), String::new());
    for c in text.chars().chain(['\n']) {
        if c.is_ascii_alphanumeric() {
            word.push(c);
            continue;
        }
        result.push_str(if is_id(&word) { "ID" } else { &word });
        word.clear();
        result.push(c);
    }
    result.pop();
    let kept = result.lines().filter(|line| !is_nerdctls_own(line));
    kept.map(|line| without_time(line).replace(RUNCS_WORDS, "") + "\n").collect()
}

/// What runc says before the reason, in words that differ from version to version. FastMig says the reason alone.
const RUNCS_WORDS: &str = "runc create failed: unable to start container process: ";

fn without_time(line: &str) -> String {
    match line.split_once(" level=") {
        Some((head, rest)) if head.starts_with("time=") => format!("time=TIME level={rest}"),
        _ => line.to_owned(),
    }
}

/// nerdctl warns of this and that, and not each time.
fn is_nerdctls_own(line: &str) -> bool {
    let of_no_weight = ["level=warning", "forward signal child exited"];
    line.starts_with("time=") && of_no_weight.iter().any(|words| line.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_chance_decides_is_left_out() {
        let text = "made 0123456789ab\nCapBnd: 0000000000000000\ntime=\"now\" level=warning msg=x\ntime=\"now\" level=fatal msg=y";
        // A set of capabilities has sixteen digits.
        assert_eq!(without_chance(text), "made ID\nCapBnd: 0000000000000000\ntime=TIME level=fatal msg=y\n");
    }
}
