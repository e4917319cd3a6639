//! The access record: what one hop knows about one request when it ends.
//!
//! There is exactly one record for each request (or TCP connection) and hop; metrics,
//! the access log, the span and the OTLP log record are all made from it. It only
//! borrows: on the common path (no access log, not sampled) nothing is cloned, and no
//! counter that two workers share is touched. [`Batch`] keeps the records that must
//! leave the worker, all their text in one buffer.

mod batch;
mod flag;
mod render;

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

pub(crate) use crate::access::batch::Batch;
pub use crate::access::flag::ResponseFlag;
pub use crate::access::render::AccessFormat;
use crate::trace_context::SpanRef;

/// What one hop knows about one request when it ends.
///
/// Text that a peer chose is bytes and is escaped and cut when it is written; text of
/// our own (names, routes, ids) is `str`. Empty means unknown. Make one with
/// [`AccessRecord::new`] and struct update syntax.
#[derive(Debug, Clone, Copy)]
pub struct AccessRecord<'a> {
    /// Which hop this is.
    pub role: HopRole,
    /// What the client speaks with this hop.
    pub protocol: Protocol,
    /// Wall time of the first byte of the request.
    pub start: SystemTime,
    /// Time from the first byte of the request to the last byte of the response.
    pub duration: Duration,
    /// Request method; empty for connections.
    pub method: &'a str,
    /// Host and port that the client asked for (`Host`, `:authority`, or SNI).
    pub authority: &'a [u8],
    /// Path of the request. What follows a `?` is never recorded: queries carry secrets.
    pub path: &'a [u8],
    /// `user-agent` of the request.
    pub user_agent: &'a [u8],
    /// The request id that was kept or made.
    pub request_id: &'a [u8],
    /// Address of the client, as far as this hop can vouch for it.
    pub client: Option<SocketAddr>,
    /// Address that the request was sent to.
    pub upstream: Option<SocketAddr>,
    /// Id of the endpoint that the request was sent to.
    pub endpoint: &'a str,
    /// Name of the route that was taken.
    pub route: &'a str,
    /// Name of the service that the request was for.
    pub service: &'a str,
    /// Namespace of that service.
    pub namespace: &'a str,
    /// Cluster that the request was sent to.
    pub destination_cluster: &'a str,
    /// SPIFFE ID that the upstream proved.
    pub destination_identity: &'a str,
    /// Cluster that the request came from.
    pub source_cluster: &'a str,
    /// SPIFFE ID that the client proved.
    pub source_identity: &'a str,
    /// Status that the client was answered with; 0 when there was no answer.
    pub status: u16,
    /// `grpc-status` of the answer, for gRPC.
    pub grpc_status: Option<u16>,
    /// Why this hop did not simply relay an answer.
    pub flag: ResponseFlag,
    /// The error in words; empty when there was none.
    pub detail: &'a str,
    /// Bytes of body (or of the connection) from the client.
    pub bytes_received: u64,
    /// Bytes of body (or of the connection) to the client.
    pub bytes_sent: u64,
    /// How many times an upstream was tried.
    pub attempts: u32,
    /// The span of this hop.
    pub span: Option<SpanRef>,
}

impl AccessRecord<'static> {
    /// A record with all else empty, for struct update syntax.
    pub fn new(role: HopRole, protocol: Protocol, start: SystemTime) -> Self {
        Self {
            role,
            protocol,
            start,
            duration: Duration::ZERO,
            method: "",
            authority: b"",
            path: b"",
            user_agent: b"",
            request_id: b"",
            client: None,
            upstream: None,
            endpoint: "",
            route: "",
            service: "",
            namespace: "",
            destination_cluster: "",
            destination_identity: "",
            source_cluster: "",
            source_identity: "",
            status: 0,
            grpc_status: None,
            flag: ResponseFlag::None,
            detail: "",
            bytes_received: 0,
            bytes_sent: 0,
            attempts: 0,
            span: None,
        }
    }
}

impl AccessRecord<'_> {
    /// Appends the record as one line with its line end.
    pub fn render(&self, format: AccessFormat, out: &mut String) {
        render::line(self, format, out);
    }

    /// The path without its query.
    pub(crate) fn path_alone(&self) -> &[u8] {
        self.path.split(|byte| *byte == b'?').next().unwrap_or_default()
    }

    /// Whether an operator who logs only failures wants this one.
    pub(crate) fn is_failure(&self) -> bool {
        self.flag != ResponseFlag::None || self.status >= 500
    }

    /// Whether the application protocol is a byte stream or datagrams.
    pub(crate) fn is_connection(&self) -> bool {
        matches!(self.protocol, Protocol::Tcp | Protocol::Tls | Protocol::Udp)
    }
}

/// Which hop of a request a record, a metric or a span is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HopRole {
    /// An east-west gateway.
    EastWest,
    /// The sidecar of the destination.
    Inbound,
    /// A north-south gateway.
    Ingress,
    /// The sidecar of the source.
    Outbound,
}

impl HopRole {
    /// The value of the `reporter` label.
    pub fn label(self) -> &'static str {
        match self {
            Self::EastWest => "eastwest",
            Self::Inbound => "inbound",
            Self::Ingress => "ingress",
            Self::Outbound => "outbound",
        }
    }
}

/// What the client speaks with a hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// gRPC over HTTP/2.
    Grpc,
    /// HTTP/1.0 or HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// HTTP/3.
    Http3,
    /// A byte stream that this hop does not look into.
    Tcp,
    /// TLS that this hop passes through by its server name.
    Tls,
    /// Datagrams.
    Udp,
}

impl Protocol {
    /// The value of the `request_protocol` label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Http1 | Self::Http2 | Self::Http3 => "http",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Udp => "udp",
        }
    }

    /// The protocol with its version, as access logs write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Grpc | Self::Http2 => "HTTP/2",
            Self::Http1 => "HTTP/1.1",
            Self::Http3 => "HTTP/3",
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
            Self::Udp => "UDP",
        }
    }
}
