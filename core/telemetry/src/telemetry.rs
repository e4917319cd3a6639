//! The telemetry of a process: owns the registry, the tasks and their shutdown.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::access::Batch;
use crate::access_log::{AccessLog, AccessLogOptions};
use crate::metrics::requests::RequestMetrics;
use crate::metrics::{Counter, MetricFamily, MetricKind, MetricsRegistry, PointValue};
use crate::otlp::{ExportFrom, Exporter, OtlpError, OtlpOptions};
use crate::recorder::{AccessLogMode, RecorderSeed};
use crate::resource::Resource;
use crate::trace_context::{IdSource, Sampler};

/// What a process reports, and where to.
#[derive(Debug, Clone)]
pub struct TelemetryOptions {
    /// Who reports; metrics are exported under it, and records unless a recorder has
    /// its own.
    pub resource: Resource,
    /// The access log.
    pub access_log: AccessLogOptions,
    /// The share of traces that are sampled, 0.0 to 1.0. Default: 0.01.
    pub sampling_ratio: f64,
    /// Whether a caller's sampling decision comes before the ratio. Right inside the
    /// mesh, wrong where strangers call; a recorder may differ. Default: false.
    pub respect_parent: bool,
    /// Where to export to. Default: nowhere.
    pub otlp: Option<OtlpOptions>,
    /// Series of request metrics of one worker; what is above is counted as `other`.
    /// Default: 4096.
    pub series_max: usize,
    /// What ids are made from. Default: random for each process.
    pub seed: [u8; 32],
}

impl TelemetryOptions {
    /// Metrics only: no access log, no export.
    pub fn new(resource: Resource) -> Self {
        Self {
            resource,
            access_log: AccessLogOptions::default(),
            sampling_ratio: SAMPLING_RATIO_DEFAULT,
            respect_parent: false,
            otlp: None,
            series_max: SERIES_MAX_DEFAULT,
            seed: random_seed(),
        }
    }
}

/// Telemetry that could not be started.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The target of the access log cannot be opened.
    #[error("cannot open the access log")]
    AccessLog {
        /// What the system said.
        source: io::Error,
    },
    /// The collector's endpoint cannot be used.
    #[error("cannot set up the export by OTLP")]
    Otlp {
        /// What is wrong with it.
        source: OtlpError,
    },
}

/// The telemetry of a process; dropping it ends its tasks at once.
#[derive(Debug)]
pub struct Telemetry {
    registry: MetricsRegistry,
    requests: Arc<RequestMetrics>,
    resource: Arc<Resource>,
    options: RecorderOptions,
    recorders: AtomicU64,
    batches: mpsc::Sender<Batch>,
    dropped: Counter,
    tasks: JoinSet<()>,
    closing: watch::Sender<bool>,
    written: Option<oneshot::Receiver<()>>,
}

impl Telemetry {
    /// Starts the tasks on the calling (control) runtime.
    ///
    /// # Errors
    ///
    /// [`TelemetryError`] when the access log or the endpoint cannot be used.
    pub fn start(options: TelemetryOptions) -> Result<Self, TelemetryError> {
        let registry = MetricsRegistry::new();
        let requests = Arc::new(RequestMetrics::default());
        registry.collector(Arc::clone(&requests));
        registry.collector(build_info);
        let since = isthmus_runtime::clock::wall();
        let started =
            registry.gauge("process_start_time_seconds", "Start of the process, Unix time");
        started.set(crate::timestamp::unix_nanos(since) as f64 / 1e9);
        let help = "Access records and spans that found the telemetry task busy";
        let dropped = registry.counter("isthmus_telemetry_dropped_records_total", help);

        let resource = Arc::new(options.resource);
        let mut tasks = JoinSet::new();
        let closing = watch::Sender::new(false);
        let log = AccessLog::start(&options.access_log, &registry)
            .map_err(|source| TelemetryError::AccessLog { source })?;
        let (log, written) = log.unzip();
        let from = ExportFrom { registry: &registry, resource: &resource, since };
        let exporter = match &options.otlp {
            Some(otlp) => Some(
                Exporter::start(otlp, from, &mut tasks, &closing.subscribe())
                    .map_err(|source| TelemetryError::Otlp { source })?,
            ),
            None => None,
        };
        let wants_logs = log.is_some() || options.otlp.as_ref().is_some_and(|otlp| otlp.logs);
        let recorders = RecorderOptions {
            log: if wants_logs { options.access_log.mode } else { AccessLogMode::Off },
            spans: options.otlp.as_ref().is_some_and(|otlp| otlp.traces),
            sampler: Sampler::new(options.sampling_ratio, options.respect_parent),
            series_max: options.series_max,
            seed: options.seed,
        };
        let (batches, queue) = mpsc::channel(QUEUE_BATCHES_MAX);
        let outputs = Outputs { log, exporter };
        tasks.spawn(distribute(queue, outputs, closing.subscribe()));
        Ok(Self {
            registry,
            requests,
            resource,
            options: recorders,
            recorders: AtomicU64::new(0),
            batches,
            dropped,
            tasks,
            closing,
            written,
        })
    }

    /// Where other crates register what they count.
    pub fn registry(&self) -> &MetricsRegistry {
        &self.registry
    }

    /// What one worker records with, under the process's own resource.
    ///
    /// Made once for each worker and role: what it counted stays until the process ends.
    pub fn recorder(&self) -> RecorderSeed {
        self.recorder_for(Arc::clone(&self.resource))
    }

    /// What one worker records with, under a resource of its own, for a process that
    /// has several roles.
    pub fn recorder_for(&self, resource: Arc<Resource>) -> RecorderSeed {
        let options = &self.options;
        let index = self.recorders.fetch_add(1, Ordering::Relaxed);
        let mut ids = IdSource::for_worker(options.seed, index);
        let hash_seed = ids.random() as u64;
        RecorderSeed {
            metrics: self.requests.writer(options.series_max, hash_seed),
            ids,
            sampler: options.sampler,
            log: options.log,
            spans: options.spans,
            resource,
            batches: self.batches.clone(),
            dropped: self.dropped.clone(),
        }
    }

    /// Exports what has arrived, and ends; `deadline` bounds all of it.
    ///
    /// Recorders flush when they are dropped, so the workers are joined before.
    pub async fn shutdown(mut self, deadline: Duration) -> Flush {
        self.closing.send_replace(true);
        let all = async {
            while let Some(ended) = self.tasks.join_next().await {
                if let Err(error) = ended {
                    tracing::error!(%error, "a telemetry task failed");
                }
            }
            if let Some(written) = self.written.take() {
                // An error means that the thread is gone, which is an end as well.
                let _ = written.await;
            }
        };
        match tokio::time::timeout(deadline, all).await {
            Ok(()) => Flush::Complete,
            Err(_) => Flush::Cut,
        }
    }
}

/// How a shutdown ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flush {
    /// Everything was handed on (or dropped and counted).
    Complete,
    /// The deadline came first.
    Cut,
}

#[derive(Debug)]
struct RecorderOptions {
    log: AccessLogMode,
    spans: bool,
    sampler: Sampler,
    series_max: usize,
    seed: [u8; 32],
}

#[derive(Debug)]
struct Outputs {
    log: Option<AccessLog>,
    exporter: Option<Exporter>,
}

/// Hands batches to the access log and the exporter until closing, then what is left.
async fn distribute(
    mut queue: mpsc::Receiver<Batch>,
    outputs: Outputs,
    mut closing: watch::Receiver<bool>,
) {
    let mut open = true;
    loop {
        let batch = tokio::select! {
            // Closing first: once it is seen, the queue takes nothing more and what it
            // still holds is drained by the other arm.
            biased;
            _ = closing.wait_for(|closing| *closing), if open => {
                open = false;
                queue.close();
                continue;
            }
            batch = queue.recv() => batch,
        };
        let Some(batch) = batch else { return };
        if let Some(log) = &outputs.log {
            log.offer(&batch);
        }
        if let Some(exporter) = &outputs.exporter {
            exporter.offer(&batch);
        }
    }
}

fn build_info(out: &mut Vec<MetricFamily>) {
    let family = MetricFamily::new(
        "isthmus_build_info",
        "Always 1; the labels say what runs",
        MetricKind::Gauge,
    );
    out.push(family.with(&[("version", env!("CARGO_PKG_VERSION"))], PointValue::Gauge(1.0)));
}

/// A seed from the system's randomness, by way of the standard library's hash keys.
///
/// Good for ids, which must be unique; not for keys, which must be secret.
fn random_seed() -> [u8; 32] {
    let mut seed = [0; 32];
    for (index, word) in seed.chunks_exact_mut(8).enumerate() {
        let state = RandomState::new();
        word.copy_from_slice(&state.hash_one(index).to_le_bytes());
    }
    seed
}

/// Batches that wait for the telemetry task, over all workers.
const QUEUE_BATCHES_MAX: usize = 64;
const SERIES_MAX_DEFAULT: usize = 4096;
const SAMPLING_RATIO_DEFAULT: f64 = 0.01;

#[cfg(test)]
mod tests;
