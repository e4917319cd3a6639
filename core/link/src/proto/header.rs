//! What an application stream and a datagram begin with.
//!
//! A stream begins with [`StreamHeader`]; data follows at once, without waiting for the
//! answer. The other end sends [`StreamReply`] before its first byte of data.

use std::time::Duration;

use isthmus_model::{EndpointId, Label, ServiceKey, ServiceScope};

use crate::proto::frame::decode_reason;
use crate::proto::wire::{DecodeError, Fields, put_field, reason_text, required};

/// Where an application stream wants to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamHeader {
    /// The service, a name of the receiving cluster's exports.
    pub service: ServiceKey,
    /// The service's port.
    pub port: u16,
    /// The endpoint that the sender's load balancer chose; `None` lets the receiver pick.
    pub endpoint: Option<EndpointId>,
    /// The W3C trace context that the stream belongs to.
    pub trace: Option<TraceContext>,
    /// Time left to the request's deadline.
    pub deadline: Option<Duration>,
    /// Number of the UDP flow whose datagrams belong to this stream.
    pub flow: Option<u32>,
}

/// A W3C trace context in its binary parts.
///
/// Spec: W3C Trace Context, `traceparent` version 00.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace id; never all zero.
    pub trace_id: [u8; 16],
    /// The parent span's id; never all zero.
    pub span_id: [u8; 8],
    /// The flags byte; bit 0 is "sampled".
    pub flags: u8,
}

/// The receiver's answer to a [`StreamHeader`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamReply {
    /// Data follows.
    Accepted,
    /// The stream ends here.
    Refused(StreamRefused),
}

/// A stream that the peer's gateway did not take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("peer refused the stream: {} ({reason})", code.label())]
pub struct StreamRefused {
    /// Why, as a code.
    pub code: RefuseCode,
    /// Why, for the log.
    pub reason: String,
}

/// Why a stream is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RefuseCode {
    /// The header cannot be read.
    BadHeader,
    /// The receiver is shutting down; nothing of the stream was processed.
    Draining,
    /// A fault of the receiver.
    Internal,
    /// The service or endpoint is not exported to this peer.
    NotExported,
    /// The receiver is at a limit; nothing of the stream was processed.
    Overloaded,
    /// The endpoint could not be reached.
    Unreachable,
    /// A code of a newer version.
    Unknown(u16),
}

impl RefuseCode {
    /// The number on the wire.
    pub fn to_wire(self) -> u16 {
        match self {
            Self::NotExported => 1,
            Self::Unreachable => 2,
            Self::Overloaded => 3,
            Self::Draining => 4,
            Self::BadHeader => 5,
            Self::Internal => 6,
            Self::Unknown(code) => code,
        }
    }

    /// The code of a number on the wire.
    pub fn from_wire(code: u16) -> Self {
        match code {
            1 => Self::NotExported,
            2 => Self::Unreachable,
            3 => Self::Overloaded,
            4 => Self::Draining,
            5 => Self::BadHeader,
            6 => Self::Internal,
            other => Self::Unknown(other),
        }
    }

    /// The name for logs and metric labels.
    pub fn label(self) -> &'static str {
        match self {
            Self::BadHeader => "bad_header",
            Self::Draining => "draining",
            Self::Internal => "internal",
            Self::NotExported => "not_exported",
            Self::Overloaded => "overloaded",
            Self::Unknown(_) => "unknown",
            Self::Unreachable => "unreachable",
        }
    }

    /// Whether the stream may be tried again elsewhere, since nothing was processed.
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::Draining | Self::Overloaded | Self::Unreachable)
    }
}

/// How far a decoder got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decoded<T> {
    /// The value and how many bytes it took.
    Done(T, usize),
    /// At least this many bytes are needed in all.
    NeedBytes(usize),
}

impl StreamHeader {
    /// A header with the required parts.
    pub fn new(service: ServiceKey, port: u16) -> Self {
        Self { service, port, endpoint: None, trace: None, deadline: None, flow: None }
    }

    /// Appends the header's bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut body = Vec::with_capacity(160);
        let scope = match self.service.scope {
            ServiceScope::Cluster => 0,
            ServiceScope::ClusterSet => 1,
        };
        put_field(&mut body, 1, &[scope]);
        put_field(&mut body, 2, self.service.namespace.as_str().as_bytes());
        put_field(&mut body, 3, self.service.name.as_str().as_bytes());
        put_field(&mut body, 4, &self.port.to_be_bytes());
        if let Some(endpoint) = &self.endpoint {
            put_field(&mut body, 5, endpoint.as_str().as_bytes());
        }
        if let Some(trace) = &self.trace {
            let mut value = [0; TRACE_BYTES];
            value[..16].copy_from_slice(&trace.trace_id);
            value[16..24].copy_from_slice(&trace.span_id);
            value[24] = trace.flags;
            put_field(&mut body, 6, &value);
        }
        if let Some(deadline) = self.deadline {
            let millis = u32::try_from(deadline.as_millis()).unwrap_or(u32::MAX);
            put_field(&mut body, 7, &millis.to_be_bytes());
        }
        if let Some(flow) = self.flow {
            put_field(&mut body, 8, &flow.to_be_bytes());
        }
        let length = u16::try_from(body.len()).unwrap_or(u16::MAX);
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&body);
    }

    /// Reads a header from the first bytes of a stream.
    ///
    /// # Errors
    ///
    /// [`DecodeError`]; the stream is then refused with [`RefuseCode::BadHeader`].
    pub fn decode(bytes: &[u8]) -> Result<Decoded<Self>, DecodeError> {
        let Some((&[high, low], rest)) = bytes.split_first_chunk() else {
            return Ok(Decoded::NeedBytes(HEADER_HEAD_BYTES));
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length > HEADER_BODY_BYTES_MAX {
            let limit = HEADER_BODY_BYTES_MAX;
            return Err(DecodeError::TooLong { message: HEADER, length, limit });
        }
        let total = HEADER_HEAD_BYTES + length;
        match rest.get(..length) {
            Some(body) => Ok(Decoded::Done(decode_header(body)?, total)),
            None => Ok(Decoded::NeedBytes(total)),
        }
    }
}

impl StreamReply {
    /// Appends the reply's bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Accepted => out.extend_from_slice(&[0, 0, 0]),
            Self::Refused(refused) => {
                let mut body = Vec::with_capacity(64);
                put_field(&mut body, 1, &refused.code.to_wire().to_be_bytes());
                put_field(&mut body, 2, reason_text(&refused.reason).as_bytes());
                out.push(1);
                out.extend_from_slice(&u16::try_from(body.len()).unwrap_or(0).to_be_bytes());
                out.extend_from_slice(&body);
            }
        }
    }

    /// Reads a reply from the first bytes of the answer.
    ///
    /// # Errors
    ///
    /// [`DecodeError`]; the stream is then reset.
    pub fn decode(bytes: &[u8]) -> Result<Decoded<Self>, DecodeError> {
        let message = "stream reply";
        let Some((&[status, high, low], rest)) = bytes.split_first_chunk() else {
            return Ok(Decoded::NeedBytes(REPLY_HEAD_BYTES));
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length > REPLY_BODY_BYTES_MAX {
            let limit = REPLY_BODY_BYTES_MAX;
            return Err(DecodeError::TooLong { message, length, limit });
        }
        let total = REPLY_HEAD_BYTES + length;
        let Some(body) = rest.get(..length) else { return Ok(Decoded::NeedBytes(total)) };
        match status {
            0 => Ok(Decoded::Done(Self::Accepted, total)),
            1 => {
                let (code, reason) = decode_reason(message, body)?;
                let code = RefuseCode::from_wire(code);
                Ok(Decoded::Done(Self::Refused(StreamRefused { code, reason }), total))
            }
            _ => Err(DecodeError::Invalid { message, field: "status", rule: "neither 0 nor 1" }),
        }
    }
}

/// One UDP payload on a QUIC connection: `flow u32, payload`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// The flow, as named by the [`StreamHeader`] of its stream.
    pub flow: u32,
    /// The application's bytes.
    pub payload: &'a [u8],
}

impl<'a> Datagram<'a> {
    /// Appends the datagram's bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.flow.to_be_bytes());
        out.extend_from_slice(self.payload);
    }

    /// Reads a datagram.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Truncated`] when it is shorter than its header.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let error = DecodeError::Truncated { message: "datagram", field: "flow" };
        let (flow, payload) = bytes.split_first_chunk().ok_or(error)?;
        Ok(Self { flow: u32::from_be_bytes(*flow), payload })
    }
}

/// The parts of a header as they come.
#[derive(Default)]
struct Parts {
    scope: Option<ServiceScope>,
    namespace: Option<Label>,
    name: Option<Label>,
    port: Option<u16>,
    endpoint: Option<EndpointId>,
    trace: Option<TraceContext>,
    deadline: Option<Duration>,
    flow: Option<u32>,
}

fn decode_header(body: &[u8]) -> Result<StreamHeader, DecodeError> {
    let mut parts = Parts::default();
    let mut fields = Fields::new(HEADER, body);
    while let Some(field) = fields.next_field()? {
        let label = |name| {
            let text = field.text(name, LABEL_BYTES_MAX)?;
            Label::new(text).map_err(|_| field.invalid(name, "not a label"))
        };
        match field.tag {
            1 => {
                let scope = match field.u8("scope")? {
                    0 => ServiceScope::Cluster,
                    1 => ServiceScope::ClusterSet,
                    _ => return Err(field.invalid("scope", "neither 0 nor 1")),
                };
                field.once(&mut parts.scope, "scope", scope)?;
            }
            2 => field.once(&mut parts.namespace, "namespace", label("namespace")?)?,
            3 => field.once(&mut parts.name, "name", label("name")?)?,
            4 => match field.u16("port")? {
                0 => return Err(field.invalid("port", "zero")),
                port => field.once(&mut parts.port, "port", port)?,
            },
            5 => {
                let text = field.text("endpoint", ENDPOINT_BYTES_MAX)?;
                let id = EndpointId::new(text)
                    .map_err(|_| field.invalid("endpoint", "not an endpoint id"))?;
                field.once(&mut parts.endpoint, "endpoint", id)?;
            }
            6 => {
                let trace = decode_trace(field.array("trace")?)
                    .ok_or_else(|| field.invalid("trace", "an id is all zero"))?;
                field.once(&mut parts.trace, "trace", trace)?;
            }
            7 => {
                let left = Duration::from_millis(u64::from(field.u32("deadline")?));
                field.once(&mut parts.deadline, "deadline", left)?;
            }
            8 => field.once(&mut parts.flow, "flow", field.u32("flow")?)?,
            _ => {}
        }
    }
    let service = ServiceKey {
        scope: required(HEADER, "scope", parts.scope)?,
        namespace: required(HEADER, "namespace", parts.namespace)?,
        name: required(HEADER, "name", parts.name)?,
    };
    let port = required(HEADER, "port", parts.port)?;
    let Parts { endpoint, trace, deadline, flow, .. } = parts;
    Ok(StreamHeader { service, port, endpoint, trace, deadline, flow })
}

fn decode_trace(value: [u8; TRACE_BYTES]) -> Option<TraceContext> {
    let (trace_id, rest) = value.split_first_chunk::<16>()?;
    let (span_id, rest) = rest.split_first_chunk::<8>()?;
    let flags = *rest.first()?;
    // Spec: W3C Trace Context section 3.2.2.3: an id of zeros is not valid.
    let valid = trace_id.iter().any(|b| *b != 0) && span_id.iter().any(|b| *b != 0);
    valid.then_some(TraceContext { trace_id: *trace_id, span_id: *span_id, flags })
}

/// Bytes in a header, its length prefix not counted.
pub const HEADER_BODY_BYTES_MAX: usize = 4096;
/// Bytes of a header's length prefix.
pub const HEADER_HEAD_BYTES: usize = 2;
/// Bytes in a reply, its first three bytes not counted.
pub const REPLY_BODY_BYTES_MAX: usize = 1024;
/// Bytes in a reply before its body.
pub const REPLY_HEAD_BYTES: usize = 3;

const HEADER: &str = "stream header";
const TRACE_BYTES: usize = 25;
const LABEL_BYTES_MAX: usize = 63;
const ENDPOINT_BYTES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> StreamHeader {
        let (ns, name) = (Label::new("shop").unwrap(), Label::new("cart").unwrap());
        StreamHeader {
            endpoint: Some(EndpointId::new("e-1").unwrap()),
            trace: Some(TraceContext { trace_id: [1; 16], span_id: [2; 8], flags: 1 }),
            deadline: Some(Duration::from_millis(1500)),
            flow: Some(9),
            ..StreamHeader::new(ServiceKey::clusterset(ns, name), 8080)
        }
    }

    #[test]
    fn a_header_round_trips_and_says_how_much_it_needs() {
        let mut bytes = Vec::new();
        full().encode(&mut bytes);
        let total = bytes.len();
        bytes.extend_from_slice(b"data");
        assert_eq!(StreamHeader::decode(&bytes), Ok(Decoded::Done(full(), total)));
        assert_eq!(StreamHeader::decode(&bytes[..1]), Ok(Decoded::NeedBytes(2)));
        for end in 2..total {
            assert_eq!(StreamHeader::decode(&bytes[..end]), Ok(Decoded::NeedBytes(total)));
        }
    }

    #[test]
    fn replies_round_trip() {
        let refused =
            StreamRefused { code: RefuseCode::NotExported, reason: "no export".to_owned() };
        for reply in [StreamReply::Accepted, StreamReply::Refused(refused)] {
            let mut bytes = Vec::new();
            reply.encode(&mut bytes);
            let total = bytes.len();
            assert_eq!(StreamReply::decode(&bytes), Ok(Decoded::Done(reply, total)));
        }
    }

    #[test]
    fn hostile_headers_are_refused() {
        let check = |bytes: &[u8], want: &str| {
            assert_eq!(StreamHeader::decode(bytes).unwrap_err().to_string(), want);
        };
        check(&[0xff, 0xff], "stream header has 65535 bytes, at most 4096 are allowed");
        check(&[0, 0], "stream header has no field scope");
        check(&[0, 4, 1, 0, 1, 9], "stream header field scope is not valid: neither 0 nor 1");
        check(&[0, 5, 4, 0, 2, 0, 0], "stream header field port is not valid: zero");
        check(&[0, 4, 2, 0, 1, b'A'], "stream header field namespace is not valid: not a label");
        let mut zero = vec![0, 28, 6, 0, 25];
        zero.extend_from_slice(&[0; 25]);
        check(&zero, "stream header field trace is not valid: an id is all zero");
    }

    #[test]
    fn refuse_codes_keep_their_numbers() {
        for code in 0..10 {
            assert_eq!(RefuseCode::from_wire(code).to_wire(), code);
        }
    }

    #[test]
    fn datagrams_round_trip() {
        let mut bytes = Vec::new();
        let datagram = Datagram { flow: 7, payload: b"dns" };
        datagram.encode(&mut bytes);
        assert_eq!(Datagram::decode(&bytes), Ok(datagram));
        assert!(Datagram::decode(&bytes[..3]).is_err());
    }
}
