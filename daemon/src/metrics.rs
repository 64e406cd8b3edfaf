//! Counters, as Prometheus reads them: `GET /metrics`.

use std::sync::atomic::AtomicU64;

use fastmig_api::operation::{Operation, State};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{exponential_buckets, Histogram};
use prometheus_client::registry::{Registry, Unit};
use serde_json::Value;

type Labels<const N: usize> = [(&'static str, String); N];

/// What the daemon counts.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    operations: Family<Labels<2>, Counter>,
    operation_time: Family<Labels<1>, Histogram>,
    running: Gauge,
    requests: Family<Labels<2>, Counter>,
    refused: Family<Labels<1>, Counter>,
    containers: Family<Labels<1>, Gauge>,
    decisions: Family<Labels<1>, Counter>,
    periodic: Family<Labels<1>, Counter>,
    periodic_bytes: Gauge,
    cpu: Family<Labels<1>, Counter<f64, AtomicU64>>,
    io: Family<Labels<2>, Counter>,
    memory_peak: Family<Labels<1>, Gauge>,
    pause: Family<Labels<1>, Histogram>,
    migration_bytes: Family<Labels<1>, Counter>,
    frozen_time: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("fastmig"),
            operations: Family::default(),
            operation_time: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.01, 2.0, 16))
            }),
            running: Gauge::default(),
            requests: Family::default(),
            refused: Family::default(),
            containers: Family::default(),
            decisions: Family::default(),
            periodic: Family::default(),
            periodic_bytes: Gauge::default(),
            cpu: Family::default(),
            io: Family::default(),
            memory_peak: Family::default(),
            pause: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.005, 2.0, 14))),
            migration_bytes: Family::default(),
            frozen_time: Histogram::new(exponential_buckets(0.005, 2.0, 14)),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let version = Family::<Labels<1>, Gauge>::default();
        version.get_or_create(&[("version", env!("CARGO_PKG_VERSION").into())]).set(1);
        let registry = &mut self.registry;
        registry.register("daemon", "The daemon's version", version);
        registry.register("operations", "Operations that ended, by kind and state", self.operations.clone());
        registry.register_with_unit(
            "operation",
            "How long they took",
            Unit::Seconds,
            self.operation_time.clone(),
        );
        registry.register("operations_running", "Operations at work", self.running.clone());
        registry.register("http_requests", "Calls, by endpoint and status", self.requests.clone());
        registry.register("connections_refused", "Connections not served, by reason", self.refused.clone());
        registry.register(
            "containers",
            "Containers, by what their application does",
            self.containers.clone(),
        );
        registry.register(
            "policy_decisions",
            "Decisions about applications that have ended, by action",
            self.decisions.clone(),
        );
        registry.register(
            "periodic_checkpoints",
            "Checkpoints that nobody asked for, by result",
            self.periodic.clone(),
        );
        let help = "What they take of the disk";
        registry.register_with_unit(
            "periodic_checkpoints_disk",
            help,
            Unit::Bytes,
            self.periodic_bytes.clone(),
        );
        registry.register_with_unit(
            "operation_cpu",
            "Processor time of operations that succeeded, CRIU's and the daemon's",
            Unit::Seconds,
            self.cpu.clone(),
        );
        registry.register_with_unit(
            "operation_io",
            "What they read from disks and wrote to them",
            Unit::Bytes,
            self.io.clone(),
        );
        registry.register_with_unit(
            "operation_memory_peak",
            "The most memory that a process of CRIU's had in the last one",
            Unit::Bytes,
            self.memory_peak.clone(),
        );
        registry.register_with_unit(
            "operation_pause",
            "How long the application stood still for them",
            Unit::Seconds,
            self.pause.clone(),
        );
        registry.register_with_unit(
            "migration",
            "What migrations from here carried: raw, wire, zero",
            Unit::Bytes,
            self.migration_bytes.clone(),
        );
        let help = "How long applications that left stood still";
        registry.register_with_unit("migration_frozen", help, Unit::Seconds, self.frozen_time.clone());
    }

    /// An operation ended.
    pub fn operation(&self, operation: &Operation) {
        let kind = operation.kind.to_string();
        let state = match operation.state {
            State::Running => "running",
            State::Done => "done",
            State::Failed => "failed",
            State::Cancelled => "cancelled",
        };
        self.operation_time.get_or_create(&[("kind", kind.clone())]).observe(seconds(operation.took_ms));
        self.operations.get_or_create(&[("kind", kind), ("state", state.into())]).inc();
        let Some(report) = &operation.migration else { return };
        for (name, bytes) in
            [("raw", report.bytes.raw), ("wire", report.bytes.wire), ("zero", report.bytes.zero)]
        {
            self.migration_bytes.get_or_create(&[("count", name.into())]).inc_by(bytes);
        }
        if let Some(frozen) = report.frozen_ms {
            self.frozen_time.observe(seconds(frozen));
        }
    }

    /// An operation succeeded, and reports what it took.
    pub fn took(&self, kind: &str, report: &Value) {
        let label = || [("kind", kind.to_owned())];
        // A restore is a pause as a whole.
        let paused = report["frozen_ms"].as_u64().or_else(|| report["restore_ms"].as_u64());
        if let Some(ms) = paused {
            self.pause.get_or_create(&label()).observe(seconds(ms));
        }
        let resources = &report["resources"];
        let number = |name: &str| resources[name].as_u64().unwrap_or(0);
        if resources.is_null() {
            return;
        }
        self.cpu.get_or_create(&label()).inc_by(seconds(number("cpu_ms")));
        let peak = i64::try_from(number("memory_peak_bytes")).unwrap_or(i64::MAX);
        self.memory_peak.get_or_create(&label()).set(peak);
        for (direction, name) in [("read", "read_bytes"), ("written", "written_bytes")] {
            let labels = [("kind", kind.to_owned()), ("direction", direction.to_owned())];
            self.io.get_or_create(&labels).inc_by(number(name));
        }
    }

    /// A call was answered.
    pub fn request(&self, endpoint: &str, status: u16) {
        self.requests.get_or_create(&[("endpoint", endpoint.into()), ("status", status.to_string())]).inc();
    }

    /// A container's policy has decided.
    pub fn decided(&self, action: &str) {
        self.decisions.get_or_create(&[("action", action.into())]).inc();
    }

    /// A periodic checkpoint was taken, or failed.
    pub fn periodic(&self, done: bool) {
        let result = if done { "done" } else { "failed" };
        self.periodic.get_or_create(&[("result", result.into())]).inc();
    }

    /// What the periodic checkpoints take of the disk.
    pub fn periodic_bytes(&self, bytes: u64) {
        self.periodic_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// A connection was not served.
    pub fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&[("reason", reason.into())]).inc();
    }

    /// All of it as text; `running` operations, and `containers` by what their application does, are as of now.
    #[must_use]
    pub fn text(&self, running: usize, containers: &[(String, usize)]) -> String {
        self.running.set(i64::try_from(running).unwrap_or(i64::MAX));
        self.containers.clear();
        for (application, number) in containers {
            let number = i64::try_from(*number).unwrap_or(i64::MAX);
            self.containers.get_or_create(&[("application", application.clone())]).set(number);
        }
        let mut text = String::new();
        // Writing into a string cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

#[allow(clippy::cast_precision_loss, reason = "a histogram has buckets of milliseconds and more")]
fn seconds(milliseconds: u64) -> f64 {
    milliseconds as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_shown() {
        let metrics = Metrics::default();
        metrics.request("containers", 200);
        metrics.refused("certificate");
        metrics.decided("scratch");
        let taken = serde_json::json!({ "cpu_ms": 1500, "memory_peak_bytes": 7, "read_bytes": 1, "written_bytes": 2 });
        metrics.took("checkpoint", &serde_json::json!({ "frozen_ms": 4, "resources": taken }));
        let text = metrics.text(3, &[("running".into(), 2)]);
        for line in [
            "fastmig_operations_running 3",
            r#"fastmig_http_requests_total{endpoint="containers",status="200"} 1"#,
            r#"fastmig_connections_refused_total{reason="certificate"} 1"#,
            r#"fastmig_containers{application="running"} 2"#,
            r#"fastmig_policy_decisions_total{action="scratch"} 1"#,
            r#"fastmig_operation_cpu_seconds_total{kind="checkpoint"} 1.5"#,
            r#"fastmig_operation_memory_peak_bytes{kind="checkpoint"} 7"#,
            r#"fastmig_operation_io_bytes_total{kind="checkpoint",direction="written"} 2"#,
            r#"fastmig_operation_pause_seconds_count{kind="checkpoint"} 1"#,
            "# EOF",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }
}
