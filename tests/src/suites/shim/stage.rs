//! What the cases stand on: a host of each generation with everything in it, containers that go away with their guard, and
//! the events that containerd tells.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use serde_json::Value;

use crate::framework::image::reference;
pub(super) use crate::framework::leftovers::nothing_is_left;
use crate::framework::process::wait_until;
use crate::framework::{dist, Background, Cmd, Ctx, Generation, Host};

/// How long what should happen at once may take on a busy machine.
pub(super) const SOON: Duration = Duration::from_secs(20);

/// The stock shim, and ours.
pub(super) const STOCK: &str = "io.containerd.runc.v2";
pub(super) const FASTMIG: &str = "io.containerd.fastmig.v1";

/// A table of cases, each for both generations.
macro_rules! on_both {
    ($($name:literal => $run:path),* $(,)?) => {
        &[$(
            $crate::framework::Case {
                name: concat!($name, " (trixie)"),
                run: |ctx| $run(ctx, $crate::framework::Generation::Trixie).into(),
            },
            $crate::framework::Case {
                name: concat!($name, " (forky)"),
                run: |ctx| $run(ctx, $crate::framework::Generation::Forky).into(),
            },
        )*]
    };
}
pub(super) use on_both;

/// The images that the cases run.
const IMAGES: &[&str] = &["busybox", "python"];

/// A host of this generation with FastMig and containerd in it; the cases of one run share it.
pub(super) fn host(ctx: &Ctx, generation: Generation) -> Result<Arc<Host>> {
    static READY: Mutex<Vec<i32>> = Mutex::new(Vec::new());
    let name = match generation {
        Generation::Trixie => "t",
        Generation::Forky => "f",
    };
    let host = ctx.session()?.host(name, generation)?;
    let mut ready = READY.lock().unwrap_or_else(PoisonError::into_inner);
    if !ready.contains(&host.pid()) {
        host.install(&dist::build()?)?;
        host.start_containerd()?;
        host.import_images(IMAGES)?;
        host.mark_baseline()?;
        ready.push(host.pid());
    }
    Ok(host)
}

/// What `look` sees under the stock shim, given how long it may wait for events. That of containerd 2.1 often ends before its
/// last event is sent, and such a run is no model.
pub(super) fn seen_under_stock<T>(look: impl Fn(Duration) -> Result<T>) -> Result<T> {
    let tries = (0..15).map(|_| look(Duration::from_secs(1)));
    let mut last = None;
    for seen in tries {
        match seen {
            Err(error) => last = Some(error),
            seen => return seen,
        }
    }
    Err(last.context("not looked at")?)
}

/// A container of the test, removed with its guard.
#[derive(Debug)]
pub(super) struct Task<'a> {
    pub(super) host: &'a Host,
    pub(super) id: String,
}

/// `ctr run` of an image.
pub(super) fn ctr_run(
    host: &Host,
    runtime: &str,
    options: &[&str],
    image: &str,
    id: &str,
    argv: &[&str],
) -> Cmd {
    let image = reference(image);
    host.cmd([&["ctr", "run", "--runtime", runtime], options, &[&image, id], argv].concat())
}

impl<'a> Task<'a> {
    /// Starts it in the background.
    pub(super) fn start(
        host: &'a Host,
        runtime: &str,
        options: &[&str],
        id: &str,
        argv: &[&str],
    ) -> Result<Self> {
        Self::start_of("busybox", host, runtime, options, id, argv)
    }

    /// As [`Task::start`], from another image.
    pub(super) fn start_of(
        image: &str,
        host: &'a Host,
        runtime: &str,
        options: &[&str],
        id: &str,
        argv: &[&str],
    ) -> Result<Self> {
        // The guard first: a start that fails half-way leaves a container, too.
        let task = Self { host, id: id.to_owned() };
        ctr_run(host, runtime, &[&["--detach"], options].concat(), image, id, argv).ok()?;
        Ok(task)
    }

    /// `ctr tasks VERB ... ID ...`.
    pub(super) fn ctr(&self, before: &[&str], after: &[&str]) -> Cmd {
        self.host.cmd([&["ctr", "tasks"], before, &[self.id.as_str()], after].concat())
    }

    /// `fastmig --json VERB ID ...`.
    pub(super) fn fastmig(&self, verb: &str, options: &[&str]) -> Cmd {
        self.host.cmd([&["fastmig", "--json", verb, self.id.as_str()], options].concat())
    }

    /// Runs a shell script beside the application and answers what it wrote.
    pub(super) fn sh(&self, script: &str) -> Result<String> {
        self.exec(script).ok()
    }

    /// A shell script beside the application.
    pub(super) fn exec(&self, script: &str) -> Cmd {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        self.exec_as(&format!("x{number}"), script)
    }

    /// As [`Task::exec`], under this name.
    pub(super) fn exec_as(&self, name: &str, script: &str) -> Cmd {
        self.ctr(&["exec", "--exec-id", name], &["sh", "-c", script])
    }

    /// The status that `ctr tasks ls` shows; nothing when there is no task.
    pub(super) fn status(&self) -> Result<Option<String>> {
        let table = self.host.cmd(["ctr", "tasks", "ls"]).ok()?;
        let mut rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        Ok(rows
            .find(|row| row.first() == Some(&self.id.as_str()))
            .and_then(|row| row.get(2).map(|s| (*s).to_owned())))
    }

    /// The host's number of its PID 1.
    pub(super) fn pid(&self) -> Result<i32> {
        let table = self.host.cmd(["ctr", "tasks", "ls"]).ok()?;
        let mut rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let row = rows.find(|row| row.first() == Some(&self.id.as_str())).context("no such task")?;
        Ok(row.get(1).context("no pid")?.parse()?)
    }

    pub(super) fn wait_for_status(&self, status: &str) -> Result<()> {
        let reached = || self.status().is_ok_and(|found| found.as_deref() == Some(status));
        wait_until(SOON, reached).with_context(|| format!("{} is {:?}, not {status}", self.id, self.status()))
    }

    /// What FastMig says of it.
    pub(super) fn state(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.fastmig("status", &[]).ok()?)?)
    }

    /// Fails unless its application is in this state.
    pub(super) fn expect_application(&self, state: &str) -> Result<()> {
        let found = self.state()?;
        ensure!(found["application"] == state, "the application is not {state}: {found}");
        Ok(())
    }

    /// Ends it and removes it now; what goes wrong is an error.
    pub(super) fn remove(self) -> Result<()> {
        let id = &self.id;
        // `ctr tasks rm` ends with the task's own exit code.
        let script = format!(
            "ctr t kill -s KILL {id} 2>/dev/null; \
             for i in $(seq 200); do ctr t ls -q | grep -qx {id} || break; ctr t rm {id}; sleep 0.05; done; \
             ctr c rm {id}"
        );
        self.host.sh(&script).ok().map(drop)
    }
}

impl Drop for Task<'_> {
    fn drop(&mut self) {
        let id = &self.id;
        // Mostly gone already.
        let _ = self
            .host
            .sh(&format!("ctr t kill -s KILL {id}; ctr t rm -f {id}; ctr c rm {id}"))
            .timeout(Duration::from_secs(30))
            .output();
    }
}

/// containerd's events, from the moment on that this was made.
#[derive(Debug)]
pub(super) struct Events {
    watcher: Background,
}

impl Events {
    pub(super) fn record(host: &Host) -> Result<Self> {
        let watcher = host.cmd(["ctr", "events"]).timeout(Duration::from_secs(600)).spawn()?;
        let heard = || {
            let said = host.cmd(["ctr", "namespaces", "label", "default", "test=1"]).output();
            said.is_ok() && String::from_utf8_lossy(&watcher.stdout()).contains("/namespaces/update")
        };
        wait_until(SOON, heard).context("ctr events hears nothing")?;
        Ok(Self { watcher })
    }

    /// How many there are: a mark for [`Events::of`].
    pub(super) fn mark(&self) -> usize {
        self.all().len()
    }

    fn all(&self) -> Vec<(String, Value)> {
        let text = String::from_utf8_lossy(&self.watcher.stdout()).into_owned();
        let complete = text.rsplit_once('\n').map_or("", |(complete, _)| complete);
        complete.lines().filter_map(parse_event).collect()
    }

    /// The topics and telling fields of the shim's events about container `id` after `mark`.
    pub(super) fn of(&self, id: &str, mark: usize) -> Vec<String> {
        let events = self.all().into_iter().skip(mark);
        let events =
            events.filter(|(topic, event)| topic.starts_with("/tasks/") && event["container_id"] == id);
        events.map(|(topic, event)| tell(&topic, &event)).collect()
    }

    /// As [`Events::of`], once the container is removed: its task's last event may come after containerd's own.
    pub(super) fn until_removed(&self, id: &str, mark: usize, limit: Duration) -> Result<Vec<String>> {
        let removed = || {
            let is_last =
                |(topic, event): &(String, Value)| topic == "/containers/delete" && event["id"] == id;
            let tasks = self.of(id, mark);
            let has = |topic: &str| tasks.iter().any(|event| event.starts_with(topic));
            self.all().iter().skip(mark).any(is_last) && (has("/tasks/delete") || !has("/tasks/create"))
        };
        wait_until(limit, removed).with_context(|| format!("no end among {:#?}", self.of(id, mark)))?;
        Ok(self.of(id, mark))
    }

    /// As [`Events::of`], once one that begins with `wanted` is among them.
    pub(super) fn until(&self, id: &str, mark: usize, wanted: &str) -> Result<Vec<String>> {
        let seen = || self.of(id, mark).iter().any(|event| event.starts_with(wanted));
        wait_until(SOON, seen).with_context(|| format!("no {wanted} among {:#?}", self.of(id, mark)))?;
        Ok(self.of(id, mark))
    }
}

/// `DATE TIME +0000 UTC NAMESPACE TOPIC JSON`.
fn parse_event(line: &str) -> Option<(String, Value)> {
    let mut words = line.splitn(7, ' ').skip(5);
    let topic = words.next()?.to_owned();
    Some((topic, serde_json::from_str(words.next()?).ok()?))
}

/// An event without what differs from run to run: numbers of processes and the time.
fn tell(topic: &str, event: &Value) -> String {
    let mut text = topic.to_owned();
    for field in ["container_id", "id", "exec_id", "exit_status", "checkpoint", "io"] {
        if !event[field].is_null() {
            text.push_str(&format!(" {field}={}", without_numbers(&event[field].to_string())));
        }
    }
    for field in ["pid", "exited_at", "bundle", "rootfs"] {
        if !event[field].is_null() {
            text.push_str(&format!(" {field}"));
        }
    }
    text
}

/// A text without its long numbers: those of times and temporary directories.
pub(super) fn without_numbers(text: &str) -> String {
    let mut result = String::new();
    let mut digits = String::new();
    for c in text.chars().chain(['\n']) {
        if c.is_ascii_digit() {
            digits.push(c);
            continue;
        }
        result.push_str(if digits.len() > 4 { "N" } else { &digits });
        digits.clear();
        result.push(c);
    }
    result.pop();
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_told_without_what_differs() {
        let line = r#"2026-11-21 07:59:56.4 +0000 UTC default /tasks/exit {"container_id":"c","id":"c","pid":9,"exit_status":7}"#;
        let (topic, event) = parse_event(line).unwrap();
        assert_eq!(tell(&topic, &event), r#"/tasks/exit container_id="c" id="c" exit_status=7 pid"#);
    }
}
