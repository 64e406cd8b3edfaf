//! A client that asks a program again and again, wherever that is, and knows how long nobody answered.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{sleep, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};

use super::memory::Program;
use crate::framework::process::wait_until;
use crate::framework::Host;

/// Between two questions.
const PAUSE: Duration = Duration::from_millis(1);
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

#[derive(Debug)]
struct Seen {
    answers: u64,
    last: Instant,
    longest: Duration,
}

/// Clients, one for each host that the program may be on: who waits at the one does not keep the other from asking.
#[derive(Debug)]
pub struct Watch {
    seen: Arc<Mutex<Seen>>,
    stopped: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
}

impl Watch {
    /// Begins to ask the program on these hosts.
    pub fn start(hosts: [&Host; 2]) -> Result<Self> {
        let seen = Seen { answers: 0, last: Instant::now(), longest: Duration::ZERO };
        let mut watch =
            Self { seen: Arc::new(Mutex::new(seen)), stopped: Arc::default(), clients: Vec::new() };
        for host in hosts {
            let (program, seen, stopped) =
                (Program::on(host)?, Arc::clone(&watch.seen), Arc::clone(&watch.stopped));
            watch.clients.push(std::thread::spawn(move || ask(&program, &seen, &stopped)));
        }
        Ok(watch)
    }

    /// Waits for one more answer and ends it; the longest time without an answer.
    pub fn stop(self) -> Result<Duration> {
        let answers = || self.seen.lock().unwrap_or_else(PoisonError::into_inner).answers;
        let before = answers();
        wait_until(ANSWER_LIMIT, || answers() > before).context("nobody answers any more")?;
        self.stopped.store(true, Ordering::Relaxed);
        for client in self.clients {
            ensure!(client.join().is_ok(), "a client panicked");
        }
        let longest = self.seen.lock().unwrap_or_else(PoisonError::into_inner).longest;
        Ok(longest)
    }
}

fn ask(program: &Program, seen: &Mutex<Seen>, stopped: &AtomicBool) {
    while !stopped.load(Ordering::Relaxed) {
        if let Ok(mut conversation) = program.talk() {
            // It knows nothing of an empty line, and says so at once.
            while !stopped.load(Ordering::Relaxed) && conversation.ask("").is_ok() {
                note(&mut seen.lock().unwrap_or_else(PoisonError::into_inner));
                sleep(PAUSE);
            }
        }
        sleep(PAUSE);
    }
}

fn note(seen: &mut Seen) {
    let now = Instant::now();
    seen.longest = seen.longest.max(now.saturating_duration_since(seen.last));
    seen.last = now;
    seen.answers += 1;
}
