//! Asks the daemon for the migration, and follows what happens until it answers.
//!
//! One thread waits for the answer, one for events, one for signals; all tell the loop, which alone shows and decides.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use fastmig_api::client::ClientError;
use fastmig_api::event::{Event, What};
use fastmig_api::operation::Done;
use fastmig_api::request::MigrateRequest;
use fastmig_api::{Client, MigrationReport};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::display::Display;

/// How long a daemon that went away in the middle is waited for. It finishes or undoes what it was at when it starts.
const COMES_BACK: Duration = Duration::from_secs(60);
/// How often the display is told that time passes.
const TICK: Duration = Duration::from_millis(200);
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// What the daemon answers in the end.
pub(super) type Answer = Result<Done<MigrationReport>, ClientError>;

/// How following ended.
#[derive(Debug)]
pub(super) enum Ending {
    /// The daemon answered.
    Answered {
        answer: Box<Answer>,
        /// The operation, as far as it was heard of.
        operation: Option<String>,
    },
    /// Who asked wanted to wait no longer, though it goes on.
    Left,
}

/// What the loop is told.
#[derive(Debug)]
pub(super) enum News {
    Event(Box<Event>),
    Interrupted,
    Answered(Box<Answer>),
}

pub(super) fn migrate(
    client: &Client,
    container: &str,
    request: &MigrateRequest,
    mut display: Box<dyn Display>,
) -> Result<Ending, ClientError> {
    let key = new_key();
    let (tell, news) = mpsc::channel();
    // From before it is asked for: so nothing of it is missed.
    let events = client.events(Some(&key))?;
    tell_events(events, tell.clone());
    tell_signals(tell.clone());
    tell_answer(client.clone(), container.to_owned(), request.clone(), key.clone(), tell);
    let mut cancel = |operation: Option<&str>| cancel(client, &key, operation);
    let ending = follow(&news, display.as_mut(), &mut cancel);
    display.end();
    Ok(ending)
}

/// Shows what happens until it is over. `cancel` asks the daemon to stop, and answers in words what it said.
pub(super) fn follow(
    news: &Receiver<News>,
    display: &mut dyn Display,
    cancel: &mut dyn FnMut(Option<&str>) -> String,
) -> Ending {
    let (mut operation, mut interrupted) = (None, false);
    // The answer's own limit bounds this.
    loop {
        let word = match news.recv_timeout(TICK) {
            Ok(word) => word,
            Err(RecvTimeoutError::Timeout) => {
                display.tick();
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return Ending::Left,
        };
        match word {
            News::Event(event) => {
                operation = operation.or_else(|| event.operation.clone());
                display.event(&event.what);
            }
            News::Interrupted if interrupted => return Ending::Left,
            News::Interrupted => {
                interrupted = true;
                display.note(&cancel(operation.as_deref()));
            }
            News::Answered(answer) => {
                let named = match &*answer {
                    Ok(done) => Some(done.operation.clone()),
                    Err(ClientError::Refused(info)) => info.operation.clone(),
                    Err(_) => None,
                };
                return Ending::Answered { answer, operation: named.or(operation) };
            }
        }
    }
}

fn cancel(client: &Client, key: &str, operation: Option<&str>) -> String {
    // An event may not have come yet.
    let find = || client.operations(Some(key)).ok()?.operations.pop().map(|operation| operation.id);
    let Some(id) = operation.map(str::to_owned).or_else(find) else {
        return "interrupted: the daemon has not begun yet; once more to leave it alone".into();
    };
    match client.cancel(&id) {
        Ok(answer) if answer.accepted => {
            "interrupted: the application goes on here; waiting until it does".into()
        }
        Ok(_) => {
            "interrupted too late: it moves already, and is seen to its end; once more to leave it alone"
                .into()
        }
        Err(e) => format!("interrupted, but it cannot be cancelled: {e}; once more to leave it alone"),
    }
}

fn tell_events(events: fastmig_api::client::Events, tell: Sender<News>) {
    thread::spawn(move || {
        // Without events it is only less to look at: the answer says all.
        for event in events.map_while(Result::ok) {
            let last = matches!(event.what, What::OperationEnded { .. });
            if tell.send(News::Event(Box::new(event))).is_err() || last {
                break;
            }
        }
    });
}

fn tell_signals(tell: Sender<News>) {
    let Ok(mut signals) = Signals::new([SIGINT, SIGTERM]) else { return };
    thread::spawn(move || {
        signals.forever().take_while(|_| tell.send(News::Interrupted).is_ok()).for_each(drop);
    });
}

fn tell_answer(client: Client, container: String, request: MigrateRequest, key: String, tell: Sender<News>) {
    thread::spawn(move || {
        let answer = persist(|| client.migrate(&container, &request, Some(&key)));
        // Nobody listens: whoever asked has left.
        let _ = tell.send(News::Answered(Box::new(answer)));
    });
}

/// Asks again where the daemon went away in the middle: with the same key it never does the same twice, but tells what
/// became of it.
fn persist(ask: impl Fn() -> Answer) -> Answer {
    let mut broken: Option<(Instant, ClientError)> = None;
    loop {
        match (ask(), broken.take()) {
            (Err(e @ ClientError::Broken { .. }), None) => broken = Some((Instant::now(), e)),
            (Err(ClientError::Broken { .. } | ClientError::NotRunning { .. }), Some((since, first))) => {
                if since.elapsed() > COMES_BACK {
                    return Err(first);
                }
                broken = Some((since, first));
            }
            (answer, _) => return answer,
        }
        thread::sleep(ASK_AGAIN);
    }
}

/// One that nobody else has.
fn new_key() -> String {
    let random = std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap_or_default();
    format!("fastmig-{}-{}", std::process::id(), random.trim())
}
