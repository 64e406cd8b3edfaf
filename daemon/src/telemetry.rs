//! What the daemon tells of itself: lines on standard error and, where the settings say so, traces by OTLP over HTTP.

use std::time::Duration;

use async_trait::async_trait;
use opentelemetry::trace::TracerProvider;
use opentelemetry::KeyValue;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::trace::SdkTracerProvider;
use opentelemetry_sdk::Resource;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::{EnvFilter, Targets};
use tracing_subscriber::prelude::*;

use crate::pki::name;

/// A collector that does not answer is not waited for longer.
const SEND: Duration = Duration::from_secs(5);

/// A collector answers with a few bytes; this many are read.
const LONGEST_ANSWER: u64 = 64 << 10;

/// What is sent at the end, before it goes.
#[derive(Debug)]
pub(crate) struct Telemetry {
    traces: Option<SdkTracerProvider>,
}

/// Begins to tell; `FASTMIG_LOG` decides how much on standard error, `level` without it. Traces go to `otlp`, unless that is
/// empty. Called once, on no asynchronous thread.
pub(crate) fn begin(level: &str, otlp: &str) -> Telemetry {
    let filter = EnvFilter::try_from_env("FASTMIG_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    // A line of JSON has its time, and the ids of the operation and the migration that it is of.
    let lines = if wants_json() { lines.json().boxed() } else { lines.without_time().boxed() };
    let (traces, trouble) = match otlp {
        "" => (None, None),
        endpoint => match provider(endpoint) {
            Ok(provider) => (Some(provider), None),
            Err(e) => (None, Some(e)),
        },
    };
    // Only what is ours: a sender that traced its own sending would never end.
    let ours = Targets::new().with_target("fastmig", LevelFilter::INFO);
    let sender = traces.as_ref().map(|provider| {
        tracing_opentelemetry::layer().with_tracer(provider.tracer("fastmigd")).with_filter(ours)
    });
    tracing_subscriber::registry().with(sender).with(lines.with_filter(filter)).init();
    if let Some(e) = trouble {
        tracing::warn!(otlp, error = %e, "no traces are sent");
    }
    Telemetry { traces }
}

fn wants_json() -> bool {
    std::env::var_os("FASTMIG_LOG_FORMAT").is_some_and(|format| format == "json")
}

fn provider(endpoint: &str) -> Result<SdkTracerProvider, opentelemetry_otlp::ExporterBuildError> {
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(Sender::new())
        .with_protocol(Protocol::HttpJson)
        .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
        .with_timeout(SEND)
        .build()?;
    let host = KeyValue::new("host.name", name::of_this_host());
    let resource = Resource::builder().with_service_name("fastmigd").with_attribute(host).build();
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
}

/// Sends, on the thread that collects the spans, and waits for the answer.
#[derive(Debug)]
struct Sender(ureq::Agent);

impl Sender {
    fn new() -> Self {
        let config = ureq::Agent::config_builder()
            .proxy(None)
            .max_redirects(0)
            .http_status_as_error(false)
            .timeout_global(Some(SEND))
            .build();
        Self(config.into())
    }
}

#[async_trait]
impl HttpClient for Sender {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (head, body) = request.into_parts();
        let answer = self.0.run(Request::from_parts(head, &body[..]))?;
        let (head, mut body) = answer.into_parts();
        let body = body.with_config().limit(LONGEST_ANSWER).read_to_vec()?;
        Ok(Response::from_parts(head, body.into()))
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(traces) = self.traces.take() {
            // Whoever collects may be gone before us.
            let _ = traces.shutdown_with_timeout(SEND);
        }
    }
}
