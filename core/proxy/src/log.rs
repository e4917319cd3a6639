//! The record of one request, written once: when the answer has ended, or when whatever
//! held it is dropped.
//!
//! It holds what the record needs by worker-local handles (the pinned snapshot, the
//! picked endpoint), so that a request touches no counter of another worker.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Instant, SystemTime};

use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use hyper::client::conn::http1;
use isthmus_model::{EndpointTarget, Snapshot};
use isthmus_runtime::{Pin, clock};
use isthmus_telemetry::{AccessRecord, HopRole, Protocol, ResponseFlag, SpanRef};

use crate::balancer::Picked;
use crate::body::{RequestBody, RequestProgress};
use crate::outlier::Outcome;
use crate::upstream_tls::UpstreamTls;
use crate::watch::ActiveRequest;
use crate::worker::Worker;

/// What is known of a request so far.
#[derive(Debug)]
pub(crate) struct RequestLog {
    pub(crate) worker: Rc<Worker>,
    pub(crate) pin: Pin<Snapshot>,
    pub(crate) role: HopRole,
    pub(crate) protocol: Protocol,
    pub(crate) started: Instant,
    pub(crate) started_wall: SystemTime,
    pub(crate) method: Method,
    pub(crate) host: String,
    pub(crate) uri: Uri,
    pub(crate) request_id: HeaderValue,
    pub(crate) span: Option<SpanRef>,
    pub(crate) client: Option<SocketAddr>,
    pub(crate) source_identity: Rc<str>,
    pub(crate) progress: Rc<RequestProgress>,
    pub(crate) route: Option<u32>,
    pub(crate) picked: Option<Picked>,
    /// The TLS that plain endpoints are spoken to with.
    pub(crate) tls: Option<UpstreamTls>,
    pub(crate) status: u16,
    pub(crate) flag: ResponseFlag,
    pub(crate) detail: String,
    pub(crate) attempts: u32,
    /// Whether the answer is the endpoint's; our own say nothing of it.
    pub(crate) from_upstream: bool,
    /// Whether the outcome has been noted for the endpoint already.
    pub(crate) is_noted: bool,
    bytes_sent: Cell<u64>,
    grpc: Option<u16>,
    /// Keeps the client's connection from being idle.
    _active: ActiveRequest,
    /// Whether the answer reached its end.
    completed: bool,
    broken: bool,
}

/// What a record is begun with.
pub(crate) struct Begin {
    pub(crate) worker: Rc<Worker>,
    pub(crate) pin: Pin<Snapshot>,
    pub(crate) role: HopRole,
    pub(crate) protocol: Protocol,
    pub(crate) started: Instant,
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) client: Option<SocketAddr>,
    pub(crate) source_identity: Rc<str>,
    pub(crate) active: ActiveRequest,
}

impl RequestLog {
    pub(crate) fn begin(begin: Begin) -> Box<Self> {
        Box::new(Self {
            worker: begin.worker,
            pin: begin.pin,
            role: begin.role,
            protocol: begin.protocol,
            started: begin.started,
            started_wall: clock::wall(),
            method: begin.method,
            host: String::new(),
            uri: begin.uri,
            request_id: HeaderValue::from_static(""),
            span: None,
            client: begin.client,
            source_identity: begin.source_identity,
            progress: Rc::default(),
            route: None,
            picked: None,
            tls: None,
            status: 0,
            flag: ResponseFlag::None,
            detail: String::new(),
            attempts: 0,
            from_upstream: false,
            is_noted: false,
            bytes_sent: Cell::new(0),
            grpc: None,
            _active: begin.active,
            completed: false,
            broken: false,
        })
    }

    /// Notes the answer's status.
    pub(crate) fn answered(&mut self, status: StatusCode) {
        self.status = status.as_u16();
    }

    /// Notes an answer of our own.
    pub(crate) fn refused(&mut self, status: StatusCode, flag: ResponseFlag, detail: String) {
        self.answered(status);
        self.flag = flag;
        self.detail = detail;
        self.completed = true;
    }

    pub(crate) fn sent(&self, bytes: u64) {
        self.bytes_sent.set(self.bytes_sent.get() + bytes);
    }

    pub(crate) fn completed(&mut self) {
        self.completed = true;
    }

    pub(crate) fn upstream_broke(&mut self) {
        self.broken = true;
    }

    /// Reads `grpc-status` from headers or trailers.
    pub(crate) fn grpc_status(&mut self, headers: &HeaderMap) {
        let status = headers.get("grpc-status").and_then(|value| value.to_str().ok());
        if let Some(status) = status.and_then(|text| text.parse().ok()) {
            self.grpc = Some(status);
        }
    }

    /// Puts an HTTP/1.1 connection back, unless the request's body was cut short: what is
    /// left of it would be read as the next request.
    pub(crate) fn give_back(&self, sender: http1::SendRequest<RequestBody>) {
        if let Some(picked) = self.picked.as_ref().filter(|_| self.progress.complete.get()) {
            let idle_max = self.worker.settings.upstream_idle_max;
            picked.state().connections.lane(self.tls.as_ref()).check_in(
                sender,
                clock::now(),
                idle_max,
            );
        }
    }

    fn finish(&mut self) {
        if self.flag == ResponseFlag::None {
            if self.broken {
                self.flag = ResponseFlag::UpstreamReset;
            } else if !self.completed {
                self.flag = ResponseFlag::ClientDisconnect;
            }
        }
        if let Some(picked) = &self.picked
            && self.from_upstream
            && !self.is_noted
        {
            let outcome = match self.status {
                502..=504 => Outcome::GatewayError,
                _ if self.broken => Outcome::GatewayError,
                _ => Outcome::Success,
            };
            self.worker.note_outcome(picked, outcome);
        }
    }
}

impl Drop for RequestLog {
    fn drop(&mut self) {
        self.finish();
        let now = clock::now();
        let endpoint = self.picked.as_ref().map(Picked::endpoint);
        let service = self.picked.as_ref().map(|picked| &picked.assignment().service);
        let (upstream, cluster) = match endpoint.map(|endpoint| &endpoint.target) {
            Some(EndpointTarget::Local { address, .. }) => {
                (Some(*address), self.pin.node.cluster.as_str())
            }
            Some(EndpointTarget::Remote { cluster, .. }) => (None, cluster.as_str()),
            None => (None, ""),
        };
        let identity = endpoint.and_then(|endpoint| endpoint.identity.as_ref());
        let record = AccessRecord {
            duration: now.saturating_duration_since(self.started),
            method: self.method.as_str(),
            authority: self.host.as_bytes(),
            path: self.uri.path().as_bytes(),
            request_id: self.request_id.as_bytes(),
            client: self.client,
            upstream,
            endpoint: endpoint.map_or("", |endpoint| endpoint.id.as_str()),
            route: self.route.and_then(|index| self.pin.route_name(index)).unwrap_or(""),
            service: service.map_or("", |service| service.name.as_str()),
            namespace: service.map_or("", |service| service.namespace.as_str()),
            destination_cluster: cluster,
            destination_identity: identity.map_or("", |identity| identity.as_str()),
            source_cluster: self.pin.node.cluster.as_str(),
            source_identity: &self.source_identity,
            status: self.status,
            grpc_status: self.grpc,
            flag: self.flag,
            detail: &self.detail,
            bytes_received: self.progress.bytes.get(),
            bytes_sent: self.bytes_sent.get(),
            attempts: self.attempts,
            span: self.span,
            ..AccessRecord::new(self.role, self.protocol, self.started_wall)
        };
        self.worker.recorder.record(&record);
    }
}
