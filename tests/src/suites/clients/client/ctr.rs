//! ctr: containerd's own, with neither networks nor logs nor a `stop`.

use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{bail, Result};

use super::{number_after, words, Client, Network, Setup};
use crate::framework::image::reference;
use crate::framework::Host;

pub(in crate::suites) static CTR: Ctr = Ctr;

#[derive(Debug)]
pub(in crate::suites) struct Ctr;

/// Ends the task `$1` with SIGTERM, waits and removes it.
const STOP: &str = r#"
ctr tasks kill -s SIGTERM "$1"
for i in $(seq 300); do
    ctr tasks ls | awk -v id="$1" '$1 == id { print $3 }' | grep -qx STOPPED && break
    sleep 0.05
done
ctr tasks rm "$1"
"#;

const REMOVE: &str = r#"ctr tasks rm -f "$1" >/dev/null 2>&1; ctr containers rm "$1"; rm -f "$2""#;

impl Client for Ctr {
    fn program(&self) -> &'static str {
        "ctr"
    }

    /// A name that is no runtime type is that of an OCI runtime, which the stock shim calls.
    fn run_with(&self, runtime: &str) -> Vec<String> {
        match runtime.starts_with("io.containerd.") {
            true => words(&["ctr", "run", "--runtime", runtime]),
            false => words(&["ctr", "run", "--runtime", "io.containerd.runc.v2", "--runc-binary", runtime]),
        }
    }

    fn run(&self, setup: &Setup) -> Vec<String> {
        let mut line = self.run_with(&setup.runtime);
        line.extend(words(&["-d", "--log-uri", &format!("file://{}", log(&setup.name))]));
        match setup.network {
            // It publishes nothing.
            Network::Host | Network::Published(_) => line.push("--net-host".into()),
        }
        for (key, value) in &setup.annotations {
            line.extend(words(&["--annotation", &format!("{key}={value}")]));
        }
        line.extend(setup.options.iter().cloned());
        for (source, target) in &setup.mounts {
            line.extend(words(&[
                "--mount",
                &format!("type=bind,src={source},dst={target},options=rbind:ro"),
            ]));
        }
        line.extend([reference(&setup.image), setup.name.clone()]);
        line.extend(setup.command.iter().cloned());
        line
    }

    fn exec(&self, name: &str, argv: &[&str]) -> Vec<String> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let session = format!("s{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        words(&[&["ctr", "tasks", "exec", "--exec-id", &session, name], argv].concat())
    }

    fn logs(&self, host: &Host, name: &str) -> Result<String> {
        Ok(String::from_utf8_lossy(&host.read_file(&log(name))?).into_owned())
    }

    fn is_running(&self, host: &Host, name: &str) -> Result<bool> {
        let tasks = host.cmd(["ctr", "tasks", "ls"]).ok()?;
        Ok(tasks.lines().any(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            fields.first() == Some(&name) && fields.last() == Some(&"RUNNING")
        }))
    }

    fn stop(&self, host: &Host, name: &str) -> Result<i32> {
        let told = host.cmd(["sh", "-ec", STOP, "sh", name]).output()?;
        // It tells the code in words, and none when that is 0.
        match (number_after(&told.err(), "non-zero exit code"), told.status.code()) {
            (Some(code), _) => Ok(code),
            (None, Some(0)) => Ok(0),
            (None, other) => bail!("cannot stop the task ({other:?}): {}", told.err()),
        }
    }

    fn remove(&self, host: &Host, name: &str) -> Result<()> {
        host.cmd(["sh", "-c", REMOVE, "sh", name, &log(name)]).ok().map(drop)
    }
}

fn log(name: &str) -> String {
    format!("/var/log/{name}.log")
}
