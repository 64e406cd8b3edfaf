//! redis: 100,000 keys, each with a value that is known, and a client that raises a counter and sets keys without end.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{ensure, Result};
use serde_json::json;

use super::load::{Client, Counter, Traffic, Trouble};
use super::peer::{Connection, Peer};
use super::{facts, App, Facts, START_LIMIT};

/// All keys: one counter and the rest with values.
const KEYS: usize = 100_000;
const COUNTER: &str = "counter";

const BATCH: usize = 1000;
/// An unmodified redis-server.
#[derive(Debug, Default)]
pub(super) struct Redis(Arc<Mutex<Model>>);

/// What must be in it.
#[derive(Debug, Default)]
struct Model {
    counter: Counter,
    /// The number in the value of each key.
    numbers: Vec<u64>,
    /// Values that may have been set when a connection broke.
    unsure: HashMap<usize, Vec<u64>>,
    sets: u64,
}

impl App for Redis {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn port(&self) -> u16 {
        6379
    }

    fn fill(&mut self, peer: &Peer) -> Result<Facts> {
        peer.wait_until_up(START_LIMIT)?;
        let mut connection = peer.connect()?;
        let numbers: Vec<u64> = (0..KEYS as u64 - 1).collect();
        for (first, batch) in (0..).step_by(BATCH).zip(numbers.chunks(BATCH)) {
            let sets = batch.iter().enumerate().map(|(i, &n)| set(first + i, n));
            connection.send(sets.collect::<String>().as_bytes())?;
            for _ in batch {
                expect(&mut connection, "+OK")?;
            }
        }
        connection.send(words(&["SET", COUNTER, "0"]).as_bytes())?;
        expect(&mut connection, "+OK")?;
        let keys = number(&mut connection, &["DBSIZE"])?;
        *lock(&self.0) = Model { numbers, ..Model::default() };
        Ok(facts([("keys_before", json!(keys))]))
    }

    fn clients(&self) -> Vec<Box<dyn Client>> {
        vec![Box::new(Writer(Arc::clone(&self.0)))]
    }

    fn verify(&mut self, peer: &Peer, _: &Traffic) -> Result<Facts> {
        let mut connection = peer.connect()?;
        let model = lock(&self.0);
        let keys = number(&mut connection, &["DBSIZE"])?;
        ensure!(keys == KEYS as u64, "{keys} keys, not {KEYS}");
        for first in (0..model.numbers.len()).step_by(BATCH) {
            model.check_values(&mut connection, first..model.numbers.len().min(first + BATCH))?;
        }
        connection.send(words(&["GET", COUNTER]).as_bytes())?;
        let counter = string(&mut connection)?;
        let allowed = counter.parse().is_ok_and(|value| model.counter.allows(value));
        ensure!(
            allowed,
            "the counter is {counter:?} although {} increments are acknowledged",
            model.counter.value()
        );
        Ok(facts([("keys_after", json!(keys))]))
    }
}

impl Model {
    fn check_values(&self, connection: &mut Connection, keys: std::ops::Range<usize>) -> Result<()> {
        let names: Vec<String> = keys.clone().map(key).collect();
        let request: Vec<&str> = std::iter::once("MGET").chain(names.iter().map(String::as_str)).collect();
        connection.send(words(&request).as_bytes())?;
        expect(connection, &format!("*{}", keys.len()))?;
        for key in keys {
            let found = string(connection)?;
            let allowed = self.unsure.get(&key).into_iter().flatten().chain([&self.numbers[key]]);
            ensure!(allowed.into_iter().any(|n| value(*n) == found), "key {key} has the value {found:?}");
        }
        Ok(())
    }
}

/// Counts, and gives one key after the other a new value.
struct Writer(Arc<Mutex<Model>>);

impl Client for Writer {
    fn request(&mut self, connection: &mut Connection) -> Result<(), Trouble> {
        let mut model = lock(&self.0);
        model.sets += 1;
        let number = model.sets + KEYS as u64;
        let target = usize::try_from(model.sets).unwrap_or(0) % model.numbers.len();
        model.unsure.entry(target).or_default().push(number);
        model.counter.sent();
        connection.send((words(&["INCR", COUNTER]) + &set(target, number)).as_bytes())?;
        model.counter.answered(integer(&connection.line()?)?)?;
        expect(connection, "+OK")?;
        model.numbers[target] = number;
        model.unsure.remove(&target);
        Ok(())
    }
}

fn lock(model: &Mutex<Model>) -> MutexGuard<'_, Model> {
    model.lock().unwrap_or_else(PoisonError::into_inner)
}

fn key(index: usize) -> String {
    format!("key:{index}")
}

fn value(number: u64) -> String {
    format!("{number:0100}")
}

fn set(index: usize, number: u64) -> String {
    words(&["SET", &key(index), &value(number)])
}

/// A request as redis reads it.
pub(super) fn words(words: &[&str]) -> String {
    let strings: String = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len())).collect();
    format!("*{}\r\n{strings}", words.len())
}

pub(super) fn expect(connection: &mut Connection, wanted: &str) -> Result<(), Trouble> {
    match connection.line()? {
        line if line == wanted => Ok(()),
        line => Err(Trouble::Wrong(format!("redis says {line:?}, not {wanted:?}"))),
    }
}

fn integer(line: &str) -> Result<u64, Trouble> {
    let value = line.strip_prefix(':').and_then(|value| value.parse().ok());
    value.ok_or_else(|| Trouble::Wrong(format!("redis says {line:?}, no number")))
}

fn number(connection: &mut Connection, request: &[&str]) -> Result<u64, Trouble> {
    connection.send(words(request).as_bytes())?;
    integer(&connection.line()?)
}

pub(super) fn string(connection: &mut Connection) -> Result<String, Trouble> {
    let line = connection.line()?;
    let length = line.strip_prefix('$').and_then(|length| length.parse().ok());
    let length: usize = length.ok_or_else(|| Trouble::Wrong(format!("redis says {line:?}, no string")))?;
    let mut bytes = connection.bytes(length + 2)?;
    bytes.truncate(length);
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
