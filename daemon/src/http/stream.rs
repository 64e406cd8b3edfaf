//! Events, as they happen.

use std::convert::Infallible;
use std::sync::Arc;

use axum::response::sse::{Event as Sse, KeepAlive};
use axum::response::{IntoResponse, Response, Sse as Stream};
use fastmig_api::event::KEEP_ALIVE;
use fastmig_api::Event;
use futures_util::StreamExt;
use tokio_stream::wrappers::BroadcastStream;

use super::call::Call;
use crate::daemon::Daemon;

/// From now on, until the listener or the daemon goes.
pub(super) fn events(daemon: &Arc<Daemon>, call: &Call) -> Response {
    let operation = call.query("operation").map(str::to_owned);
    let key = call.query("key").map(str::to_owned);
    let wanted = move |event: &Event| {
        (operation.is_none() || event.operation == operation) && (key.is_none() || event.key == key)
    };
    let events = BroadcastStream::new(daemon.bus.listen())
        .filter_map(move |event| {
            // What a slow listener has lost shows as a gap in the sequence.
            let event = event.ok().filter(&wanted).and_then(|event| message(&event));
            std::future::ready(event.map(Ok::<_, Infallible>))
        })
        .take_until(daemon.stopping());
    Stream::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
}

fn message(event: &Event) -> Option<Sse> {
    Sse::default().event(event.what.name()).id(event.sequence.to_string()).json_data(event).ok()
}
