//! The calls of the HTTP interface, from the one table that the document and the client are made of.
//!
//! | file | what it does |
//! |---|---|
//! | `call` | what was asked, within bounds, and by whom |
//! | `answer` | JSON, or why not |
//! | `look` | what there is: containers, checkpoints, operations, migrations, health, metrics |
//! | `operate` | what changes something: each an operation |
//! | `starts` | how a container starts the next time |
//! | `stream` | events, as they happen |

mod answer;
mod call;
mod look;
mod operate;
mod starts;
mod stream;

use std::sync::Arc;

use axum::extract::Request;
use axum::response::Response;
use axum::routing::{on, MethodFilter};
use axum::Router;
use fastmig_api::{Code, Endpoint, ErrorInfo, Method};

use self::call::Call;
use crate::daemon::Daemon;

/// All of them. Whoever serves it puts a [`crate::pki::certificate::Caller`] into each request's extensions; a request
/// without one is refused.
pub(crate) fn router(daemon: &Arc<Daemon>) -> Router {
    let mut router = Router::new();
    for endpoint in Endpoint::ALL {
        let route = endpoint.route();
        let daemon = daemon.clone();
        let handler = move |request: Request| serve(daemon.clone(), endpoint, request);
        router = router.route(route.path, on(filter(route.method), handler));
    }
    router
        .fallback(|| async {
            let error = ErrorInfo::new(Code::NotFound, "there is no such call");
            answer::error(error.with_remedy("GET /v1/openapi.json lists them"))
        })
        .method_not_allowed_fallback(|| async {
            let error = ErrorInfo::new(Code::MethodNotAllowed, "this path has another method");
            answer::error(error.with_remedy("GET /v1/openapi.json lists them"))
        })
}

fn filter(method: Method) -> MethodFilter {
    match method {
        Method::Get => MethodFilter::GET,
        Method::Post => MethodFilter::POST,
        Method::Delete => MethodFilter::DELETE,
    }
}

async fn serve(daemon: Arc<Daemon>, endpoint: Endpoint, request: Request) -> Response {
    let answer = match Call::read(endpoint, request).await {
        Ok(call) => dispatch(&daemon, endpoint, call).await,
        Err(e) => Err(e),
    };
    let response = answer.unwrap_or_else(answer::error);
    daemon.metrics.request(&endpoint.id(), response.status().as_u16());
    response
}

async fn dispatch(daemon: &Arc<Daemon>, endpoint: Endpoint, call: Call) -> Result<Response, ErrorInfo> {
    match endpoint {
        Endpoint::Run => operate::run(daemon, call).await,
        Endpoint::Checkpoint => operate::checkpoint(daemon, call).await,
        Endpoint::Standby => operate::standby(daemon, call).await,
        Endpoint::Restore => operate::restore(daemon, call).await,
        Endpoint::Migrate => operate::migrate(daemon, call).await,
        Endpoint::Containers => look::containers(daemon).await,
        Endpoint::Container => look::container(daemon, call).await,
        Endpoint::StartOptions => starts::get(daemon, call).await,
        Endpoint::SetStartOptions => starts::set(daemon, call).await,
        Endpoint::ClearStartOptions => starts::clear(daemon, call).await,
        Endpoint::Checkpoints => look::checkpoints(daemon).await,
        Endpoint::GetCheckpoint => look::checkpoint(daemon, call).await,
        Endpoint::DeleteCheckpoint => operate::delete_checkpoint(daemon, call).await,
        Endpoint::Operations => look::operations(daemon, &call),
        Endpoint::Operation => look::operation(daemon, &call),
        Endpoint::Cancel => operate::cancel(daemon, &call),
        Endpoint::Migrations => look::migrations(daemon, &call),
        Endpoint::Migration => look::migration(daemon, &call),
        Endpoint::Events => Ok(stream::events(daemon, &call)),
        Endpoint::Metrics => look::metrics(daemon).await,
        Endpoint::Health => Ok(look::health(daemon)),
        Endpoint::OpenApi => Ok(look::document()),
    }
}
