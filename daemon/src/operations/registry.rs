//! Begins operations, or finds the one that was begun with the same idempotency key.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fastmig_api::event::What;
use fastmig_api::operation::{Kind, State};
use fastmig_api::{Code, ErrorInfo, Operation};
use serde_json::{json, Value};
use tokio::sync::watch;

use super::record::{Record, Shelf, REMEMBERED};
use super::{Ending, Job};
use crate::events::{About, Bus};
use crate::metrics::Metrics;

/// An operation that is asked for.
#[derive(Debug, Clone)]
pub struct Asked {
    /// What it does.
    pub kind: Kind,
    /// The container, by its whole id.
    pub container: String,
    /// The idempotency key.
    pub key: Option<String>,
    /// Digest of what was asked and by whom.
    pub fingerprint: String,
    /// Who asks.
    pub caller: String,
}

type Cancel = Box<dyn Fn(Ending) -> bool + Send + Sync>;

/// One operation in memory.
pub(super) struct Entry {
    record: Mutex<Record>,
    begun: Instant,
    over: watch::Sender<bool>,
    cancel: Mutex<Option<Cancel>>,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("record", &self.record).finish_non_exhaustive()
    }
}

impl Entry {
    fn new(record: Record) -> Arc<Self> {
        let over = watch::Sender::new(record.is_over());
        Arc::new(Self { record: Mutex::new(record), begun: Instant::now(), over, cancel: Mutex::new(None) })
    }

    pub(super) fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_cancel(&self, cancel: Cancel) {
        *self.cancel.lock().unwrap_or_else(PoisonError::into_inner) = Some(cancel);
    }

    pub(super) fn about(&self) -> About {
        let operation = &self.record().operation;
        About {
            operation: Some(operation.id.clone()),
            key: operation.key.clone(),
            container: Some(operation.container.clone()),
        }
    }

    /// As it is now.
    fn operation(&self) -> Operation {
        let record = self.record();
        let mut operation = record.operation.clone();
        if !record.is_over() {
            operation.took_ms = milliseconds(self.begun.elapsed());
        }
        operation
    }

    async fn wait(&self) {
        let mut over = self.over.subscribe();
        // The sender lives as long as the entry.
        let _ = over.wait_for(|over| *over).await;
    }

    /// What is answered to whoever asked.
    fn answer(&self) -> Result<Value, ErrorInfo> {
        let record = self.record();
        let operation = &record.operation;
        if let Some(error) = &operation.error {
            return Err(ErrorInfo { operation: Some(operation.id.clone()), ..error.clone() });
        }
        Ok(json!({
            "operation": operation.id,
            "container": operation.container,
            "started_at": operation.started_at,
            "took_ms": operation.took_ms,
            "report": record.report,
        }))
    }

    fn is_over(&self) -> bool {
        self.record().is_over()
    }
}

#[derive(Debug, Default)]
struct Table {
    /// By id; ids sort by age.
    all: BTreeMap<String, Arc<Entry>>,
    keys: HashMap<String, Arc<Entry>>,
    stopping: bool,
}

impl Table {
    fn running(&self) -> Vec<Arc<Entry>> {
        self.all.values().filter(|entry| !entry.is_over()).cloned().collect()
    }

    fn put(&mut self, entry: &Arc<Entry>) {
        let (id, key) = {
            let record = entry.record();
            (record.operation.id.clone(), record.operation.key.clone())
        };
        if let Some(key) = key {
            self.keys.insert(key, entry.clone());
        }
        self.all.insert(id, entry.clone());
    }

    /// Forgets the oldest of too many; answers their ids.
    fn trim(&mut self) -> Vec<String> {
        let too_many = self.all.len().saturating_sub(REMEMBERED);
        let old: Vec<String> =
            self.all.iter().filter(|(_, e)| e.is_over()).map(|(id, _)| id.clone()).take(too_many).collect();
        for id in &old {
            self.all.remove(id);
        }
        let all = &self.all;
        self.keys.retain(|_, entry| {
            let id = entry.record().operation.id.clone();
            all.contains_key(&id)
        });
        old
    }
}

/// All operations of this daemon.
#[derive(Debug)]
pub struct Registry {
    table: Mutex<Table>,
    shelf: Shelf,
    most: usize,
    bus: Arc<Bus>,
    metrics: Arc<Metrics>,
}

impl Registry {
    /// Opens the records in `directory`. What ran when the daemon died has failed; a migration's fate is the journal's to
    /// tell: [`Registry::settle`].
    ///
    /// # Errors
    /// When the directory cannot be made or read.
    pub fn open(
        directory: &Path,
        most: usize,
        bus: Arc<Bus>,
        metrics: Arc<Metrics>,
    ) -> io::Result<Arc<Self>> {
        let shelf = Shelf::open(directory)?;
        let mut table = Table::default();
        for mut record in shelf.load()? {
            if !record.is_over() {
                interrupt(&mut record);
                shelf.store(&record)?;
            }
            table.put(&Entry::new(record));
        }
        Ok(Arc::new(Self { table: Mutex::new(table), shelf, most, bus, metrics }))
    }

    /// The answer to a request with this key that was asked before, once its operation has ended.
    ///
    /// # Errors
    /// That operation's own error; [`Code::KeyReused`] when the key came with another request.
    pub async fn known(&self, key: Option<&str>, fingerprint: &str) -> Option<Result<Value, ErrorInfo>> {
        let entry = self.table().keys.get(key?).cloned()?;
        if entry.record().fingerprint != fingerprint {
            return Some(Err(reused()));
        }
        entry.wait().await;
        Some(entry.answer())
    }

    /// Does `work` on a thread of its own and answers when it has ended. Whoever stops waiting does not stop the work.
    ///
    /// # Errors
    /// What the work failed with; [`Code::Busy`] and [`Code::Unavailable`] when it was not begun.
    pub async fn perform(
        self: &Arc<Self>,
        asked: Asked,
        work: impl FnOnce(&Job) -> Result<Value, ErrorInfo> + Send + 'static,
    ) -> Result<Value, ErrorInfo> {
        let (entry, is_new) = self.enter(asked)?;
        if is_new {
            let job = Job { registry: self.clone(), entry: entry.clone() };
            tokio::task::spawn_blocking(move || job.run(work));
        }
        entry.wait().await;
        entry.answer()
    }

    fn enter(&self, asked: Asked) -> Result<(Arc<Entry>, bool), ErrorInfo> {
        let mut table = self.table();
        if let Some(entry) = asked.key.as_ref().and_then(|key| table.keys.get(key)) {
            if entry.record().fingerprint != asked.fingerprint {
                return Err(reused());
            }
            return Ok((entry.clone(), false));
        }
        if table.stopping {
            let text = "the daemon is about to stop and begins nothing new";
            return Err(ErrorInfo::new(Code::Unavailable, text).with_remedy("try again when it is back"));
        }
        if table.running().len() >= self.most {
            let text = format!("{} operations run, as many as are allowed at a time", self.most);
            return Err(ErrorInfo::new(Code::Busy, text)
                .with_remedy("try again later, or raise max_operations in [daemon] of the configuration"));
        }
        let entry = Entry::new(begin(asked)?);
        table.put(&entry);
        for old in table.trim() {
            self.shelf.forget(&old);
        }
        Ok((entry, true))
    }

    /// The latest that fit, the latest last.
    #[must_use]
    pub fn list(&self, key: Option<&str>, limit: usize) -> Vec<Operation> {
        let entries: Vec<Arc<Entry>> = self.table().all.values().rev().cloned().collect();
        let fits = |operation: &Operation| key.is_none() || operation.key.as_deref() == key;
        let mut found: Vec<Operation> =
            entries.iter().map(|entry| entry.operation()).filter(fits).take(limit).collect();
        found.reverse();
        found
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<Operation> {
        let entry = self.table().all.get(id).cloned();
        entry.map(|entry| entry.operation())
    }

    /// The operation that is at work on a container.
    #[must_use]
    pub fn at_work_on(&self, container: &str) -> Option<Operation> {
        let running = self.table().running();
        running.iter().map(|entry| entry.operation()).find(|operation| operation.container == container)
    }

    /// Asks for an operation's end; answers whether it can still be ended so.
    #[must_use]
    pub fn cancel(&self, id: &str) -> bool {
        let entry = self.table().all.get(id).cloned();
        entry.is_some_and(|entry| {
            let cancel = entry.cancel.lock().unwrap_or_else(PoisonError::into_inner);
            !entry.is_over() && cancel.as_ref().is_some_and(|cancel| cancel(Ending::Asked))
        })
    }

    /// The fate of a migration that ran when the daemon died.
    ///
    /// # Errors
    /// When it cannot be recorded.
    pub fn settle(&self, id: &str, outcome: Result<Value, ErrorInfo>) -> io::Result<()> {
        let Some(entry) = self.table().all.get(id).cloned() else { return Ok(()) };
        let mut record = entry.record();
        conclude(&mut record, outcome);
        self.shelf.store(&record)
    }

    /// Begins nothing any more, and asks for the end of what can be ended.
    pub fn stop(&self) {
        let running = {
            let mut table = self.table();
            table.stopping = true;
            table.running()
        };
        for entry in running {
            let cancel = entry.cancel.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(cancel) = cancel.as_ref() {
                cancel(Ending::DaemonStops);
            }
        }
    }

    /// Waits until nothing runs; answers how many still do after `limit`.
    pub async fn drain(&self, limit: Duration) -> usize {
        let running = self.table().running();
        let all = async {
            for entry in &running {
                entry.wait().await;
            }
        };
        // How many are left is counted below.
        let _ = tokio::time::timeout(limit, all).await;
        self.table().running().len()
    }

    /// How many run.
    #[must_use]
    pub fn running(&self) -> usize {
        self.table().running().len()
    }

    pub(super) fn bus(&self) -> &Bus {
        &self.bus
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Job {
    /// Records, works, records. What is not on disk is not begun.
    fn run(&self, work: impl FnOnce(&Self) -> Result<Value, ErrorInfo>) {
        let begun = self.entry.record().clone();
        let Operation { id, kind, container, .. } = &begun.operation;
        let span = tracing::info_span!("operation", id, %kind, container, caller = begun.caller);
        let _entered = span.enter();
        let outcome = match self.registry.shelf.store(&begun) {
            Ok(()) => {
                self.tell(What::OperationStarted { started: Box::new(self.entry.operation()) });
                work(self)
            }
            Err(e) => Err(ErrorInfo::new(Code::Internal, format!("the operation cannot be recorded: {e}"))
                .with_remedy("nothing was begun; make room in the daemon's state directory")),
        };
        let ended = {
            let mut record = self.entry.record();
            conclude(&mut record, outcome);
            record.operation.took_ms = milliseconds(self.entry.begun.elapsed());
            if let Err(e) = self.registry.shelf.store(&record) {
                tracing::error!(operation = record.operation.id, error = %e, "an operation's end cannot be recorded");
            }
            record.operation.clone()
        };
        self.registry.metrics.operation(&ended);
        self.tell(What::OperationEnded { ended: Box::new(ended) });
        self.entry.over.send_replace(true);
    }
}

fn begin(asked: Asked) -> Result<Record, ErrorInfo> {
    let id = new_id().map_err(|e| ErrorInfo::of(Code::Internal, &e))?;
    Ok(Record {
        operation: Operation {
            id,
            kind: asked.kind,
            container: asked.container,
            key: asked.key,
            state: State::Running,
            phase: None,
            started_at: fastmig_engine::now(),
            ended_at: None,
            took_ms: 0,
            error: None,
            migration: None,
        },
        fingerprint: asked.fingerprint,
        caller: asked.caller,
        report: None,
    })
}

fn conclude(record: &mut Record, outcome: Result<Value, ErrorInfo>) {
    let operation = &mut record.operation;
    operation.ended_at = Some(fastmig_engine::now());
    operation.phase = None;
    operation.error = None;
    match outcome {
        Ok(report) => {
            operation.state = State::Done;
            record.report = Some(report);
        }
        Err(error) => {
            let cancelled = error.code == Code::Cancelled;
            operation.state = if cancelled { State::Cancelled } else { State::Failed };
            operation.error = Some(error);
        }
    }
}

fn interrupt(record: &mut Record) {
    let text = "the daemon was stopped while this was done";
    let remedy = "what was half done has been undone; look at the container and ask again with another key";
    conclude(record, Err(ErrorInfo::new(Code::Internal, text).with_remedy(remedy)));
}

fn reused() -> ErrorInfo {
    ErrorInfo::new(Code::KeyReused, "this idempotency key came with another request before")
        .with_remedy("take a new key for each new request")
}

/// Sorts by age: milliseconds since 1970, then chance.
fn new_id() -> io::Result<String> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let chance: [u8; 5] = crate::files::random()?;
    Ok(format!("{:012x}{}", milliseconds(since), hex::encode(chance)))
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    fn open(directory: &Path) -> Arc<Registry> {
        Registry::open(directory, 2, Arc::default(), Arc::default()).unwrap()
    }

    fn asked(key: Option<&str>, fingerprint: &str) -> Asked {
        Asked {
            kind: Kind::Checkpoint,
            container: "web".into(),
            key: key.map(str::to_owned),
            fingerprint: fingerprint.into(),
            caller: "root".into(),
        }
    }

    #[tokio::test]
    async fn a_key_runs_once_and_its_answer_outlives_the_daemon() {
        let dir = tempfile::tempdir().unwrap();
        let registry = open(dir.path());
        let runs = Arc::new(AtomicU32::new(0));
        let work = |runs: &Arc<AtomicU32>| {
            let runs = runs.clone();
            move |_: &Job| {
                std::thread::sleep(Duration::from_millis(50));
                Ok(json!(runs.fetch_add(1, Ordering::SeqCst)))
            }
        };
        let (first, second) = tokio::join!(
            registry.perform(asked(Some("k"), "f"), work(&runs)),
            registry.perform(asked(Some("k"), "f"), work(&runs)),
        );
        assert_eq!(first.clone().unwrap(), second.unwrap());
        assert_eq!(runs.load(Ordering::SeqCst), 1);
        let other = registry.perform(asked(Some("k"), "other"), work(&runs)).await.unwrap_err();
        assert_eq!(other.code, Code::KeyReused);

        drop(registry);
        let registry = open(dir.path());
        assert_eq!(registry.known(Some("k"), "f").await.unwrap(), first);
        assert_eq!(registry.known(Some("k"), "g").await.unwrap().unwrap_err().code, Code::KeyReused);
        assert!(registry.known(Some("unknown"), "f").await.is_none());
        assert_eq!(runs.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn who_hangs_up_does_not_stop_the_work() {
        let dir = tempfile::tempdir().unwrap();
        let registry = open(dir.path());
        let (release, wait) = std::sync::mpsc::channel::<()>();
        let work = move |_: &Job| {
            wait.recv().unwrap();
            Ok(json!("done"))
        };
        let waiting = registry.perform(asked(Some("k"), "f"), work);
        assert!(tokio::time::timeout(Duration::from_millis(100), waiting).await.is_err());
        assert_eq!(registry.at_work_on("web").unwrap().key.as_deref(), Some("k"));
        release.send(()).unwrap();
        assert_eq!(registry.known(Some("k"), "f").await.unwrap().unwrap()["report"], "done");
        assert!(registry.at_work_on("web").is_none());
    }

    #[tokio::test]
    async fn only_so_many_run_and_none_when_it_stops() {
        let dir = tempfile::tempdir().unwrap();
        let registry = open(dir.path());
        let (release, wait) = std::sync::mpsc::channel::<()>();
        let wait = Arc::new(Mutex::new(wait));
        for _ in 0..2 {
            let (registry, wait) = (registry.clone(), wait.clone());
            tokio::spawn(async move {
                let work = move |_: &Job| {
                    wait.lock().unwrap().recv().unwrap();
                    Ok(Value::Null)
                };
                registry.perform(asked(None, "f"), work).await
            });
        }
        while registry.running() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let error = registry.perform(asked(None, "f"), |_| Ok(Value::Null)).await.unwrap_err();
        assert_eq!(error.code, Code::Busy);
        registry.stop();
        let error = registry.perform(asked(None, "f"), |_| Ok(Value::Null)).await.unwrap_err();
        assert_eq!(error.code, Code::Unavailable);
        assert_eq!(registry.drain(Duration::from_millis(50)).await, 2);
        release.send(()).unwrap();
        release.send(()).unwrap();
        assert_eq!(registry.drain(Duration::from_secs(10)).await, 0);
    }

    #[tokio::test]
    async fn what_ran_when_the_daemon_died_has_failed() {
        let dir = tempfile::tempdir().unwrap();
        let record = begin(asked(Some("k"), "f")).unwrap();
        Shelf::open(dir.path()).unwrap().store(&record).unwrap();
        let registry = open(dir.path());
        let error = registry.known(Some("k"), "f").await.unwrap().unwrap_err();
        assert_eq!((error.code, error.operation), (Code::Internal, Some(record.operation.id.clone())));
        registry.settle(&record.operation.id, Ok(json!("moved"))).unwrap();
        assert_eq!(registry.known(Some("k"), "f").await.unwrap().unwrap()["report"], "moved");
    }

    #[tokio::test]
    async fn the_oldest_are_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Shelf::open(dir.path()).unwrap();
        for number in 0..REMEMBERED + 3 {
            let mut record = begin(asked(None, "f")).unwrap();
            record.operation.id = format!("{number:06}");
            conclude(&mut record, Ok(Value::Null));
            std::fs::write(
                dir.path().join(format!("{number:06}.json")),
                serde_json::to_vec(&record).unwrap(),
            )
            .unwrap();
        }
        std::fs::write(dir.path().join("000900.json"), "damaged").unwrap();
        assert_eq!(shelf.load().unwrap().len(), REMEMBERED - 1);
        let registry = open(dir.path());
        registry.perform(asked(None, "f"), |_| Ok(Value::Null)).await.unwrap();
        registry.perform(asked(None, "f"), |_| Ok(Value::Null)).await.unwrap();
        assert_eq!(registry.list(None, usize::MAX).len(), REMEMBERED);
        assert!(registry.get("000003").is_none());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), REMEMBERED);
    }
}
