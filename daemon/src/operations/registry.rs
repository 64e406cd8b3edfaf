//! Begins operations, or finds the one that was begun with the same idempotency key.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fastmig_api::{Code, ErrorInfo, Operation};
use serde_json::Value;

use super::entry::Entry;
use super::record::{Asked, Record, Shelf, REMEMBERED};
use super::{Ending, Job};
use crate::events::Bus;
use crate::metrics::Metrics;

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
                record.interrupt();
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
        let entry = Entry::new(Record::begin(asked).map_err(|e| ErrorInfo::of(Code::Internal, &e))?);
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
        entry.is_some_and(|entry| entry.cancel(Ending::Asked))
    }

    /// The fate of a migration that ran when the daemon died.
    ///
    /// # Errors
    /// When it cannot be recorded.
    pub fn settle(&self, id: &str, outcome: Result<Value, ErrorInfo>) -> io::Result<()> {
        let Some(entry) = self.table().all.get(id).cloned() else { return Ok(()) };
        let mut record = entry.record();
        record.conclude(outcome);
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
            entry.cancel(Ending::DaemonStops);
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

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub(super) fn shelf(&self) -> &Shelf {
        &self.shelf
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn reused() -> ErrorInfo {
    ErrorInfo::new(Code::KeyReused, "this idempotency key came with another request before")
        .with_remedy("take a new key for each new request")
}

#[cfg(test)]
mod tests {
    use super::*;
    use fastmig_api::operation::Kind;
    use serde_json::json;
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
        let record = Record::begin(asked(Some("k"), "f")).unwrap();
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
            let mut record = Record::begin(asked(None, "f")).unwrap();
            record.operation.id = format!("{number:06}");
            record.conclude(Ok(Value::Null));
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
