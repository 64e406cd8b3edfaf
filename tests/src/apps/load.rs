//! Clients that never stop asking while their service moves, and what they saw of the move.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use anyhow::{anyhow, bail, Context, Result};

use super::peer::{Connection, Peer};
use crate::framework::process::wait_until;

/// Between two attempts to connect to a service that is away.
const RETRY_PAUSE: Duration = Duration::from_millis(1);

/// Why a request was not answered as it should.
#[derive(Debug)]
pub enum Trouble {
    /// The connection broke: to be expected of a move.
    Lost(io::Error),
    /// The answer is not what it must be: never to be expected.
    Wrong(String),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Lost(error)
    }
}

impl From<Trouble> for anyhow::Error {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Lost(error) => anyhow!(error).context("the connection broke"),
            Trouble::Wrong(what) => anyhow!(what),
        }
    }
}

/// One client of a service.
pub trait Client: Send {
    /// Begins a conversation on a fresh connection.
    fn greet(&mut self, _: &mut Connection) -> Result<(), Trouble> {
        Ok(())
    }

    /// One request and its answer, which is an acknowledgement.
    fn request(&mut self, connection: &mut Connection) -> Result<(), Trouble>;
}

/// Clients at work.
#[derive(Debug)]
pub struct Load {
    seen: Arc<Seen>,
    threads: Vec<JoinHandle<()>>,
}

/// What the clients have seen in the end.
#[derive(Debug, Clone)]
pub struct Traffic {
    /// Acknowledged requests, by peer.
    pub acknowledged: Vec<u64>,
    /// The longest time that a client waited between one acknowledgement and the next, be it on the same connection or not.
    pub gap: Duration,
    /// How often a client had to connect anew.
    pub reconnects: u64,
}

impl Traffic {
    /// What the first peer acknowledged.
    pub fn before(&self) -> u64 {
        self.acknowledged.first().copied().unwrap_or(0)
    }

    /// What the last peer acknowledged.
    pub fn after(&self) -> u64 {
        self.acknowledged.last().copied().unwrap_or(0)
    }
}

#[derive(Debug)]
struct Seen {
    stop: AtomicBool,
    acknowledged: Vec<AtomicU64>,
    reconnects: AtomicU64,
    gap: Mutex<Duration>,
    wrong: Mutex<Option<String>>,
}

impl Load {
    /// Lets `clients` ask the first of `peers`, and the next one whenever their connection breaks.
    pub fn start(clients: Vec<Box<dyn Client>>, peers: &[Peer]) -> Self {
        let seen = Arc::new(Seen {
            stop: AtomicBool::new(false),
            acknowledged: peers.iter().map(|_| AtomicU64::new(0)).collect(),
            reconnects: AtomicU64::new(0),
            gap: Mutex::default(),
            wrong: Mutex::default(),
        });
        let start = |mut client: Box<dyn Client>| {
            let (seen, peers) = (Arc::clone(&seen), peers.to_vec());
            std::thread::spawn(move || {
                let worker = Worker { seen: &seen, peers: &peers, last: None, longest: Duration::ZERO };
                if let Err(what) = worker.run(client.as_mut()) {
                    lock(&seen.wrong).get_or_insert(what);
                }
            })
        };
        let threads = clients.into_iter().map(start).collect();
        Self { seen, threads }
    }

    /// Waits until `count` more requests have been acknowledged by the peer of this number.
    pub fn wait_for_more(&self, peer: usize, count: u64, limit: Duration) -> Result<()> {
        let seen = &self.seen;
        let wanted = seen.acknowledged[peer].load(Relaxed) + count;
        let waited =
            wait_until(limit, || seen.acknowledged[peer].load(Relaxed) >= wanted || seen.has_failed());
        seen.complain()?;
        waited.with_context(|| {
            let sofar: Vec<u64> = seen.acknowledged.iter().map(|count| count.load(Relaxed)).collect();
            format!("the clients wait for answers; acknowledged so far: {sofar:?}")
        })
    }

    /// Ends the load; a wrong answer is an error.
    pub fn stop(mut self) -> Result<Traffic> {
        self.end()?;
        let seen = &self.seen;
        seen.complain()?;
        Ok(Traffic {
            acknowledged: seen.acknowledged.iter().map(|count| count.load(Relaxed)).collect(),
            gap: *lock(&seen.gap),
            reconnects: seen.reconnects.load(Relaxed),
        })
    }

    fn end(&mut self) -> Result<()> {
        self.seen.stop.store(true, Relaxed);
        let ended = self.threads.drain(..).map(JoinHandle::join);
        if ended.filter(Result::is_err).count() > 0 {
            bail!("a client panicked");
        }
        Ok(())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // Whoever drops it early has an error of its own to tell.
        let _ = self.end();
    }
}

impl Seen {
    fn has_failed(&self) -> bool {
        lock(&self.wrong).is_some()
    }

    fn complain(&self) -> Result<()> {
        match &*lock(&self.wrong) {
            Some(what) => bail!("a client got a wrong answer: {what}"),
            None => Ok(()),
        }
    }
}

struct Worker<'a> {
    seen: &'a Seen,
    peers: &'a [Peer],
    /// The last acknowledgement, by the clock that goes on through a move.
    last: Option<SystemTime>,
    longest: Duration,
}

impl Worker<'_> {
    fn run(mut self, client: &mut dyn Client) -> Result<(), String> {
        let mut at = 0;
        while !self.seen.stop.load(Relaxed) {
            match self.converse(client, at) {
                Ok(()) => {}
                Err(Trouble::Lost(_)) => std::thread::sleep(RETRY_PAUSE),
                Err(Trouble::Wrong(what)) => return Err(what),
            }
            at = (at + 1) % self.peers.len();
        }
        Ok(())
    }

    fn converse(&mut self, client: &mut dyn Client, peer: usize) -> Result<(), Trouble> {
        let mut connection = self.peers[peer].connect()?;
        client.greet(&mut connection)?;
        let mut fresh = true;
        while !self.seen.stop.load(Relaxed) {
            client.request(&mut connection)?;
            self.note(std::mem::take(&mut fresh));
            self.seen.acknowledged[peer].fetch_add(1, Relaxed);
        }
        Ok(())
    }

    /// An acknowledgement, perhaps the first on its connection.
    fn note(&mut self, first: bool) {
        let now = SystemTime::now();
        let Some(last) = self.last.replace(now) else { return };
        let gap = now.duration_since(last).unwrap_or_default();
        if gap > self.longest {
            self.longest = gap;
            let mut longest = lock(&self.seen.gap);
            *longest = gap.max(*longest);
        }
        if first {
            self.seen.reconnects.fetch_add(1, Relaxed);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a client knows of a counter that each of its requests raises by one.
#[derive(Debug, Default)]
pub struct Counter {
    acknowledged: u64,
    /// Requests on the way when a connection broke: they may have counted, or not.
    unsure: u64,
}

impl Counter {
    /// One more is on its way.
    pub fn sent(&mut self) {
        self.unsure += 1;
    }

    /// The counter's new value came back.
    pub fn answered(&mut self, value: u64) -> Result<(), Trouble> {
        let (lowest, highest) = (self.acknowledged + 1, self.acknowledged + self.unsure);
        if !(lowest..=highest).contains(&value) {
            return Err(Trouble::Wrong(format!("the counter is {value}, not {lowest} to {highest}")));
        }
        // One that was on its way may count yet: a thread can hold it while another answers.
        (self.acknowledged, self.unsure) = (value, highest - value);
        Ok(())
    }

    /// The last value that was acknowledged.
    pub fn value(&self) -> u64 {
        self.acknowledged
    }

    /// Whether the service may have this value now.
    pub fn allows(&self, value: u64) -> bool {
        (self.acknowledged..=self.acknowledged + self.unsure).contains(&value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_or_doubled_increment_is_seen() {
        let mut counter = Counter::default();
        counter.sent();
        counter.answered(1).unwrap();
        counter.sent(); // never answered
        counter.sent();
        assert!(counter.allows(1) && counter.allows(3) && !counter.allows(0));
        for wrong in [1, 4] {
            assert!(matches!(counter.answered(wrong), Err(Trouble::Wrong(_))), "{wrong}");
        }
        counter.answered(2).unwrap();
        assert_eq!(counter.value(), 2);
        // The one that was never answered may count late, once.
        assert!(counter.allows(3) && !counter.allows(4));
        counter.sent();
        counter.answered(4).unwrap();
        assert!(!counter.allows(5));
    }
}
