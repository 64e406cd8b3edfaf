//! When a connection has had nothing to do for too long.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// What a connection is doing. Its copies are one.
#[derive(Debug, Clone)]
pub(super) struct Activity(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    requests: usize,
    since: Instant,
}

/// A request is served as long as this lives.
#[derive(Debug)]
pub(super) struct Busy(Activity);

impl Activity {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(State { requests: 0, since: Instant::now() })))
    }

    pub(super) fn begin(&self) -> Busy {
        self.change(|requests| requests + 1);
        Busy(self.clone())
    }

    /// Waits until nothing was done for `limit`.
    pub(super) async fn idle(&self, limit: Duration) {
        loop {
            let until = {
                let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                let begun = if state.requests == 0 { state.since } else { Instant::now() };
                begun + limit
            };
            if until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }

    fn change(&self, change: impl FnOnce(usize) -> usize) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.requests = change(state.requests);
        state.since = Instant::now();
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.change(|requests| requests.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_idle_only_between_requests() {
        let (activity, limit) = (Activity::new(), Duration::from_secs(60));
        let busy = activity.begin();
        let wait = |seconds| tokio::time::timeout(Duration::from_secs(seconds), activity.idle(limit));
        assert!(wait(600).await.is_err());
        drop(busy);
        assert!(wait(59).await.is_err());
        assert!(wait(2).await.is_ok());
    }
}
