//! An access record as one line of text or JSON.
//!
//! The keys are those of Envoy's and Istio's JSON access log, so that dashboards and
//! parsers keep working; what they do not have is added below them.

use std::fmt::Write;
use std::net::SocketAddr;

use crate::access::batch::{IDENTITY_BYTES_MAX, METHOD_BYTES_MAX, NAME_BYTES_MAX, PATH_BYTES_MAX};
use crate::access::{AccessRecord, ResponseFlag};
use crate::escape::{push_escaped, push_quoted};
use crate::timestamp::push_timestamp;

/// How access records are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessFormat {
    /// One JSON object for each line.
    Json,
    /// Envoy's leading fields, then `key=value` pairs; unknown values are left out.
    Text,
}

pub(super) fn line(record: &AccessRecord<'_>, format: AccessFormat, out: &mut String) {
    match format {
        AccessFormat::Json => json(record, out),
        AccessFormat::Text => text(record, out),
    }
    out.push('\n');
}

fn text(record: &AccessRecord<'_>, out: &mut String) {
    out.push('[');
    push_timestamp(out, record.start);
    out.push_str("] \"");
    push_escaped(out, or_dash(record.method), METHOD_BYTES_MAX);
    out.push(' ');
    push_escaped(out, record.path_alone(), PATH_BYTES_MAX);
    // Writing to a String does not fail.
    let _ = write!(
        out,
        " {}\" {} {} {} {} {:.3}",
        record.protocol.name(),
        record.status,
        record.flag.label(),
        record.bytes_received,
        record.bytes_sent,
        millis(record),
    );
    let mut fields = Fields { out, json: false, first: false };
    common(record, &mut fields);
}

fn json(record: &AccessRecord<'_>, out: &mut String) {
    out.push('{');
    let mut fields = Fields { out, json: true, first: true };
    fields.key("start_time");
    fields.out.push('"');
    push_timestamp(fields.out, record.start);
    fields.out.push('"');
    fields.text("method", record.method, METHOD_BYTES_MAX);
    fields.bytes("path", record.path_alone(), PATH_BYTES_MAX);
    fields.text("protocol", record.protocol.name(), NAME_BYTES_MAX);
    fields.raw("response_code", record.status);
    fields.text("response_flags", record.flag.label(), NAME_BYTES_MAX);
    fields.raw("bytes_received", record.bytes_received);
    fields.raw("bytes_sent", record.bytes_sent);
    fields.raw("duration", format_args!("{:.3}", millis(record)));
    common(record, &mut fields);
    out.push('}');
}

/// What both forms write with the same keys.
fn common(record: &AccessRecord<'_>, fields: &mut Fields<'_>) {
    fields.text("reporter", record.role.label(), NAME_BYTES_MAX);
    fields.bytes("authority", record.authority, NAME_BYTES_MAX);
    fields.bytes("request_id", record.request_id, NAME_BYTES_MAX);
    if let Some(span) = &record.span {
        fields.raw("trace_id", format_args!("\"{}\"", span.trace_id));
        fields.raw("span_id", format_args!("\"{}\"", span.span_id));
        fields.raw("trace_sampled", span.sampled);
    }
    if let Some(status) = record.grpc_status {
        fields.raw("grpc_status", status);
    }
    if record.flag != ResponseFlag::None {
        fields.text("response_flags_long", record.flag.name(), NAME_BYTES_MAX);
    }
    fields.text("response_code_details", record.detail, IDENTITY_BYTES_MAX);
    fields.text("route_name", record.route, NAME_BYTES_MAX);
    fields.text("destination_service", record.service, NAME_BYTES_MAX);
    fields.text("destination_namespace", record.namespace, NAME_BYTES_MAX);
    fields.text("upstream_cluster", record.destination_cluster, NAME_BYTES_MAX);
    fields.text("upstream_endpoint", record.endpoint, NAME_BYTES_MAX);
    fields.address("upstream_host", record.upstream);
    fields.text("upstream_peer_uri_san", record.destination_identity, IDENTITY_BYTES_MAX);
    fields.address("downstream_remote_address", record.client);
    fields.text("downstream_cluster", record.source_cluster, NAME_BYTES_MAX);
    fields.text("downstream_peer_uri_san", record.source_identity, IDENTITY_BYTES_MAX);
    fields.bytes("user_agent", record.user_agent, NAME_BYTES_MAX);
    if record.attempts > 1 {
        fields.raw("upstream_request_attempt_count", record.attempts);
    }
}

struct Fields<'a> {
    out: &'a mut String,
    json: bool,
    first: bool,
}

impl Fields<'_> {
    fn key(&mut self, key: &'static str) {
        let _ = match (self.json, std::mem::replace(&mut self.first, false)) {
            (true, true) => write!(self.out, "\"{key}\":"),
            (true, false) => write!(self.out, ",\"{key}\":"),
            (false, _) => write!(self.out, " {key}="),
        };
    }

    fn raw(&mut self, key: &'static str, value: impl std::fmt::Display) {
        self.key(key);
        let _ = write!(self.out, "{value}");
    }

    fn bytes(&mut self, key: &'static str, value: &[u8], limit: usize) {
        if !value.is_empty() {
            self.key(key);
            push_quoted(self.out, value, limit);
        }
    }

    fn text(&mut self, key: &'static str, value: &str, limit: usize) {
        self.bytes(key, value.as_bytes(), limit);
    }

    fn address(&mut self, key: &'static str, value: Option<SocketAddr>) {
        if let Some(address) = value {
            self.raw(key, format_args!("\"{address}\""));
        }
    }
}

fn or_dash(text: &str) -> &[u8] {
    if text.is_empty() { b"-" } else { text.as_bytes() }
}

fn millis(record: &AccessRecord<'_>) -> f64 {
    record.duration.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::access::{HopRole, Protocol};
    use crate::trace_context::SpanRef;

    fn sample() -> AccessRecord<'static> {
        let span =
            SpanRef::parse_traceparent(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        let parent = span.and_then(|incoming| incoming.parent).unwrap();
        AccessRecord {
            duration: Duration::from_micros(12_345),
            method: "GET",
            authority: b"shop.test",
            path: b"/cart?token=secret",
            request_id: b"r-1",
            upstream: Some("10.0.0.7:8080".parse().unwrap()),
            route: "shop/cart/0",
            service: "cart",
            namespace: "shop",
            destination_cluster: "west",
            status: 200,
            bytes_received: 1,
            bytes_sent: 2,
            span: Some(SpanRef {
                trace_id: parent.trace_id,
                span_id: parent.span_id,
                parent: None,
                sampled: true,
            }),
            ..AccessRecord::new(HopRole::Outbound, Protocol::Http1, UNIX_EPOCH)
        }
    }

    #[test]
    fn text_is_like_the_log_that_operators_know() {
        let mut out = String::new();
        sample().render(AccessFormat::Text, &mut out);
        assert_eq!(
            out,
            "[1970-01-01T00:00:00.000000Z] \"GET /cart HTTP/1.1\" 200 - 1 2 12.345 \
             reporter=\"outbound\" authority=\"shop.test\" request_id=\"r-1\" \
             trace_id=\"4bf92f3577b34da6a3ce929d0e0e4736\" span_id=\"00f067aa0ba902b7\" \
             trace_sampled=true route_name=\"shop/cart/0\" destination_service=\"cart\" \
             destination_namespace=\"shop\" upstream_cluster=\"west\" \
             upstream_host=\"10.0.0.7:8080\"\n"
        );
    }

    #[test]
    fn json_is_one_object_a_line_and_has_no_query() {
        let mut out = String::new();
        sample().render(AccessFormat::Json, &mut out);
        assert!(out.ends_with("}\n") && !out.contains("secret"));
        let value: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(value["response_code"], 200);
        assert_eq!(value["duration"], 12.345);
        assert_eq!(value["path"], "/cart");
        assert_eq!(value["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
    }

    /// security.md A-09, in every field that a stranger chooses.
    #[test]
    fn a_hostile_request_cannot_add_a_line_or_a_key() {
        let evil = "x\n\u{1b}[2J\",\"admin\":true,\"\u{202e}";
        let mut bytes = evil.as_bytes().to_vec();
        bytes.push(0xff);
        let record = AccessRecord {
            method: evil,
            authority: &bytes,
            path: &bytes,
            user_agent: &bytes,
            request_id: &bytes,
            source_identity: evil,
            detail: evil,
            flag: ResponseFlag::Malformed,
            ..AccessRecord::new(HopRole::Ingress, Protocol::Http1, UNIX_EPOCH)
        };
        for format in [AccessFormat::Json, AccessFormat::Text] {
            let mut out = String::new();
            record.render(format, &mut out);
            assert_eq!(out.find('\n'), Some(out.len() - 1));
            assert!(!out.contains('\u{1b}') && !out.contains('\u{202e}'));
            if format == AccessFormat::Json {
                let value: serde_json::Value = serde_json::from_str(&out).unwrap();
                assert!(value.get("admin").is_none());
                assert_eq!(value["method"], evil);
            }
        }
    }
}
