//! What happens, told to everybody who listens: `GET /v1/events`.

use std::sync::{Mutex, PoisonError};

use fastmig_api::event::What;
use fastmig_api::Event;
use tokio::sync::broadcast;

/// So many events a slow listener may lie behind; then it loses the oldest and sees the gap in the sequence.
const BACKLOG: usize = 4096;

/// Whom an event is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct About {
    /// The operation.
    pub operation: Option<String>,
    /// Its idempotency key.
    pub key: Option<String>,
    /// The container.
    pub container: Option<String>,
}

/// Where events are published.
#[derive(Debug)]
pub struct Bus {
    sender: broadcast::Sender<Event>,
    sequence: Mutex<u64>,
}

impl Default for Bus {
    fn default() -> Self {
        Self { sender: broadcast::channel(BACKLOG).0, sequence: Mutex::new(0) }
    }
}

impl Bus {
    /// Tells everybody.
    pub fn publish(&self, about: About, what: What) {
        // Held until it is sent: events arrive in the order of their numbers.
        let mut sequence = self.sequence.lock().unwrap_or_else(PoisonError::into_inner);
        *sequence += 1;
        let About { operation, key, container } = about;
        let event = Event { sequence: *sequence, at: fastmig_engine::now(), operation, key, container, what };
        // Without a listener there is nobody to tell.
        let _ = self.sender.send(event);
    }

    /// Listens from now on.
    #[must_use]
    pub fn listen(&self) -> broadcast::Receiver<Event> {
        self.sender.subscribe()
    }

    /// Whether anybody does.
    #[must_use]
    pub fn has_listeners(&self) -> bool {
        self.sender.receiver_count() > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn events_are_numbered_in_order() {
        let bus = Bus::default();
        assert!(!bus.has_listeners());
        let mut listener = bus.listen();
        for message in ["one", "two"] {
            bus.publish(About::default(), What::Warning { message: message.into() });
        }
        for sequence in [1, 2] {
            assert_eq!(listener.recv().await.unwrap().sequence, sequence);
        }
    }
}
