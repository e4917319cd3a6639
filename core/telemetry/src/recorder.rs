//! The worker's side of telemetry: ids, sampling, metrics and record batches.
//!
//! A [`Recorder`] belongs to one worker thread. Recording a request bumps cells that
//! only this worker writes; a record leaves the worker only if the access log or a
//! sampled span wants it, in batches, through a bounded channel that never blocks.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use tokio::sync::mpsc;

use crate::access::{AccessRecord, Batch};
use crate::metrics::Counter;
use crate::metrics::requests::ShardWriter;
use crate::request_id::ensure_request_id;
use crate::resource::Resource;
use crate::trace_context::{IdSource, IncomingTrace, Sampler, TraceContext};

/// Which requests the access log has a line for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AccessLogMode {
    /// Every request and connection.
    All,
    /// Those with a response flag or a status of 500 and above.
    Failures,
    /// None.
    #[default]
    Off,
}

/// What a worker needs to record; moves to the worker's thread and becomes a
/// [`Recorder`] there.
#[derive(Debug)]
pub struct RecorderSeed {
    pub(crate) metrics: ShardWriter,
    pub(crate) ids: IdSource,
    pub(crate) sampler: Sampler,
    pub(crate) log: AccessLogMode,
    pub(crate) spans: bool,
    pub(crate) resource: Arc<Resource>,
    pub(crate) batches: mpsc::Sender<Batch>,
    pub(crate) dropped: Counter,
}

impl RecorderSeed {
    /// Says whether a caller's sampling decision comes before the ratio: yes for a hop
    /// inside the mesh, no for one that strangers call.
    #[must_use]
    pub fn with_respect_parent(mut self, respect: bool) -> Self {
        self.sampler = self.sampler.with_respect_parent(respect);
        self
    }

    /// The recorder of the calling worker.
    pub fn into_recorder(self) -> Recorder {
        Recorder { inner: Rc::new(RefCell::new(Inner { seed: self, pending: None })) }
    }
}

/// Records for one worker; clones share it.
#[derive(Clone)]
pub struct Recorder {
    inner: Rc<RefCell<Inner>>,
}

impl Recorder {
    /// Reads the trace context of a request and makes the span of this hop.
    pub fn begin_trace(&self, headers: &HeaderMap) -> TraceContext {
        self.begin_trace_from(IncomingTrace::from_headers(headers))
    }

    /// Makes the span of this hop below a context that did not come in headers.
    pub fn begin_trace_from(&self, incoming: IncomingTrace) -> TraceContext {
        let seed = &mut self.inner.borrow_mut().seed;
        TraceContext::continued(incoming, &mut seed.ids, &seed.sampler)
    }

    /// A span below `context` in this process, for example of a second hop.
    pub fn child_trace(&self, context: &TraceContext) -> TraceContext {
        context.child(&mut self.inner.borrow_mut().seed.ids)
    }

    /// Keeps or makes `x-request-id`, puts it into the headers and returns it.
    pub fn request_id(&self, headers: &mut HeaderMap) -> HeaderValue {
        ensure_request_id(headers, &mut self.inner.borrow_mut().seed.ids)
    }

    /// Counts a connection that begins (TCP, TLS passthrough, UDP flow).
    pub fn connection_opened(&self, record: &AccessRecord<'_>) {
        self.inner.borrow_mut().seed.metrics.opened(record);
    }

    /// Records a request or an ended connection, exactly once.
    pub fn record(&self, record: &AccessRecord<'_>) {
        self.inner.borrow_mut().record(record);
    }

    /// Exports the span of a connection that has been opened and goes on; its record comes
    /// when it ends, and must then have no span.
    pub fn opened_span(&self, record: &AccessRecord<'_>) {
        self.inner.borrow_mut().span(record);
    }

    /// Sends what is pending to the telemetry task.
    pub fn flush(&self) {
        self.inner.borrow_mut().flush();
    }

    /// Flushes every [`FLUSH_INTERVAL`] until dropped; the worker runs it as a task.
    pub async fn flush_periodically(self) {
        let mut interval = tokio::time::interval(FLUSH_INTERVAL);
        loop {
            interval.tick().await;
            self.flush();
        }
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").finish_non_exhaustive()
    }
}

struct Inner {
    seed: RecorderSeed,
    pending: Option<Batch>,
}

impl Inner {
    fn record(&mut self, record: &AccessRecord<'_>) {
        self.seed.metrics.record(record);
        let log = match self.seed.log {
            AccessLogMode::All => true,
            AccessLogMode::Failures => record.is_failure(),
            AccessLogMode::Off => false,
        };
        if log || self.wants_span(record) {
            self.keep(record, log);
        }
    }

    fn span(&mut self, record: &AccessRecord<'_>) {
        if self.wants_span(record) {
            self.keep(record, false);
        }
    }

    fn wants_span(&self, record: &AccessRecord<'_>) -> bool {
        self.seed.spans && record.span.is_some_and(|span| span.sampled)
    }

    fn keep(&mut self, record: &AccessRecord<'_>, log: bool) {
        let resource = &self.seed.resource;
        let batch =
            self.pending.get_or_insert_with(|| Batch::new(Arc::clone(resource), BATCH_RECORDS_MAX));
        batch.push(record, log);
        if batch.len() >= BATCH_RECORDS_MAX {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let Some(batch) = self.pending.take() else { return };
        if let Err(error) = self.seed.batches.try_send(batch) {
            let batch = match error {
                mpsc::error::TrySendError::Full(batch) => batch,
                mpsc::error::TrySendError::Closed(batch) => batch,
            };
            self.seed.dropped.add(batch.len() as u64);
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.flush();
    }
}

/// How long a record may wait on its worker.
pub const FLUSH_INTERVAL: Duration = Duration::from_millis(500);
/// Records of one batch.
const BATCH_RECORDS_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::access::{HopRole, Protocol};
    use crate::telemetry::{Telemetry, TelemetryOptions};

    /// The common path: nothing leaves the worker, whatever is recorded.
    #[tokio::test]
    async fn an_unsampled_request_with_the_log_off_stays_on_its_worker() {
        let options = TelemetryOptions::new(Resource::new("test"));
        let telemetry = Telemetry::start(options).unwrap();
        let recorder = telemetry.recorder().into_recorder();
        let context = recorder.begin_trace(&HeaderMap::new());
        let record = AccessRecord {
            status: 200,
            service: "cart",
            span: Some(context.span_ref()),
            ..AccessRecord::new(HopRole::Ingress, Protocol::Http1, UNIX_EPOCH)
        };
        for _ in 0..1000 {
            recorder.record(&record);
        }
        assert!(recorder.inner.borrow().pending.is_none());
    }
}
