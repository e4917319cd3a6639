//! Export by OTLP over gRPC: spans, access records as logs, and metrics.
//!
//! Each signal has its own bounded queue and its own task, so a collector that is slow
//! for one does not hold up the others, and none of them holds up a worker: what does
//! not fit is dropped and counted. An export that fails for a reason that may pass is
//! tried again with growing pauses, then dropped and counted.
//!
//! The generated OTLP types are used directly. The OpenTelemetry SDK would add its own
//! batching, ids and context propagation to what the recorders have already done.
//!
//! Spec: OpenTelemetry Protocol 1.x, "OTLP/gRPC Response" (which codes may be retried).

mod convert;
mod measure;
mod pipeline;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};

use crate::access::Batch;
use crate::metrics::{CounterFamily, MetricsRegistry};
use crate::otlp::pipeline::{Chunk, Counts, Logs, Pipeline, Spans};
use crate::resource::Resource;

/// Where and what to export.
#[derive(Debug, Clone)]
pub struct OtlpOptions {
    /// The collector, for example `http://127.0.0.1:4317`.
    pub endpoint: String,
    /// Whether sampled spans are exported.
    pub traces: bool,
    /// Whether access records are exported as log records: those that the access log's
    /// mode selects, so none when it is off.
    pub logs: bool,
    /// Whether metrics are exported.
    pub metrics: bool,
    /// Time between two exports of the metrics. Default: 15 s.
    pub metrics_interval: Duration,
}

impl OtlpOptions {
    /// All signals to this endpoint.
    pub fn new(endpoint: &str) -> Self {
        Self {
            endpoint: endpoint.to_owned(),
            traces: true,
            logs: true,
            metrics: true,
            metrics_interval: METRICS_INTERVAL_DEFAULT,
        }
    }
}

/// An endpoint that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OtlpError {
    /// The endpoint is not a URI.
    #[error("otlp endpoint {endpoint:?} is not a URI")]
    Endpoint {
        /// The endpoint as given.
        endpoint: String,
        /// What is wrong with it.
        source: tonic::transport::Error,
    },
    /// The endpoint is not plain HTTP.
    #[error("otlp endpoint {endpoint:?} must begin with http://; TLS comes from the mesh")]
    Scheme {
        /// The endpoint as given.
        endpoint: String,
    },
}

/// The queues into the exporting tasks.
#[derive(Debug)]
pub(crate) struct Exporter {
    spans: Option<mpsc::Sender<Chunk<Spans>>>,
    logs: Option<mpsc::Sender<Chunk<Logs>>>,
    dropped: CounterFamily,
}

impl Exporter {
    /// Starts the tasks of the signals that are wanted; they end when the exporter is
    /// dropped and their queues are empty, and stop pausing once `closing` is true.
    ///
    /// # Errors
    ///
    /// [`OtlpError`] when the endpoint cannot be used. A collector that is down is none.
    pub(crate) fn start(
        options: &OtlpOptions,
        from: ExportFrom<'_>,
        tasks: &mut JoinSet<()>,
        closing: &watch::Receiver<bool>,
    ) -> Result<Self, OtlpError> {
        let channel = connect(&options.endpoint)?;
        let counts = Counts::register(from.registry);
        let dropped = counts.dropped.clone();
        let mut exporter = Self { spans: None, logs: None, dropped };
        if options.traces {
            let (sender, queue) = mpsc::channel(QUEUE_CHUNKS_MAX);
            let client = Spans(TraceServiceClient::new(channel.clone()));
            let pipeline = Pipeline::new(client, queue, &counts, closing.clone());
            tasks.spawn(pipeline.run());
            exporter.spans = Some(sender);
        }
        if options.logs {
            let (sender, queue) = mpsc::channel(QUEUE_CHUNKS_MAX);
            let client = Logs(LogsServiceClient::new(channel.clone()));
            let pipeline = Pipeline::new(client, queue, &counts, closing.clone());
            tasks.spawn(pipeline.run());
            exporter.logs = Some(sender);
        }
        if options.metrics {
            let client = MetricsServiceClient::new(channel);
            let measure = measure::Measure {
                client,
                registry: from.registry.clone(),
                resource: Arc::clone(from.resource),
                since: from.since,
                counts,
                interval: options.metrics_interval.max(METRICS_INTERVAL_MIN),
            };
            tasks.spawn(measure.run(closing.clone()));
        }
        Ok(exporter)
    }

    /// Queues the spans and log records of a batch; never waits.
    pub(crate) fn offer(&self, batch: &Batch) {
        if let Some(queue) = &self.spans {
            let sampled = |record: &crate::AccessRecord<'_>| record.span.is_some_and(|s| s.sampled);
            let spans: Vec<_> = batch
                .iter()
                .filter(|(record, _)| sampled(record))
                .filter_map(|(record, _)| convert::span(&record))
                .collect();
            self.queue(queue, Chunk::new(batch.resource(), spans), "traces");
        }
        if let Some(queue) = &self.logs {
            let logs: Vec<_> =
                batch.iter().filter(|(_, log)| *log).map(|(r, _)| convert::log(&r)).collect();
            self.queue(queue, Chunk::new(batch.resource(), logs), "logs");
        }
    }

    fn queue<S: pipeline::Signal>(
        &self,
        queue: &mpsc::Sender<Chunk<S>>,
        chunk: Chunk<S>,
        signal: &'static str,
    ) {
        let count = chunk.len() as u64;
        if count > 0 && queue.try_send(chunk).is_err() {
            self.dropped.with(&[signal, "queue_full"]).add(count);
        }
    }
}

/// What metrics are exported from, and for whom.
#[derive(Debug)]
pub(crate) struct ExportFrom<'a> {
    /// Everything that is counted.
    pub(crate) registry: &'a MetricsRegistry,
    /// Who reports the metrics.
    pub(crate) resource: &'a Arc<Resource>,
    /// When counting began.
    pub(crate) since: SystemTime,
}

fn connect(endpoint: &str) -> Result<Channel, OtlpError> {
    if !endpoint.starts_with("http://") {
        return Err(OtlpError::Scheme { endpoint: endpoint.to_owned() });
    }
    let parsed = Endpoint::from_shared(endpoint.to_owned())
        .map_err(|source| OtlpError::Endpoint { endpoint: endpoint.to_owned(), source })?;
    // Lazy: the collector may come later than we do, and may go and come again.
    Ok(parsed.connect_timeout(CONNECT_TIMEOUT).timeout(EXPORT_TIMEOUT).connect_lazy())
}

/// Chunks (of at most one recorder batch) that wait for one signal.
const QUEUE_CHUNKS_MAX: usize = 64;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);
const METRICS_INTERVAL_DEFAULT: Duration = Duration::from_secs(15);
const METRICS_INTERVAL_MIN: Duration = Duration::from_millis(100);
