//! Reads trace context from headers; every length is bounded before anything is read.

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};

use crate::trace_context::write::{
    B3, B3_FLAGS, B3_SAMPLED, B3_SPAN_ID, B3_TRACE_ID, TRACEPARENT, TRACESTATE,
};
use crate::trace_context::{
    IncomingTrace, ParentSpan, SamplingHint, SpanId, TRACEPARENT_BYTES, TraceId,
};

/// Whether a request says anything about a trace: most that come from outside do not, and
/// looking at the few names they have costs less than a look-up for each form.
pub(super) fn says_anything(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| {
        let name = name.as_str();
        name.starts_with("trace") || name == "b3" || name.starts_with("x-b3-")
    })
}

pub(super) fn incoming(headers: &HeaderMap) -> IncomingTrace {
    if !says_anything(headers) {
        return IncomingTrace::default();
    }
    if let Some((trace_id, span_id, hint)) =
        single(headers, &TRACEPARENT, TRACEPARENT_BYTES_MAX).and_then(traceparent)
    {
        let state = tracestate(headers);
        return IncomingTrace { parent: Some(ParentSpan { trace_id, span_id, state }), hint };
    }
    if let Some(value) = single(headers, &B3, B3_BYTES_MAX)
        && let Some(incoming) = b3(value)
    {
        return incoming;
    }
    b3_multiple(headers)
}

/// Spec: W3C Trace Context section 3.2; a later version may add `-` and more fields.
pub(super) fn traceparent(text: &[u8]) -> Option<(TraceId, SpanId, SamplingHint)> {
    let (head, rest) = text.split_at_checked(TRACEPARENT_BYTES)?;
    let version = hex::<1>(head.get(..2)?)?[0];
    let later_is_fine = version != 0 && rest.first().is_none_or(|byte| *byte == b'-');
    if version == 0xff || (!rest.is_empty() && !later_is_fine) {
        return None;
    }
    if text.len() > TRACEPARENT_BYTES_MAX || [2, 35, 52].iter().any(|at| head[*at] != b'-') {
        return None;
    }
    let trace_id = TraceId::from_bytes(hex(head.get(3..35)?)?)?;
    let span_id = SpanId::from_bytes(hex(head.get(36..52)?)?)?;
    let flags = hex::<1>(head.get(53..55)?)?[0];
    let hint = if flags & 1 == 1 { SamplingHint::Accept } else { SamplingHint::Deny };
    Some((trace_id, span_id, hint))
}

/// Spec: W3C Trace Context section 3.3; at most 32 members, and we forward 512 bytes.
fn tracestate(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut values = headers.get_all(&TRACESTATE).iter();
    let first = values.next()?;
    let Some(second) = values.next() else {
        return valid_state(first.as_bytes()).then(|| first.clone());
    };
    let mut joined = first.as_bytes().to_vec();
    for value in std::iter::once(second).chain(values) {
        if joined.len() + value.len() >= TRACESTATE_BYTES_MAX {
            return None;
        }
        joined.push(b',');
        joined.extend_from_slice(value.as_bytes());
    }
    if !valid_state(&joined) {
        return None;
    }
    HeaderValue::from_bytes(&joined).ok()
}

fn valid_state(text: &[u8]) -> bool {
    let member = |part: &[u8]| {
        let part = part.trim_ascii();
        // Empty members are allowed, and commonly come from joined headers.
        part.is_empty() || (part.contains(&b'=') && part.iter().all(|b| (0x20..0x7f).contains(b)))
    };
    (1..=TRACESTATE_BYTES_MAX).contains(&text.len())
        && text.split(|b| *b == b',').count() <= TRACESTATE_MEMBERS_MAX
        && text.split(|b| *b == b',').all(member)
}

/// Spec: b3-propagation, "Single Header": `{trace}-{span}[-{state}[-{parent}]]` or state.
fn b3(text: &[u8]) -> Option<IncomingTrace> {
    if let Some(hint) = b3_state(text) {
        return Some(IncomingTrace { parent: None, hint });
    }
    let mut parts = text.split(|byte| *byte == b'-');
    let trace_id = b3_trace_id(parts.next()?)?;
    let span_id = SpanId::from_bytes(hex(parts.next()?)?)?;
    let hint = match parts.next() {
        Some(state) => b3_state(state)?,
        None => SamplingHint::Defer,
    };
    if let Some(parent) = parts.next() {
        hex::<8>(parent)?;
    }
    if parts.next().is_some() {
        return None;
    }
    Some(IncomingTrace { parent: Some(ParentSpan { trace_id, span_id, state: None }), hint })
}

/// Spec: b3-propagation, "Multiple Headers".
fn b3_multiple(headers: &HeaderMap) -> IncomingTrace {
    let flags = single(headers, &B3_FLAGS, 1);
    let hint = match (flags, single(headers, &B3_SAMPLED, B3_SAMPLED_BYTES_MAX)) {
        (Some(b"1"), _) => SamplingHint::Debug,
        (_, Some(b"1" | b"true")) => SamplingHint::Accept,
        (_, Some(b"0" | b"false")) => SamplingHint::Deny,
        _ => SamplingHint::Defer,
    };
    let ids = || {
        let trace_id = b3_trace_id(single(headers, &B3_TRACE_ID, 32)?)?;
        let span_id = SpanId::from_bytes(hex(single(headers, &B3_SPAN_ID, 16)?)?)?;
        Some(ParentSpan { trace_id, span_id, state: None })
    };
    IncomingTrace { parent: ids(), hint }
}

fn b3_state(text: &[u8]) -> Option<SamplingHint> {
    match text {
        b"0" => Some(SamplingHint::Deny),
        b"1" => Some(SamplingHint::Accept),
        b"d" => Some(SamplingHint::Debug),
        _ => None,
    }
}

/// A B3 trace id has 16 or 32 digits; the short form is padded on the left.
fn b3_trace_id(text: &[u8]) -> Option<TraceId> {
    if text.len() == 16 {
        let mut bytes = [0; 16];
        bytes[8..].copy_from_slice(&hex::<8>(text)?);
        return TraceId::from_bytes(bytes);
    }
    TraceId::from_bytes(hex(text)?)
}

/// The value of a header that is there once and not longer than `limit`.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName, limit: usize) -> Option<&'a [u8]> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    (values.next().is_none() && value.len() <= limit).then(|| value.as_bytes())
}

/// `N` bytes from exactly `2 * N` lower-case hexadecimal digits.
fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    if text.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = (digit(pair[0])? << 4) | digit(pair[1])?;
    }
    Some(bytes)
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

/// Room for what later versions of `traceparent` may append.
const TRACEPARENT_BYTES_MAX: usize = 128;
const TRACESTATE_BYTES_MAX: usize = 512;
const TRACESTATE_MEMBERS_MAX: usize = 32;
/// `{32}-{16}-{1}-{16}`.
const B3_BYTES_MAX: usize = 68;
const B3_SAMPLED_BYTES_MAX: usize = 5;
