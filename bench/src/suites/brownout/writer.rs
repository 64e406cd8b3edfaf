//! The client: one connection, some writes on their way at a time, and the tenths of a second in which they were answered.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{anyhow, ensure, Context, Result};
use fastmig_tests::apps::peer::{Connection, Peer};

/// Bytes of a value.
pub(super) const VALUE: usize = 4096;
/// Writes that are on their way at once.
const BATCH: usize = 16;
const TENTH: Duration = Duration::from_millis(100);
const AGAIN: Duration = Duration::from_millis(1);

/// What was answered.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// In each tenth of a second.
    pub(super) tenths: Vec<u64>,
    /// When the first came from where redis has moved to.
    pub(super) thawed: Duration,
}

/// Writes without end.
pub(super) struct Writing {
    begun: Instant,
    stopped: Arc<AtomicBool>,
    thread: JoinHandle<Answers>,
}

/// Puts so many MiB of values into it.
pub(super) fn fill(peer: &Peer, mib: usize) -> Result<()> {
    let keys = (mib << 20) / VALUE;
    let mut connection = peer.connect()?;
    for first in (0..keys).step_by(1000) {
        let count = 1000.min(keys - first);
        connection.send((first..first + count).map(|key| set(key, first)).collect::<String>().as_bytes())?;
        heard(&mut connection, count)?;
    }
    Ok(())
}

impl Writing {
    pub(super) fn start(peers: [Peer; 2], mib: usize) -> Self {
        let (begun, stopped) = (Instant::now(), Arc::new(AtomicBool::new(false)));
        let until = Arc::clone(&stopped);
        let thread = std::thread::spawn(move || write(&peers, (mib << 20) / VALUE, begun, &until));
        Self { begun, stopped, thread }
    }

    /// Since the first write.
    pub(super) fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    pub(super) fn stop(self) -> Result<Answers> {
        self.stopped.store(true, Ordering::Relaxed);
        let answers = self.thread.join().map_err(|_| anyhow!("the client panicked"))?;
        ensure!(!answers.thawed.is_zero(), "nobody answered after the move");
        Ok(answers)
    }
}

fn write(peers: &[Peer; 2], keys: usize, begun: Instant, stopped: &AtomicBool) -> Answers {
    let (mut answers, mut random) = (Answers::default(), 1_usize);
    let mut at = 0;
    while !stopped.load(Ordering::Relaxed) {
        let Ok(mut connection) = peers[at % 2].connect() else {
            at += 1;
            std::thread::sleep(AGAIN);
            continue;
        };
        while !stopped.load(Ordering::Relaxed) {
            let mut request = String::new();
            for _ in 0..BATCH {
                random =
                    random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                request += &set((random >> 20) % keys, random);
            }
            if connection.send(request.as_bytes()).is_err() || heard(&mut connection, BATCH).is_err() {
                break;
            }
            let now = begun.elapsed();
            if at % 2 == 1 && answers.thawed.is_zero() {
                answers.thawed = now;
            }
            let tenth = usize::try_from(now.as_millis() / TENTH.as_millis()).unwrap_or(0);
            answers.tenths.resize(answers.tenths.len().max(tenth + 1), 0);
            answers.tenths[tenth] += BATCH as u64;
        }
        at += 1;
    }
    answers
}

fn set(key: usize, number: usize) -> String {
    let key = format!("key:{key}");
    let value = format!("{number:020}").repeat(VALUE / 20);
    format!("*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${}\r\n{value}\r\n", key.len(), value.len())
}

fn heard(connection: &mut Connection, count: usize) -> Result<()> {
    for _ in 0..count {
        let line = connection.line().context("the connection broke")?;
        ensure!(line == "+OK", "redis says {line:?}");
    }
    Ok(())
}
