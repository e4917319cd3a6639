//! Writes trace context into headers without formatting machinery.
//!
//! All values are slices of one buffer, so that seven headers cost two allocations.

use bytes::Bytes;
use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};

use crate::trace_context::parse::says_anything;
use crate::trace_context::{Sampling, SpanRef, TRACEPARENT_BYTES, TraceContext};

pub(super) static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub(super) static TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
pub(super) static B3: HeaderName = HeaderName::from_static("b3");
pub(super) static B3_TRACE_ID: HeaderName = HeaderName::from_static("x-b3-traceid");
pub(super) static B3_SPAN_ID: HeaderName = HeaderName::from_static("x-b3-spanid");
pub(super) static B3_PARENT_SPAN_ID: HeaderName = HeaderName::from_static("x-b3-parentspanid");
pub(super) static B3_SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");
pub(super) static B3_FLAGS: HeaderName = HeaderName::from_static("x-b3-flags");

pub(super) fn all(context: &TraceContext, headers: &mut HeaderMap) {
    let mut buffer = [0; TRACEPARENT_BYTES + B3_BYTES];
    let (w3c, b3) = buffer.split_at_mut(TRACEPARENT_BYTES);
    w3c.copy_from_slice(&traceparent(&context.span_ref()));
    b3[..32].copy_from_slice(&w3c[3..35]);
    b3[32] = b'-';
    b3[33..49].copy_from_slice(&w3c[36..52]);
    b3[49] = b'-';
    b3[50] = match context.sampling {
        Sampling::Debug => b'd',
        Sampling::Off => b'0',
        Sampling::On => b'1',
    };
    let mut end = TRACEPARENT_BYTES + 51;
    if let Some(parent) = context.parent {
        b3[51] = b'-';
        write_hex(&mut b3[52..68], &parent.to_bytes());
        end += 17;
    }
    let text = Bytes::copy_from_slice(&buffer[..end]);
    let b3 = |from: usize, to: usize| text.slice(TRACEPARENT_BYTES + from..TRACEPARENT_BYTES + to);
    if says_anything(headers) {
        for name in [&TRACESTATE, &B3_PARENT_SPAN_ID, &B3_SAMPLED, &B3_FLAGS] {
            headers.remove(name);
        }
    }
    set(headers, &TRACEPARENT, text.slice(..TRACEPARENT_BYTES));
    if let Some(state) = &context.state {
        put(headers, &TRACESTATE, state.clone());
    }
    set(headers, &B3, text.slice(TRACEPARENT_BYTES..));
    set(headers, &B3_TRACE_ID, b3(0, 32));
    set(headers, &B3_SPAN_ID, b3(33, 49));
    if context.parent.is_some() {
        set(headers, &B3_PARENT_SPAN_ID, b3(52, 68));
    }
    // Spec: b3-propagation, "Debug Flag": debug implies an accept decision, so it is not
    // sent together with `X-B3-Sampled`.
    let (name, value) = match context.sampling {
        Sampling::Debug => (&B3_FLAGS, "1"),
        Sampling::Off => (&B3_SAMPLED, "0"),
        Sampling::On => (&B3_SAMPLED, "1"),
    };
    put(headers, name, HeaderValue::from_static(value));
}

pub(super) fn w3c(context: &TraceContext, headers: &mut HeaderMap) {
    let text = traceparent(&context.span_ref());
    set(headers, &TRACEPARENT, Bytes::copy_from_slice(&text));
    write_state(context, headers);
    for name in [&B3, &B3_TRACE_ID, &B3_SPAN_ID, &B3_PARENT_SPAN_ID, &B3_SAMPLED, &B3_FLAGS] {
        headers.remove(name);
    }
}

pub(super) fn traceparent(span: &SpanRef) -> [u8; TRACEPARENT_BYTES] {
    let mut text = [b'-'; TRACEPARENT_BYTES];
    text[..2].copy_from_slice(b"00");
    write_hex(&mut text[3..35], &span.trace_id.to_bytes());
    write_hex(&mut text[36..52], &span.span_id.to_bytes());
    text[53..].copy_from_slice(if span.sampled { b"01" } else { b"00" });
    text
}

fn write_state(context: &TraceContext, headers: &mut HeaderMap) {
    match &context.state {
        Some(state) => put(headers, &TRACESTATE, state.clone()),
        None => {
            headers.remove(&TRACESTATE);
        }
    }
}

fn set(headers: &mut HeaderMap, name: &HeaderName, value: Bytes) {
    // Hexadecimal digits and dashes are always a valid value.
    if let Ok(value) = HeaderValue::from_maybe_shared(value) {
        put(headers, name, value);
    }
}

fn put(headers: &mut HeaderMap, name: &HeaderName, value: HeaderValue) {
    // A map that is full (32768 names) goes without; heads are bounded far below.
    let _ = headers.try_insert(name, value);
}

pub(crate) fn write_hex(out: &mut [u8], bytes: &[u8]) {
    for (pair, byte) in out.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";
/// `{32}-{16}-{1}-{16}`.
const B3_BYTES: usize = 68;
