//! Access records as OTLP spans and log records.
//!
//! Spec: OpenTelemetry semantic conventions 1.x, HTTP and RPC spans; what they do not
//! name is under `isthmus.`.

use std::net::SocketAddr;

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, SeverityNumber};
use opentelemetry_proto::tonic::resource::v1::Resource as ProtoResource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{Span, Status};

use crate::access::{AccessFormat, AccessRecord, HopRole, ResponseFlag};
use crate::escape::push_escaped;
use crate::resource::Resource;
use crate::timestamp::unix_nanos;

/// The span of a hop; `None` when the record has no trace.
pub(crate) fn span(record: &AccessRecord<'_>) -> Option<Span> {
    let ids = record.span?;
    let start = unix_nanos(record.start);
    let duration = u64::try_from(record.duration.as_nanos()).unwrap_or(u64::MAX);
    Some(Span {
        trace_id: ids.trace_id.to_bytes().to_vec(),
        span_id: ids.span_id.to_bytes().to_vec(),
        parent_span_id: ids.parent.map(|id| id.to_bytes().to_vec()).unwrap_or_default(),
        flags: u32::from(ids.sampled),
        name: span_name(record),
        kind: span_kind(record.role).into(),
        start_time_unix_nano: start,
        end_time_unix_nano: start.saturating_add(duration),
        attributes: attributes(record),
        status: Some(span_status(record)),
        ..Span::default()
    })
}

/// The access record as a log record; its body is the text line.
pub(crate) fn log(record: &AccessRecord<'_>) -> LogRecord {
    let mut line = String::new();
    record.render(AccessFormat::Text, &mut line);
    line.truncate(line.trim_end().len());
    let severity = if record.is_failure() { SeverityNumber::Warn } else { SeverityNumber::Info };
    let end = record.start + record.duration.min(DURATION_MAX);
    LogRecord {
        time_unix_nano: unix_nanos(record.start),
        observed_time_unix_nano: unix_nanos(end),
        severity_number: severity.into(),
        severity_text: if record.is_failure() { "WARN" } else { "INFO" }.to_owned(),
        body: Some(text_value(line)),
        attributes: attributes(record),
        trace_id: record.span.map(|s| s.trace_id.to_bytes().to_vec()).unwrap_or_default(),
        span_id: record.span.map(|s| s.span_id.to_bytes().to_vec()).unwrap_or_default(),
        flags: record.span.map_or(0, |span| u32::from(span.sampled)),
        event_name: "isthmus.access".to_owned(),
        ..LogRecord::default()
    }
}

/// The resource with its attributes.
pub(crate) fn resource(resource: &Resource) -> ProtoResource {
    let attributes = resource
        .attributes()
        .iter()
        .map(|(key, value)| key_value(key, text_value(value.clone())))
        .collect();
    ProtoResource { attributes, ..ProtoResource::default() }
}

/// The scope under which everything is reported.
pub(crate) fn scope() -> InstrumentationScope {
    InstrumentationScope { name: "isthmus".to_owned(), ..InstrumentationScope::default() }
}

/// A text attribute.
pub(crate) fn text_attribute(key: &str, value: &str) -> KeyValue {
    key_value(key, text_value(value.to_owned()))
}

fn span_name(record: &AccessRecord<'_>) -> String {
    let target = if record.route.is_empty() { record.service } else { record.route };
    let verb = if record.is_connection() { record.protocol.label() } else { record.method };
    let mut name = String::new();
    push_escaped(&mut name, verb.as_bytes(), SPAN_NAME_PART_BYTES_MAX);
    if !target.is_empty() {
        name.push(' ');
        push_escaped(&mut name, target.as_bytes(), SPAN_NAME_PART_BYTES_MAX);
    }
    if name.is_empty() { record.role.label().to_owned() } else { name }
}

fn span_kind(role: HopRole) -> SpanKind {
    match role {
        HopRole::EastWest | HopRole::Inbound | HopRole::Ingress => SpanKind::Server,
        HopRole::Outbound => SpanKind::Client,
    }
}

/// Spec: HTTP spans, "Status": 5xx is an error; 4xx only where we are the client.
fn span_status(record: &AccessRecord<'_>) -> Status {
    let failed = record.flag != ResponseFlag::None;
    let limit = if record.role == HopRole::Outbound { 400 } else { 500 };
    let code = if failed || record.status >= limit { StatusCode::Error } else { StatusCode::Unset };
    let message = if failed { record.flag.name().to_owned() } else { String::new() };
    Status { code: code.into(), message }
}

fn attributes(record: &AccessRecord<'_>) -> Vec<KeyValue> {
    let mut out = Attributes(Vec::with_capacity(ATTRIBUTES_TYPICAL));
    out.text("isthmus.role", record.role.label());
    if !record.is_connection() {
        out.text("http.request.method", record.method);
        out.bytes("url.path", record.path_alone());
        out.number("http.response.status_code", i64::from(record.status));
        out.text("network.protocol.name", "http");
        let version = record.protocol.name().strip_prefix("HTTP/").unwrap_or_default();
        out.text("network.protocol.version", version);
        out.bytes("user_agent.original", record.user_agent);
        out.number("http.request.body.size", clamp(record.bytes_received));
        out.number("http.response.body.size", clamp(record.bytes_sent));
    } else {
        out.text("network.transport", record.protocol.label());
        out.number("isthmus.bytes_received", clamp(record.bytes_received));
        out.number("isthmus.bytes_sent", clamp(record.bytes_sent));
    }
    if let Some(status) = record.grpc_status {
        out.text("rpc.system", "grpc");
        out.number("rpc.grpc.status_code", i64::from(status));
    }
    server(record.authority, &mut out);
    out.address("client", record.client);
    out.address("network.peer", record.upstream);
    out.bytes("http.request.header.x-request-id", record.request_id);
    out.text("isthmus.route", record.route);
    out.text("isthmus.upstream.service", record.service);
    out.text("isthmus.upstream.namespace", record.namespace);
    out.text("isthmus.upstream.cluster", record.destination_cluster);
    out.text("isthmus.upstream.endpoint", record.endpoint);
    out.text("isthmus.upstream.identity", record.destination_identity);
    out.text("isthmus.source.cluster", record.source_cluster);
    out.text("isthmus.source.identity", record.source_identity);
    out.number("isthmus.attempts", i64::from(record.attempts));
    if record.flag != ResponseFlag::None {
        out.text("isthmus.response_flags", record.flag.label());
        out.text("error.type", record.flag.name());
        out.text("isthmus.error", record.detail);
    }
    out.0
}

fn server(authority: &[u8], out: &mut Attributes) {
    let text = String::from_utf8_lossy(authority);
    let port = text.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    match port {
        Some(port) => {
            let host = text.rsplit_once(':').map_or("", |(host, _)| host);
            out.bytes("server.address", host.trim_matches(['[', ']']).as_bytes());
            out.number("server.port", i64::from(port));
        }
        None => out.bytes("server.address", authority),
    }
}

struct Attributes(Vec<KeyValue>);

impl Attributes {
    fn text(&mut self, key: &str, value: &str) {
        self.bytes(key, value.as_bytes());
    }

    /// OTLP text must be UTF-8; lengths were bounded when the record entered its batch.
    fn bytes(&mut self, key: &str, value: &[u8]) {
        if !value.is_empty() {
            let value = String::from_utf8_lossy(value).into_owned();
            self.0.push(key_value(key, text_value(value)));
        }
    }

    fn number(&mut self, key: &str, value: i64) {
        let value = AnyValue { value: Some(Value::IntValue(value)) };
        self.0.push(key_value(key, value));
    }

    fn address(&mut self, prefix: &str, value: Option<SocketAddr>) {
        if let Some(address) = value {
            self.text(&format!("{prefix}.address"), &address.ip().to_string());
            self.number(&format!("{prefix}.port"), i64::from(address.port()));
        }
    }
}

fn key_value(key: &str, value: AnyValue) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() }
}

fn text_value(value: String) -> AnyValue {
    AnyValue { value: Some(Value::StringValue(value)) }
}

fn clamp(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

const ATTRIBUTES_TYPICAL: usize = 24;
const SPAN_NAME_PART_BYTES_MAX: usize = 128;
/// Longer durations are not real; the bound keeps the addition in range.
const DURATION_MAX: std::time::Duration = std::time::Duration::from_secs(10 * 365 * 86_400);
