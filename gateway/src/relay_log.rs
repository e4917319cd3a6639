//! The record of one relayed connection.
//!
//! The gateway sees connections and ciphertext, not requests: one record when the
//! connection ends, and one span, in the trace of the request that opened the connection,
//! as soon as it is open. The connection may live for hours; its trace must not wait.

use std::rc::Rc;
use std::time::{Instant, SystemTime};

use isthmus_hbone::{SpliceEnd, SpliceOutcome};
use isthmus_model::{ServiceKey, SpiffeId};
use isthmus_proxy::Worker;
use isthmus_runtime::clock;
use isthmus_telemetry::{AccessRecord, HopRole, Protocol, ResponseFlag, SpanRef};

/// What is known of a relayed connection.
pub(crate) struct RelayLog {
    worker: Rc<Worker>,
    started: Instant,
    wall: SystemTime,
    pub(crate) service: ServiceKey,
    pub(crate) endpoint: String,
    pub(crate) source_cluster: String,
    pub(crate) source_identity: Option<SpiffeId>,
    pub(crate) destination_cluster: String,
    pub(crate) span: Option<SpanRef>,
}

impl RelayLog {
    pub(crate) fn begin(worker: &Rc<Worker>, service: ServiceKey) -> Self {
        Self {
            worker: Rc::clone(worker),
            started: clock::now(),
            wall: clock::wall(),
            service,
            endpoint: String::new(),
            source_cluster: String::new(),
            source_identity: None,
            destination_cluster: String::new(),
            span: None,
        }
    }

    /// Exports the span of a connection that is open now.
    pub(crate) fn opened(&mut self) {
        if let Some(span) = self.span.take() {
            let record =
                AccessRecord { span: Some(span), ..self.record_of(ResponseFlag::None, "") };
            self.worker.recorder().opened_span(&record);
        }
    }

    /// Records a connection that was carried.
    pub(crate) fn ended(self, outcome: &SpliceOutcome) {
        let flag = match outcome.end {
            SpliceEnd::Complete | SpliceEnd::Idle => ResponseFlag::None,
            SpliceEnd::Failed { .. } => ResponseFlag::UpstreamReset,
        };
        self.record(flag, "", (outcome.a_to_b, outcome.b_to_a));
    }

    /// Records a connection that was not carried.
    pub(crate) fn refused(self, flag: ResponseFlag, detail: &str) {
        self.record(flag, detail, (0, 0));
    }

    fn record(self, flag: ResponseFlag, detail: &str, (received, sent): (u64, u64)) {
        self.worker.record(&AccessRecord {
            bytes_received: received,
            bytes_sent: sent,
            ..self.record_of(flag, detail)
        });
    }

    fn record_of<'r>(&'r self, flag: ResponseFlag, detail: &'r str) -> AccessRecord<'r> {
        let identity = self.source_identity.as_ref();
        AccessRecord {
            duration: clock::now().saturating_duration_since(self.started),
            service: self.service.name.as_str(),
            namespace: self.service.namespace.as_str(),
            endpoint: &self.endpoint,
            source_cluster: &self.source_cluster,
            source_identity: identity.map_or("", |id| id.as_str()),
            destination_cluster: &self.destination_cluster,
            flag,
            detail,
            attempts: 1,
            span: self.span,
            ..AccessRecord::new(HopRole::EastWest, Protocol::Tcp, self.wall)
        }
    }
}
