//! The events that the shim tells containerd, in the order in which they happened.
//!
//! The crate's own publisher sends a failed event again after those that follow it, and says nothing of those
//! that were not sent when the shim ends. This one keeps the order, and can be waited for.

use std::time::Duration;

use containerd_shim::event::Event;
use containerd_shim::protos::protobuf::well_known_types::timestamp::Timestamp;
use containerd_shim::protos::shim::event::Envelope;
use containerd_shim::protos::shim::events::ForwardRequest;
use containerd_shim::protos::shim_async::{Client, EventsClient};
use containerd_shim::protos::ttrpc::{context, Error as TtrpcError};
use containerd_shim::util::{convert_to_any, timestamp};
use time::OffsetDateTime;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// How long an event is worth sending. A containerd that comes back later asks for the state itself.
const WORTH: Duration = Duration::from_secs(15);
const CALL_LIMIT: Duration = Duration::from_secs(5);
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Where events are handed in. Handing in never waits.
#[derive(Debug, Clone)]
pub(crate) struct Events {
    queue: mpsc::UnboundedSender<Item>,
    namespace: String,
}

#[derive(Debug)]
enum Item {
    Event(Envelope, Instant),
    Flush(oneshot::Sender<()>),
}

impl Events {
    /// Events go to the containerd at `address`.
    pub(crate) fn new(address: &str, namespace: &str) -> Self {
        let (queue, items) = mpsc::unbounded_channel();
        tokio::spawn(forward(address.to_owned(), items));
        Self { queue, namespace: namespace.to_owned() }
    }

    /// Takes note of an event that has just happened.
    pub(crate) fn publish<E: Event + 'static>(&self, event: E) {
        let topic = event.topic();
        let encoded = convert_to_any(Box::new(event)).and_then(|any| Ok((any, timestamp()?)));
        let (any, now) = match encoded {
            Ok(encoded) => encoded,
            Err(e) => return log::error!("event {topic} is lost: {e}"),
        };
        let mut envelope = Envelope::new();
        envelope.set_topic(topic);
        envelope.set_namespace(self.namespace.clone());
        envelope.set_timestamp(now);
        envelope.set_event(any);
        // The queue is closed when the shim ends: nobody is left to tell.
        let _ = self.queue.send(Item::Event(envelope, Instant::now()));
    }

    /// Waits until all that was handed in is sent, but not longer than `limit`.
    pub(crate) async fn flush(&self, limit: Duration) {
        let (sent, all_sent) = oneshot::channel();
        if self.queue.send(Item::Flush(sent)).is_ok() && tokio::time::timeout(limit, all_sent).await.is_err()
        {
            log::warn!("some events were not sent within {limit:?}");
        }
    }
}

/// A time as containerd has it.
pub(crate) fn to_timestamp(at: OffsetDateTime) -> Timestamp {
    containerd_shim::util::convert_to_timestamp(Some(at))
}

async fn forward(address: String, mut items: mpsc::UnboundedReceiver<Item>) {
    let mut client = None;
    while let Some(item) = items.recv().await {
        match item {
            Item::Flush(sent) => drop(sent.send(())),
            Item::Event(envelope, since) => {
                while let Err(e) = send(&address, &mut client, &envelope).await {
                    client = None;
                    if since.elapsed() > WORTH {
                        log::error!("event {} is lost: {e}", envelope.topic());
                        break;
                    }
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
            }
        }
    }
}

async fn send(
    address: &str,
    client: &mut Option<EventsClient>,
    envelope: &Envelope,
) -> Result<(), TtrpcError> {
    let client = match client {
        Some(client) => client,
        None => client.insert(EventsClient::new(Client::connect(&format!("unix://{address}")).await?)),
    };
    let mut request = ForwardRequest::new();
    request.set_envelope(envelope.clone());
    let limit = i64::try_from(CALL_LIMIT.as_nanos()).unwrap_or(i64::MAX);
    client.forward(context::with_timeout(limit), &request).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    use containerd_shim::api::Empty;
    use containerd_shim::protos::events::task::{TaskExit, TaskStart};
    use containerd_shim::protos::shim::events::ForwardRequest;
    use containerd_shim::protos::shim_async::{create_events, Events as Service};
    use containerd_shim::protos::ttrpc::r#async::{Server, TtrpcContext};
    use containerd_shim::TtrpcResult;

    /// A containerd that refuses its first event.
    #[derive(Default)]
    struct Containerd {
        seen: Arc<Mutex<Vec<String>>>,
        refused: Mutex<bool>,
    }

    #[async_trait::async_trait]
    impl Service for Containerd {
        async fn forward(&self, _: &TtrpcContext, request: ForwardRequest) -> TtrpcResult<Empty> {
            if !std::mem::replace(&mut *self.refused.lock().unwrap(), true) {
                return Err(TtrpcError::Others("not now".into()));
            }
            self.seen.lock().unwrap().push(request.envelope().topic().to_owned());
            Ok(Empty::new())
        }
    }

    #[tokio::test]
    async fn events_keep_their_order_when_one_fails_and_flush_waits_for_all() {
        let directory = tempfile::tempdir().unwrap();
        let address = directory.path().join("sock").to_str().unwrap().to_owned();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let service = Containerd { seen: Arc::clone(&seen), ..Containerd::default() };
        let events = Events::new(&address, "default");
        events.publish(TaskStart::new());
        let service = create_events(Arc::new(service));
        let mut server = Server::new().bind(&format!("unix://{address}")).unwrap().register_service(service);
        server.start().await.unwrap();
        events.publish(TaskExit::new());
        events.flush(Duration::from_secs(10)).await;
        assert_eq!(*seen.lock().unwrap(), ["/tasks/start", "/tasks/exit"]);
    }
}
