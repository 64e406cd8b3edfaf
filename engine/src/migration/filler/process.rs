//! The process that fills.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::words::{self, Answer, Request, Stands};
use super::{Ended, RESULT, WORD};
use crate::clock::milliseconds;
use crate::container::Container;
use crate::migration::filling::Filling;
use crate::migration::owed::{Debt, Fetch};
use crate::state::Key;
use crate::tree::cgroup::ApplicationCgroup;
use crate::Config;

/// How often it looks whether all is there.
const LOOK_UP: Duration = Duration::from_millis(5);
/// How long whoever began it may take for the first word, and for each when something has failed.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long the source is told that all is there, where no daemon tells it.
const TELL: Duration = Duration::from_secs(600);

/// Makes somebody who fetches, of an errand.
type MakeFetch<'a> = dyn Fn(&str) -> Result<Arc<dyn Fetch>, String> + Sync + 'a;

/// Becomes a process that fills, if that is what this one was started for. `make_fetch` knows what an errand means.
#[must_use]
pub fn run_if_asked(make_fetch: &MakeFetch<'_>) -> Option<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() != Some(WORD) {
        return None;
    }
    let [Some(namespace), Some(id)] = [arguments.next(), arguments.next()] else {
        return Some(ExitCode::FAILURE);
    };
    // Out of the session of whoever began it: what ends that one is no news to us.
    let _ = nix::unistd::setsid();
    Some(match serve(&namespace, &id, make_fetch) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            tracing::error!(container = id, reason, "memory does not follow");
            ExitCode::FAILURE
        }
    })
}

fn serve(namespace: &str, id: &str, make_fetch: &MakeFetch<'_>) -> Result<(), String> {
    let told = |e: crate::Error| e.report();
    let key = Key::new(namespace, id).map_err(told)?;
    let container = Container::open(Arc::new(Config::load().map_err(told)?), &key).map_err(told)?;
    let cgroup = container.application_cgroup().map_err(told)?;
    let listener = io::stdin().as_fd().try_clone_to_owned().map_err(|e| e.to_string())?;
    let process = Process {
        container,
        cgroup,
        make_fetch,
        state: Mutex::default(),
        changed: Condvar::new(),
        clients: AtomicUsize::new(0),
        over: AtomicBool::new(false),
    };
    std::thread::scope(|scope| {
        scope.spawn(|| process.listen(scope, &UnixListener::from(listener)));
        // Nothing is waited for any more when it returns, neither connections nor whoever may still fetch.
        std::process::exit(process.live());
    })
}

/// What all of its threads share.
struct Process<'a> {
    container: Container,
    cgroup: ApplicationCgroup,
    make_fetch: &'a MakeFetch<'a>,
    state: Mutex<State>,
    changed: Condvar,
    clients: AtomicUsize,
    /// Nothing of how memory came is left.
    over: AtomicBool,
}

#[derive(Default)]
struct State {
    fetch: Option<Arc<dyn Fetch>>,
    filling: Option<Filling>,
    /// All processes are there.
    goes_on: bool,
    /// It goes its own way, since then.
    watches: Option<Instant>,
    /// It was told to.
    stops: bool,
    /// Its end was asked for, by somebody who then tells the source.
    heard: bool,
    stands: Stands,
}

impl Process<'_> {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listen<'scope, 'env>(
        &'scope self,
        scope: &'scope std::thread::Scope<'scope, 'env>,
        listener: &UnixListener,
    ) {
        while let Ok((stream, _)) = listener.accept() {
            self.clients.fetch_add(1, Ordering::AcqRel);
            scope.spawn(move || {
                if let Err(e) = self.answer_all(&stream) {
                    tracing::debug!(error = %e, "a connection ends");
                }
                self.clients.fetch_sub(1, Ordering::AcqRel);
            });
        }
    }

    fn is_alone(&self) -> bool {
        self.clients.load(Ordering::Acquire) == 0
    }

    fn answer_all(&self, stream: &UnixStream) -> io::Result<()> {
        while let Some((request, along)) = words::hear(stream)? {
            let answer = self.answer(request, along);
            words::say(stream, &answer.unwrap_or_else(Answer::Failed), None)?;
        }
        Ok(())
    }

    fn answer(&self, request: Request, along: Option<OwnedFd>) -> Result<Answer, String> {
        let told = |e: io::Error| e.to_string();
        match request {
            Request::Begin { number, owed, errand } => {
                let debt = Debt::of(number, &owed).ok_or("nothing is owed")?;
                let fetch = (self.make_fetch)(&errand)?;
                let (origin, missing) = debt.fetched_by(Arc::clone(&fetch));
                let mut state = self.lock();
                state.filling = Some(Filling::begin(origin, missing).map_err(told)?);
                state.fetch = Some(fetch);
            }
            Request::Add { process } => {
                let uffd = along.ok_or("no userfaultfd came along")?;
                self.lock().filling()?.add(process, uffd).map_err(told)?;
            }
            Request::GoOn => {
                let mut state = self.lock();
                state.filling()?.go_on(&self.cgroup).map_err(told)?;
                state.goes_on = true;
            }
            Request::Watch => {
                let mut state = self.lock();
                if let Some(Err(reason)) = &state.stands.end {
                    return Err(reason.clone());
                }
                state.fetch.as_ref().map_or(Ok(()), |fetch| fetch.be_patient())?;
                state.filling()?.watch(&self.cgroup).map_err(told)?;
                state.watches.get_or_insert_with(Instant::now);
            }
            Request::Wait { milliseconds } => {
                let patience = Duration::from_millis(milliseconds);
                let unended = |state: &mut State| state.stands.end.is_none();
                let waited = self.changed.wait_timeout_while(self.lock(), patience, unended);
                return Ok(Answer::Stands(waited.unwrap_or_else(PoisonError::into_inner).0.stands.clone()));
            }
            Request::End => {
                self.lock().heard = true;
                while !self.over.load(Ordering::Acquire) {
                    std::thread::sleep(LOOK_UP);
                }
            }
            Request::Lose { reason } => {
                if let Some(fetch) = &self.lock().fetch {
                    fetch.close(&reason);
                }
            }
            Request::Stop => self.lock().stops = true,
        }
        Ok(Answer::Done)
    }

    /// Until all is there, or nobody needs it. How the process ends.
    fn live(&self) -> i32 {
        let begun = Instant::now();
        loop {
            std::thread::sleep(LOOK_UP);
            let mut state = self.lock();
            if state.stops {
                return state.go();
            }
            let unwatched = state.watches.is_none();
            // Whoever began it is gone, and nothing of the application has run.
            let forsaken = self.is_alone() && (state.fetch.is_some() || begun.elapsed() > PATIENCE);
            if unwatched && forsaken {
                return state.go();
            }
            if state.look() {
                self.changed.notify_all();
            }
            match &state.stands.end {
                Some(Ok(())) if !unwatched => {
                    drop(state);
                    return self.finish();
                }
                Some(Err(reason)) if !unwatched => {
                    let reason = reason.clone();
                    drop(state);
                    return self.fail(&reason);
                }
                _ => {}
            }
        }
    }

    /// All is there.
    fn finish(&self) -> i32 {
        let mut state = self.lock();
        let took = state.watches.map_or(0, milliseconds);
        let Some(mut filling) = state.filling.take() else { return 1 };
        let Stands { bytes, faults, .. } = state.stands;
        drop(state);
        // From here on nothing depends on us.
        filling.unwatch();
        self.leave_word(&Ended { bytes, faults, lost: None });
        filling.end(&self.cgroup);
        self.over.store(true, Ordering::Release);
        let begun = Instant::now();
        while !self.is_alone() && begun.elapsed() < PATIENCE {
            std::thread::sleep(LOOK_UP);
        }
        let mut state = self.lock();
        let fetch = state.fetch.take().filter(|_| !state.heard);
        drop(state);
        if let Some(fetch) = fetch {
            fetch.say_all_is_here(bytes, faults, took, TELL);
        }
        0
    }

    /// It will never be: whoever is there kills the application, and says so. If nobody does it the watcher will, as soon as we are
    /// gone.
    fn fail(&self, reason: &str) -> i32 {
        let begun = Instant::now();
        while !self.is_alone() && begun.elapsed() < PATIENCE {
            let mut state = self.lock();
            if state.stops {
                return state.go();
            }
            drop(state);
            std::thread::sleep(LOOK_UP);
        }
        let Stands { bytes, faults, .. } = self.lock().stands;
        self.leave_word(&Ended { bytes, faults, lost: Some(reason.into()) });
        tracing::error!(reason, "the application ends, for its memory does not come");
        1
    }

    fn leave_word(&self, ended: &Ended) {
        let path = self.container.directory.file(RESULT);
        let written = serde_json::to_vec(ended)
            .map_err(io::Error::from)
            .and_then(|bytes| crate::files::replace(&path, &bytes));
        if let Err(e) = written {
            tracing::warn!(path = %path.display(), error = %e, "how memory came is not written down");
        }
    }
}

impl State {
    fn filling(&mut self) -> Result<&mut Filling, String> {
        self.filling.as_mut().ok_or_else(|| "nothing has begun".to_owned())
    }

    /// Whether that is the end.
    fn look(&mut self) -> bool {
        let Some(filling) = &self.filling else { return false };
        (self.stands.bytes, self.stands.faults) = filling.told();
        if self.stands.end.is_some() {
            return false;
        }
        self.stands.end = match filling.wait(Duration::ZERO) {
            Ok(true) if self.goes_on => Some(Ok(())),
            Ok(_) => None,
            Err(reason) => Some(Err(reason)),
        };
        self.stands.end.is_some()
    }

    /// Nothing is to be filled any more.
    fn go(&mut self) -> i32 {
        if let Some(filling) = &mut self.filling {
            filling.unwatch();
        }
        0
    }
}
