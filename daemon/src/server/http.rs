//! A connection's requests, within limits.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use axum::Router;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use tokio::io::{AsyncRead, AsyncWrite};
use tower::ServiceExt;

use super::idle::Activity;
use crate::daemon::Daemon;
use crate::pki::certificate::Caller;

/// A request's head must have come within this time.
const HEAD: Duration = Duration::from_secs(10);
/// A connection without a request is closed after this time.
const IDLE: Duration = Duration::from_secs(60);
/// What is under way when a connection is closed gets this time.
const LAST_WORDS: Duration = Duration::from_secs(10);
/// Headers of one request, in bytes and number.
const HEADERS: u16 = 16 << 10;
const MOST_HEADERS: usize = 64;
/// Requests at a time on one connection.
const STREAMS: u32 = 32;

/// What serves requests.
#[derive(Debug, Clone)]
pub(crate) struct Http {
    pub(super) daemon: Arc<Daemon>,
    pub(super) router: Router,
}

impl Http {
    pub(crate) fn new(daemon: &Arc<Daemon>) -> Self {
        Self { daemon: daemon.clone(), router: crate::http::router(daemon) }
    }

    /// Serves a connection of `caller` until it ends, is idle for too long, or the daemon stops.
    pub(super) async fn serve<S>(&self, stream: S, caller: Caller, http2: bool)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let activity = Activity::new();
        let service = service_fn(|request| self.answer(request, &caller, &activity));
        let io = TokioIo::new(stream);
        if http2 {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder
                .timer(TokioTimer::new())
                .max_concurrent_streams(STREAMS)
                .max_header_list_size(HEADERS.into());
            builder.keep_alive_interval(IDLE / 2).keep_alive_timeout(HEAD);
            self.drive(builder.serve_connection(io, service), &activity).await;
        } else {
            let mut builder = http1::Builder::new();
            builder
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD)
                .max_buf_size(HEADERS.into())
                .max_headers(MOST_HEADERS);
            self.drive(builder.serve_connection(io, service), &activity).await;
        }
    }

    async fn drive<C>(&self, connection: C, activity: &Activity)
    where
        C: GracefulConnection,
        C::Error: std::fmt::Display,
    {
        let mut connection = pin!(connection);
        tokio::select! {
            outcome = connection.as_mut() => return tell(outcome),
            () = activity.idle(IDLE) => {}
            () = self.daemon.stopping() => {}
        }
        connection.as_mut().graceful_shutdown();
        tokio::select! {
            outcome = connection.as_mut() => tell(outcome),
            // An operation under way is waited for by whoever stops the daemon; its answer is still sent.
            () = activity.idle(LAST_WORDS) => {}
        }
    }

    fn answer(
        &self,
        request: Request<Incoming>,
        caller: &Caller,
        activity: &Activity,
    ) -> impl std::future::Future<Output = Result<Response, Infallible>> + Send + 'static {
        let busy = activity.begin();
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(caller.clone());
        let router = self.router.clone();
        async move {
            let response = router.oneshot(request).await?;
            // As long as its body is sent the connection is not idle.
            Ok(response.map(|body| {
                Body::new(body.map_frame(move |frame| {
                    let _busy = &busy;
                    frame
                }))
            }))
        }
    }
}

fn tell<E: std::fmt::Display>(outcome: Result<(), E>) {
    if let Err(e) = outcome {
        tracing::debug!(error = %e, "a connection ended");
    }
}
