//! One container of a node.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use serde_json::Value;

use crate::framework::image::reference;
use crate::framework::process::wait_until;
use crate::framework::vm::Node;

pub(super) const FASTMIG: &str = "io.containerd.fastmig.v1";
pub(super) const RUNC: &str = "io.containerd.runc.v2";

/// For an application to come up, and whatever else depends on how busy this machine is.
const LIMIT: Duration = Duration::from_secs(120);

/// The processes of the pid namespace of process `$1`: number in it, name, and what AppArmor says.
const LABELS: &str = r#"
labels() {
    wanted=$(readlink /proc/$1/ns/pid)
    for each in /proc/[0-9]*; do
        [ "$(readlink $each/ns/pid)" = "$wanted" ] || continue
        echo "$(sed -n 's/^NSpid:.*\t//p' $each/status) $(cat $each/attr/apparmor/current)"
    done
}
"#;

/// A container with its task, removed when dropped.
#[derive(Debug)]
pub(super) struct Container {
    pub(super) node: Arc<Node>,
    pub(super) id: String,
}

impl Container {
    /// Runs `command` (nothing: the image's own) in a container of `image`, with these options of `ctr run`.
    pub(super) fn run(
        node: &Arc<Node>,
        id: &str,
        (runtime, options): (&str, &[&str]),
        image: &str,
        command: &[&str],
    ) -> Result<Self> {
        let container = Self { node: Arc::clone(node), id: id.to_owned() };
        let words: Vec<String> = command.iter().map(|word| quoted(word)).collect();
        node.sh(&format!(
            "rm -f /var/log/{id}.log\nctr run -d --net-host --log-uri file:///var/log/{id}.log --runtime {runtime} {} {} {id} {}",
            options.join(" "),
            reference(image),
            words.join(" ")
        ))?;
        Ok(container)
    }

    /// The same, but its application waits to be restored.
    pub(super) fn in_standby(node: &Arc<Node>, id: &str, options: &[&str], image: &str) -> Result<Self> {
        let options = [options, &["--annotation", "fastmig.dev/start=standby"]].concat();
        Self::run(node, id, (FASTMIG, &options), image, &[])
    }

    /// `fastmig VERB ID ARGUMENTS`, and its answer.
    pub(super) fn operate(&self, verb: &str, arguments: &str) -> Result<Value> {
        let answer = self.node.sh(&format!("fastmig --json {verb} {} {arguments}", self.id))?;
        serde_json::from_str(&answer).with_context(|| format!("fastmig {verb} answers no JSON: {answer}"))
    }

    /// Saves the application, and brings it up again, in place.
    pub(super) fn save_and_restore(&self) -> Result<()> {
        let path = format!("/var/tmp/{}", self.id);
        self.node.sh(&format!("rm -rf {path}"))?;
        self.operate("checkpoint", &format!("--standby --files --image-path {path}"))?;
        self.operate("restore", &format!("--image-path {path}"))?;
        self.node.sh(&format!("rm -rf {path}")).map(drop)
    }

    /// What `fastmig status` says of the application.
    pub(super) fn application(&self) -> Result<String> {
        Ok(self.operate("status", "")?["application"].as_str().unwrap_or_default().to_owned())
    }

    /// Each process of the container, by its number there, and its AppArmor label.
    pub(super) fn labels(&self) -> Result<BTreeMap<i32, String>> {
        let first = self.operate("status", "")?["pid"].as_i64().context("no pid")?;
        let said = self.node.sh(&format!("{LABELS}labels {first}"))?;
        let line = |line: &str| {
            let (pid, label) = line.split_once(' ')?;
            Some((pid.parse().ok()?, label.to_owned()))
        };
        Ok(said.lines().filter_map(line).collect())
    }

    /// Fails when any process of it is under another label, or there is but the init.
    pub(super) fn require_label(&self, label: &str) -> Result<()> {
        let labels = self.labels()?;
        ensure!(labels.len() > 1 && labels.values().all(|found| found == label), "{label}: {labels:?}");
        Ok(())
    }

    /// Fails unless the init is under its own profile, and every other process under its container's.
    pub(super) fn require_init_label(&self) -> Result<()> {
        let mut labels = self.labels()?;
        let init = labels.remove(&1);
        ensure!(init.as_deref() == Some("fastmig-init (enforce)"), "the init: {init:?}");
        let of_container = |label: &String| label == "fastmig-container (enforce)";
        ensure!(!labels.is_empty() && labels.values().all(of_container), "{labels:?}");
        Ok(())
    }

    /// What it has written.
    pub(super) fn output(&self) -> Result<String> {
        self.node.sh(&format!("cat /var/log/{}.log", self.id))
    }

    /// Runs a command in it, and answers its output.
    pub(super) fn exec(&self, command: &str) -> Result<String> {
        let id = &self.id;
        self.node.sh(&format!("ctr tasks exec --exec-id t$$ {id} sh -c {}", quoted(command)))
    }

    /// Waits until `command` succeeds in it.
    pub(super) fn wait_for(&self, command: &str) -> Result<()> {
        let answers = || self.exec(command).is_ok();
        wait_until(LIMIT, answers).with_context(|| {
            format!(
                "{}: {command} does not succeed; {:?}; its log:\n{:?}",
                self.id,
                self.exec(command),
                self.output()
            )
        })
    }

    /// Waits until it has written `count` lines, and answers the last of them.
    pub(super) fn wait_for_line(&self, count: usize) -> Result<String> {
        let lines = || self.output().map(|output| output.lines().map(String::from).collect::<Vec<_>>());
        wait_until(LIMIT, || lines().is_ok_and(|lines| lines.len() >= count))
            .with_context(|| format!("{} does not write {count} lines", self.id))?;
        lines()?.into_iter().nth(count - 1).context("no line")
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let id = &self.id;
        // A node that is down has no containers either.
        let _ = self.node.output(&format!(
            "ctr tasks rm -f {id} || true; ctr containers rm {id}; rm -rf /var/log/{id}.log /var/tmp/{id}"
        ));
    }
}

/// One word for a shell.
pub(super) fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}
