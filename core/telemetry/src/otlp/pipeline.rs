//! One signal on its way to the collector: queue, export, retry.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use tokio::sync::{mpsc, watch};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::metrics::{CounterFamily, MetricsRegistry};
use crate::otlp::convert;
use crate::resource::Resource;

/// A kind of data and the client that exports it.
pub(crate) trait Signal: Send + 'static {
    /// One span or one log record.
    type Item: Clone + Send + Sync + 'static;
    /// Label of the metrics about this signal.
    const NAME: &'static str;

    /// Sends the chunks in one request; gives how many items the collector refused.
    fn export(
        &mut self,
        chunks: &[Chunk<Self>],
    ) -> impl Future<Output = Result<u64, Status>> + Send
    where
        Self: Sized;
}

/// Items of one resource.
#[derive(Debug)]
pub(crate) struct Chunk<S: Signal> {
    resource: Arc<Resource>,
    items: Vec<S::Item>,
}

impl<S: Signal> Chunk<S> {
    pub(crate) fn new(resource: &Arc<Resource>, items: Vec<S::Item>) -> Self {
        Self { resource: Arc::clone(resource), items }
    }

    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }
}

/// Spans, to the trace service.
#[derive(Debug)]
pub(crate) struct Spans(pub(crate) TraceServiceClient<Channel>);

impl Signal for Spans {
    type Item = Span;
    const NAME: &'static str = "traces";

    async fn export(&mut self, chunks: &[Chunk<Self>]) -> Result<u64, Status> {
        let resource_spans = chunks.iter().map(|chunk| ResourceSpans {
            resource: Some(convert::resource(&chunk.resource)),
            scope_spans: vec![ScopeSpans {
                scope: Some(convert::scope()),
                spans: chunk.items.clone(),
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        });
        let request = ExportTraceServiceRequest { resource_spans: resource_spans.collect() };
        let answer = self.0.export(request).await?.into_inner();
        Ok(refused(answer.partial_success.map(|partial| partial.rejected_spans)))
    }
}

/// Access records, to the logs service.
#[derive(Debug)]
pub(crate) struct Logs(pub(crate) LogsServiceClient<Channel>);

impl Signal for Logs {
    type Item = LogRecord;
    const NAME: &'static str = "logs";

    async fn export(&mut self, chunks: &[Chunk<Self>]) -> Result<u64, Status> {
        let resource_logs = chunks.iter().map(|chunk| ResourceLogs {
            resource: Some(convert::resource(&chunk.resource)),
            scope_logs: vec![ScopeLogs {
                scope: Some(convert::scope()),
                log_records: chunk.items.clone(),
                ..ScopeLogs::default()
            }],
            ..ResourceLogs::default()
        });
        let request = ExportLogsServiceRequest { resource_logs: resource_logs.collect() };
        let answer = self.0.export(request).await?.into_inner();
        Ok(refused(answer.partial_success.map(|partial| partial.rejected_log_records)))
    }
}

/// What is counted about exports.
#[derive(Debug, Clone)]
pub(crate) struct Counts {
    pub(crate) exported: CounterFamily,
    pub(crate) dropped: CounterFamily,
}

impl Counts {
    pub(crate) fn register(registry: &MetricsRegistry) -> Self {
        Self {
            exported: registry.counter_family(
                "isthmus_otlp_exported_items_total",
                "Spans, log records and metric points that the collector took",
                &["signal"],
            ),
            dropped: registry.counter_family(
                "isthmus_otlp_dropped_items_total",
                "Spans, log records and metric points that did not reach the collector",
                &["signal", "reason"],
            ),
        }
    }
}

/// The task of one signal.
#[derive(Debug)]
pub(crate) struct Pipeline<S: Signal> {
    signal: S,
    queue: mpsc::Receiver<Chunk<S>>,
    counts: Counts,
    closing: watch::Receiver<bool>,
    failing: bool,
    gave_up: bool,
}

impl<S: Signal + Sync> Pipeline<S>
where
    S::Item: std::fmt::Debug,
{
    pub(crate) fn new(
        signal: S,
        queue: mpsc::Receiver<Chunk<S>>,
        counts: &Counts,
        closing: watch::Receiver<bool>,
    ) -> Self {
        Self { signal, queue, counts: counts.clone(), closing, failing: false, gave_up: false }
    }

    /// Exports until the queue is closed and empty.
    pub(crate) async fn run(mut self) {
        let mut chunks = Vec::with_capacity(EXPORT_CHUNKS_MAX);
        while self.queue.recv_many(&mut chunks, EXPORT_CHUNKS_MAX).await > 0 {
            self.deliver(&chunks).await;
            chunks.clear();
        }
    }

    async fn deliver(&mut self, chunks: &[Chunk<S>]) {
        let count: u64 = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        let mut pause = RETRY_PAUSE_MIN;
        let mut left = EXPORT_ATTEMPTS_MAX;
        loop {
            let closing = *self.closing.borrow();
            if closing {
                // A collector that is down must not use up the deadline of the shutdown.
                left = left.min(if self.gave_up { 1 } else { EXPORT_ATTEMPTS_CLOSING });
                pause = RETRY_PAUSE_CLOSING;
            }
            match self.signal.export(chunks).await {
                Ok(refused) => return self.delivered(count, refused.min(count)),
                Err(status) => {
                    self.note_failure(&status);
                    left = left.saturating_sub(1);
                    if left == 0 || !may_retry(status.code()) {
                        self.gave_up = true;
                        self.counts.dropped.with(&[S::NAME, "export_failed"]).add(count);
                        return;
                    }
                }
            }
            self.pause(pause, closing).await;
            pause = (pause * 2).min(RETRY_PAUSE_MAX);
        }
    }

    /// Waits; a shutdown that begins meanwhile ends the wait.
    async fn pause(&mut self, pause: Duration, closing: bool) {
        let begins = async {
            // An error means that the owner is gone, which is a shutdown as well.
            let _ = self.closing.wait_for(|now| *now && !closing).await;
        };
        let _ = tokio::time::timeout(pause, begins).await;
    }

    fn delivered(&mut self, count: u64, refused: u64) {
        self.counts.exported.with(&[S::NAME]).add(count - refused);
        if refused > 0 {
            self.counts.dropped.with(&[S::NAME, "refused"]).add(refused);
        }
        self.gave_up = false;
        if std::mem::take(&mut self.failing) {
            tracing::info!(signal = S::NAME, "the telemetry collector takes data again");
        }
    }

    /// Only a change of state is worth a line.
    fn note_failure(&mut self, status: &Status) {
        if !std::mem::replace(&mut self.failing, true) {
            let (code, message) = (status.code(), status.message());
            tracing::warn!(signal = S::NAME, ?code, message, "cannot export telemetry");
        }
    }
}

/// Spec: OTLP/gRPC, "Failures": the codes that a client should retry.
pub(crate) fn may_retry(code: Code) -> bool {
    matches!(
        code,
        Code::Cancelled
            | Code::DeadlineExceeded
            | Code::ResourceExhausted
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unavailable
            | Code::DataLoss
    )
}

fn refused(count: Option<i64>) -> u64 {
    count.map_or(0, |count| u64::try_from(count).unwrap_or(0))
}

/// Chunks of one request to the collector.
const EXPORT_CHUNKS_MAX: usize = 8;
/// With the pauses below, a chunk is given up after about half a minute.
const EXPORT_ATTEMPTS_MAX: u32 = 6;
/// During a shutdown, while the collector has not failed for good.
const EXPORT_ATTEMPTS_CLOSING: u32 = 3;
const RETRY_PAUSE_CLOSING: Duration = Duration::from_millis(200);
const RETRY_PAUSE_MIN: Duration = Duration::from_secs(1);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(16);
