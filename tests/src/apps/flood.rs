//! redis that is written as fast as it takes, and saves itself without a pause: it forks, and what it writes then is copied.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use serde_json::json;

use super::load::{Client, Traffic, Trouble};
use super::peer::{Connection, Peer};
use super::redis::{expect, string, words};
use super::{facts, App, Facts, START_LIMIT};

/// Clients that write, each its own keys.
const WRITERS: usize = 3;
const KEYS_OF_EACH: usize = 10_000;
/// Digits of a number, and how often a value repeats them: 4 KiB.
const DIGITS: usize = 16;
const REPEATED: usize = 256;
/// Keys that are set by one request.
const BATCH: usize = 32;
/// Between a word to save and the next; it is refused while one is being saved.
const SAVE_PAUSE: Duration = Duration::from_millis(20);
const MIB: f64 = 1_048_576.0;

/// An unmodified redis-server with 120 MiB of values.
#[derive(Debug)]
pub(super) struct FloodedRedis {
    /// MiB that are written each second, at most.
    rate: u32,
    writers: Vec<Arc<Mutex<Model>>>,
    begun: Option<Instant>,
    saves: u64,
}

/// What must be in the keys of one writer.
#[derive(Debug)]
struct Model {
    writer: usize,
    /// The number in the value of each key.
    numbers: Vec<u64>,
    /// Keys whose values may have been set when a connection broke, and those values.
    unsure: Vec<(usize, u64)>,
    batches: u64,
}

impl FloodedRedis {
    pub(super) fn new(rate: u32) -> Self {
        let model = |writer| Model { writer, numbers: vec![0; KEYS_OF_EACH], unsure: Vec::new(), batches: 0 };
        let writers = (0..WRITERS).map(|writer| Arc::new(Mutex::new(model(writer)))).collect();
        Self { rate, writers, begun: None, saves: 0 }
    }

    fn batches(&self) -> u64 {
        self.writers.iter().map(|model| lock(model).batches).sum()
    }
}

impl App for FloodedRedis {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn port(&self) -> u16 {
        6379
    }

    fn fill(&mut self, peer: &Peer) -> Result<Facts> {
        peer.wait_until_up(START_LIMIT)?;
        let mut connection = peer.connect()?;
        for model in &self.writers {
            let model = lock(model);
            for first in (0..KEYS_OF_EACH).step_by(BATCH) {
                let keys = first..KEYS_OF_EACH.min(first + BATCH);
                connection
                    .send(keys.clone().map(|key| set(model.writer, key, 0)).collect::<String>().as_bytes())?;
                keys.into_iter().try_for_each(|_| expect(&mut connection, "+OK"))?;
            }
        }
        self.saves = saves(&mut connection)?;
        self.begun = Some(Instant::now());
        Ok(Facts::new())
    }

    fn clients(&self) -> Vec<Box<dyn Client>> {
        let each = f64::from(self.rate) * MIB / WRITERS as f64;
        let pause = Duration::from_secs_f64((BATCH * REPEATED * DIGITS) as f64 / each);
        let writer = |model: &Arc<Mutex<Model>>| -> Box<dyn Client> {
            Box::new(Writer { model: Arc::clone(model), pause, next: Instant::now() })
        };
        self.writers.iter().map(writer).chain([Box::new(Saver) as Box<dyn Client>]).collect()
    }

    fn verify(&mut self, peer: &Peer, _: &Traffic) -> Result<Facts> {
        let written = self.batches() as f64 * (BATCH * REPEATED * DIGITS) as f64 / MIB;
        let seconds = self.begun.context("it was not filled")?.elapsed().as_secs_f64();
        let mut connection = peer.connect()?;
        for model in &self.writers {
            lock(model).check(&mut connection)?;
        }
        let saved = saves(&mut connection)? - self.saves;
        ensure!(saved > 0, "it never saved itself");
        Ok(facts([("mib_per_second", json!((written / seconds).round())), ("saves", json!(saved))]))
    }
}

impl Model {
    fn check(&self, connection: &mut Connection) -> Result<()> {
        for key in 0..KEYS_OF_EACH {
            connection.send(words(&["GET", &name(self.writer, key)]).as_bytes())?;
            let found = string(connection)?;
            let unsure = self.unsure.iter().filter(|(unsure, _)| *unsure == key).map(|(_, number)| *number);
            let mut allowed = unsure.chain([self.numbers[key]]);
            ensure!(
                allowed.any(|number| value(number) == found),
                "key {} is {:?}..., not {}",
                name(self.writer, key),
                &found[..found.len().min(2 * DIGITS)],
                self.numbers[key]
            );
        }
        Ok(())
    }
}

/// Gives its keys new values, a batch at a time.
struct Writer {
    model: Arc<Mutex<Model>>,
    pause: Duration,
    next: Instant,
}

impl Client for Writer {
    fn request(&mut self, connection: &mut Connection) -> Result<(), Trouble> {
        sleep(self.next.saturating_duration_since(Instant::now()));
        // Who was kept waiting does not make up for it.
        self.next = self.next.max(Instant::now() - self.pause) + self.pause;
        let mut model = lock(&self.model);
        let number = model.batches + 1;
        let first = usize::try_from(model.batches).unwrap_or(0) * BATCH;
        // Never one key twice in a batch; 7 has no divisor in common with the number of keys.
        let keys: Vec<usize> = (first..first + BATCH).map(|at| at * 7 % KEYS_OF_EACH).collect();
        let request: String = keys.iter().map(|key| set(model.writer, *key, number)).collect();
        model.batches = number;
        model.unsure.extend(keys.iter().map(|key| (*key, number)));
        connection.send(request.as_bytes())?;
        for key in keys {
            expect(connection, "+OK")?;
            model.numbers[key] = number;
            model.unsure.retain(|(unsure, _)| *unsure != key);
        }
        Ok(())
    }
}

/// Has it save itself, again and again.
struct Saver;

impl Client for Saver {
    fn request(&mut self, connection: &mut Connection) -> Result<(), Trouble> {
        connection.send(words(&["BGSAVE"]).as_bytes())?;
        let answer = connection.line()?;
        if !(answer.starts_with("+Background saving") || answer.starts_with("-ERR Background save already")) {
            return Err(Trouble::Wrong(format!("redis says {answer:?} to BGSAVE")));
        }
        sleep(SAVE_PAUSE);
        Ok(())
    }
}

/// How often it has saved itself since it was started.
fn saves(connection: &mut Connection) -> Result<u64> {
    connection.send(words(&["INFO", "persistence"]).as_bytes())?;
    let told = string(connection)?;
    let field = |name: &str| told.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    ensure!(field("rdb_last_bgsave_status") == Some("ok"), "it could not save itself: {told}");
    field("rdb_saves").and_then(|saves| saves.parse().ok()).with_context(|| format!("no saves: {told}"))
}

fn name(writer: usize, key: usize) -> String {
    format!("{writer}:{key}")
}

fn value(number: u64) -> String {
    format!("{number:016}").repeat(REPEATED)
}

fn set(writer: usize, key: usize, number: u64) -> String {
    words(&["SET", &name(writer, key), &value(number)])
}

fn lock(model: &Mutex<Model>) -> MutexGuard<'_, Model> {
    model.lock().unwrap_or_else(PoisonError::into_inner)
}
