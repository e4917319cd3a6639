//! Logs, metrics, traces, access records, and the ports that show them.
//!
//! A worker records each request once, into cells and buffers of its own; everything
//! that formats, exports or answers runs on the control runtime. On the common path (no
//! access log, not sampled) a record costs a hash and a few unshared stores.
//!
//! # Flow
//!
//! 1. [`trace_context`]: a request's headers become the span of this hop, and headers
//!    for the next.
//! 2. [`request_id`]: `x-request-id`, kept or made.
//! 3. [`access`]: what one hop knows about one request when it ends.
//! 4. [`recorder`]: the worker's side; counts the record and batches it if wanted.
//! 5. [`metrics`]: cells that a scrape or an export sums; text formats.
//! 6. [`telemetry`]: owns the tasks; hands batches to the access log and to OTLP.
//! 7. [`access_log`]: the thread that writes lines.
//! 8. [`otlp`] and [`resource`]: spans, log records and metrics to a collector.
//! 9. [`health`], [`admin`]: the metrics, health and admin ports, on [`server`].
//! 10. [`logs`]: the log of the process itself.
//! 11. [`escape`] and [`timestamp`]: how strangers' text and times are written.

mod trace_context;

mod request_id;

mod access;

mod recorder;

mod metrics;

mod telemetry;

mod access_log;

mod otlp;

mod resource;

mod health;

mod admin;

mod server;

mod logs;

mod escape;

mod timestamp;

#[cfg(test)]
mod testing;

pub use crate::access::{AccessFormat, AccessRecord, HopRole, Protocol, ResponseFlag};
pub use crate::access_log::{AccessLogOptions, AccessLogTarget};
pub use crate::admin::{AdminError, AdminRoutes, Query, serve_admin};
pub use crate::health::{Readiness, serve_health, serve_metrics};
pub use crate::logs::{Colour, LogError, LogFormat, LogOptions, init as init_logs};
pub use crate::metrics::{
    Collector, Counter, CounterFamily, ExpositionFormat, Gauge, GaugeFamily, Histogram,
    MetricFamily, MetricKind, MetricsRegistry, Point, PointValue, render_metrics,
};
pub use crate::otlp::{OtlpError, OtlpOptions};
pub use crate::recorder::{AccessLogMode, FLUSH_INTERVAL, Recorder, RecorderSeed};
pub use crate::request_id::{REQUEST_ID, ensure_request_id, kept_request_id, make_request_id};
pub use crate::resource::Resource;
pub use crate::server::{ControlServer, ServeError};
pub use crate::telemetry::{Flush, Telemetry, TelemetryError, TelemetryOptions};
pub use crate::trace_context::{
    IdSource, IncomingTrace, ParentSpan, Sampler, Sampling, SamplingHint, SpanId, SpanRef,
    TRACEPARENT_BYTES, TraceContext, TraceId,
};
