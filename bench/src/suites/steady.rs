//! What a program does in a second while nothing is done to it: in a container of FastMig's shim, and in one of the stock shim.
//!
//! | work | rate |
//! |---|---|
//! | cpu | events of `sysbench cpu` |
//! | memory | MiB that `sysbench memory` writes |
//! | files | reads and writes of `sysbench fileio`, at random, in the root file system |
//! | network | MB that `iperf3` receives from the other host |
//! | redis | requests of `redis-benchmark`, 16 at a time |

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use fastmig_tests::framework::image::reference;
use fastmig_tests::framework::Host;
use serde_json::Value;

use crate::bench::Bench;
use crate::figures::Metric;

const IMAGE: &str = "steady";
const LIMIT: Duration = Duration::from_secs(60);

const TOOLS: [(&str, &str); 2] = [("fastmig", "io.containerd.fastmig.v1"), ("runc", "io.containerd.runc.v2")];

const RATE: Metric = Metric::new("rate", "per s");
/// Of two measurements one after the other: what the machine does meanwhile is in both.
const SLOWDOWN: Metric = Metric::new("slowdown", "x");

/// A work: its name, what is run, and how its rate is read. Arguments of each script: the runtime, the image, the seconds, the
/// address of the first host.
struct Work {
    name: &'static str,
    script: &'static str,
    read: fn(&str) -> Option<f64>,
}

const WORKS: [Work; 5] = [
    Work {
        name: "cpu",
        script: "ctr run --rm --runtime $1 $2 bench-steady sysbench cpu --time=$3 run",
        read: |told| after(told, "events per second:"),
    },
    Work {
        name: "memory",
        script: "ctr run --rm --runtime $1 $2 bench-steady sysbench memory --memory-total-size=100T --time=$3 run",
        read: |told| told.split_once("transferred (").and_then(|(_, rest)| first(rest)),
    },
    Work {
        name: "files",
        script: "ctr run --rm --runtime $1 $2 bench-steady sh -c \"cd /var/tmp
            sysbench fileio --file-num=4 --file-total-size=64M prepare >/dev/null
            sysbench fileio --file-num=4 --file-total-size=64M --file-test-mode=rndrw --file-fsync-freq=0 --time=$3 run\"",
        read: |told| Some(after(told, "reads/s:")? + after(told, "writes/s:")?),
    },
    Work {
        name: "network",
        script: "ctr run -d --null-io --net-host --runtime $1 $2 bench-steady iperf3 -s",
        read: |told| {
            let told: Value = serde_json::from_str(told).ok()?;
            Some(told["end"]["sum_received"]["bits_per_second"].as_f64()? / 8e6)
        },
    },
    Work {
        name: "redis",
        script: "ctr run -d --null-io --net-host --runtime $1 $2 bench-steady redis-server --save '' --protected-mode no
            until redis-cli ping >/dev/null 2>&1; do sleep 0.02; done
            redis-benchmark -t set,get -n $(($3 * 300000)) -P 16 -q --csv",
        // A head, then a line for each test: \"SET\",\"123.45\",...
        read: |told| {
            let rates: Vec<f64> =
                told.lines().filter_map(|line| line.split(',').nth(1)?.trim_matches('"').parse().ok()).collect();
            (!rates.is_empty()).then(|| rates.iter().sum::<f64>() / rates.len() as f64)
        },
    },
];

/// The client of the network's work, in a container of the stock shim. Arguments: the image, the seconds, the address.
const CLIENT: &str = "for i in $(seq 50); do
    ctr run --rm --net-host $1 bench-client iperf3 -c $3 -t $2 -J >/tmp/bench-client && break; sleep 0.1
  done; cat /tmp/bench-client";

const REMOVE: &str =
    "ctr tasks rm -f bench-steady >/dev/null 2>&1; ctr containers rm bench-steady >/dev/null 2>&1; true";

/// Measures.
pub(super) fn run(bench: &mut Bench) -> Result<()> {
    let hosts = bench.hosts(&[IMAGE])?;
    let seconds = if bench.how.quick { "1" } else { "5" };
    for round in 0..bench.rounds(5, 9) {
        for work in &WORKS {
            // Who comes first changes, for the machine is slower after some works than after others.
            let turns = if round % 2 == 0 { [0, 1] } else { [1, 0] };
            if !bench.wants(&[work.name]) || (round > 0 && !bench.has_time()) {
                continue;
            }
            let mut rates = [f64::NAN; 2];
            for turn in turns {
                let (tool, runtime) = TOOLS[turn];
                match measure(&hosts, work, runtime, seconds) {
                    Ok(rate) => {
                        bench.add(work.name, tool, RATE, rate);
                        rates[turn] = rate;
                    }
                    Err(error) => bench.fail(&format!("{} {tool}", work.name), &error),
                }
            }
            bench.note(work.name, "fastmig", SLOWDOWN, rates[1] / rates[0]);
        }
    }
    Ok(())
}

fn measure([a, b]: &[Arc<Host>; 2], work: &Work, runtime: &str, seconds: &str) -> Result<f64> {
    let (image, address) = (reference(IMAGE), a.address());
    let told = a.cmd(["sh", "-ec", work.script, "sh", runtime, &image, seconds]).timeout(LIMIT).ok();
    let told = told.and_then(|told| match work.name {
        "network" => b.cmd(["sh", "-c", CLIENT, "sh", &image, seconds, &address]).timeout(LIMIT).ok(),
        _ => Ok(told),
    });
    a.sh(REMOVE).ok()?;
    let told = told?;
    (work.read)(&told).with_context(|| format!("no rate in {told}"))
}

/// The number after these words.
fn after(told: &str, words: &str) -> Option<f64> {
    first(told.split_once(words)?.1)
}

fn first(text: &str) -> Option<f64> {
    text.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_as_the_programs_tell_them() {
        let told = [
            "CPU speed:\n    events per second:  1234.50\n",
            "102400.00 MiB transferred (5120.25 MiB/sec)\n",
            "File operations:\n    reads/s:   100.50\n    writes/s:  50.25\n    fsyncs/s: 0.00\n",
            r#"{"end":{"sum_received":{"bits_per_second":8e9}}}"#,
            "\"test\",\"rps\"\n\"SET\",\"100.00\",\"1\"\n\"GET\",\"300.00\",\"1\"\n",
        ];
        let rates: Vec<Option<f64>> = WORKS.iter().zip(told).map(|(work, told)| (work.read)(told)).collect();
        assert_eq!(rates, [Some(1234.5), Some(5120.25), Some(150.75), Some(1000.0), Some(200.0)]);
        assert!(WORKS.iter().all(|work| (work.read)("error").is_none()));
    }
}
