//! Trace context: what a request says about its trace, and what the next hop is told.
//!
//! A hop reads W3C `traceparent` first, then `b3`, then the `x-b3-*` headers; the first
//! that is valid wins. It then makes one span of its own whose parent is the span it was
//! told about, and writes that span into all three forms, so that every hop of a request
//! lands in one trace whatever the application forwards. A value that is malformed,
//! repeated or too long is treated as if it were absent: a new trace begins and the bad
//! value never travels on.
//!
//! Whether a span is exported is decided by [`Sampler`], from the trace id, so that hops
//! with the same ratio agree without talking. A hop that faces strangers does not respect
//! the sampling flag it is given (security.md A-10).
//!
//! Spec: W3C Trace Context section 3 (`traceparent`, `tracestate`); B3 propagation
//! (openzipkin/b3-propagation), single and multiple headers.

mod ids;
mod parse;
mod write;

pub(crate) use crate::trace_context::write::write_hex;

use http::{HeaderMap, HeaderValue};

pub use crate::trace_context::ids::{IdSource, SpanId, TraceId};

/// What the headers of a request say about its trace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IncomingTrace {
    /// The span of the caller, when it named one.
    pub parent: Option<ParentSpan>,
    /// What the caller wishes to be sampled.
    pub hint: SamplingHint,
}

impl IncomingTrace {
    /// Reads W3C, then B3 single, then B3 multiple headers.
    ///
    /// Never fails: what is not valid is as good as absent.
    pub fn from_headers(headers: &HeaderMap) -> Self {
        parse::incoming(headers)
    }
}

/// The span of the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParentSpan {
    /// The trace that the request belongs to.
    pub trace_id: TraceId,
    /// The caller's own span.
    pub span_id: SpanId,
    /// `tracestate`, checked and at most 512 bytes; forwarded as it is.
    pub state: Option<HeaderValue>,
}

/// What the caller wishes to be sampled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SamplingHint {
    /// The caller samples this trace.
    Accept,
    /// The caller wants this trace whatever the ratio is (B3 debug).
    Debug,
    /// The caller leaves the decision to us.
    #[default]
    Defer,
    /// The caller does not sample this trace.
    Deny,
}

/// Whether the span of this hop is exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sampling {
    /// Exported, and the next hops are told that this is a debug trace.
    Debug,
    /// Not exported.
    Off,
    /// Exported.
    On,
}

impl Sampling {
    /// Whether the span is exported.
    pub fn is_sampled(self) -> bool {
        self != Self::Off
    }
}

/// Decides which traces are exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampler {
    threshold: u64,
    respect_parent: bool,
}

impl Sampler {
    /// Samples `ratio` (0.0 to 1.0; values outside are moved to the nearest end, NaN to
    /// 0) of the traces. With `respect_parent` the caller's decision, if it made one,
    /// comes before the ratio.
    pub fn new(ratio: f64, respect_parent: bool) -> Self {
        let ratio = if ratio.is_nan() { 0.0 } else { ratio.clamp(0.0, 1.0) };
        Self { threshold: (ratio * SAMPLE_SPACE as f64) as u64, respect_parent }
    }

    /// The same ratio with another answer to whose decision comes first.
    #[must_use]
    pub fn with_respect_parent(self, respect_parent: bool) -> Self {
        Self { respect_parent, ..self }
    }

    /// Decides for one trace; the same trace id always gives the same answer.
    pub fn decide(&self, hint: SamplingHint, trace_id: TraceId) -> Sampling {
        if self.respect_parent {
            match hint {
                SamplingHint::Accept => return Sampling::On,
                SamplingHint::Debug => return Sampling::Debug,
                SamplingHint::Deny => return Sampling::Off,
                SamplingHint::Defer => {}
            }
        }
        // The low 63 bits are the random part in every id scheme (OpenTelemetry's
        // TraceIdRatioBased reads the same ones).
        if trace_id.low() % SAMPLE_SPACE < self.threshold { Sampling::On } else { Sampling::Off }
    }
}

/// The span of this hop, and what the next hop is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace that the request belongs to.
    pub trace_id: TraceId,
    /// The span of this hop.
    pub span_id: SpanId,
    /// The span that this one is a child of.
    pub parent: Option<SpanId>,
    /// Whether the span of this hop is exported.
    pub sampling: Sampling,
    /// The caller's `tracestate`, forwarded as it is.
    pub state: Option<HeaderValue>,
}

impl TraceContext {
    /// Makes the span of this hop: a child of the caller's, or the root of a new trace.
    pub fn continued(incoming: IncomingTrace, ids: &mut IdSource, sampler: &Sampler) -> Self {
        let span_id = ids.span_id();
        let (trace_id, parent, state) = match incoming.parent {
            Some(parent) => (parent.trace_id, Some(parent.span_id), parent.state),
            None => (ids.trace_id(), None, None),
        };
        let sampling = sampler.decide(incoming.hint, trace_id);
        Self { trace_id, span_id, parent, sampling, state }
    }

    /// A span below this one in the same process, with the same decision.
    pub fn child(&self, ids: &mut IdSource) -> Self {
        Self { span_id: ids.span_id(), parent: Some(self.span_id), ..self.clone() }
    }

    /// The ids alone, for an access record or a link stream.
    pub fn span_ref(&self) -> SpanRef {
        let (trace_id, span_id, parent) = (self.trace_id, self.span_id, self.parent);
        SpanRef { trace_id, span_id, parent, sampled: self.sampling.is_sampled() }
    }

    /// Writes every form that applications forward: W3C, `b3` and `x-b3-*`.
    ///
    /// What the request carried before is replaced or removed. Costs two allocations.
    pub fn write_headers(&self, headers: &mut HeaderMap) {
        write::all(self, headers);
    }

    /// Writes `traceparent` and `tracestate` and removes the B3 forms, which is enough
    /// between two of our own hops.
    pub fn write_w3c(&self, headers: &mut HeaderMap) {
        write::w3c(self, headers);
    }
}

/// The ids of one span, without the state that travels in headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanRef {
    /// The trace that the span belongs to.
    pub trace_id: TraceId,
    /// The span.
    pub span_id: SpanId,
    /// The span that this one is a child of.
    pub parent: Option<SpanId>,
    /// Whether the span is exported.
    pub sampled: bool,
}

impl SpanRef {
    /// The span as `traceparent` text, for a carrier that is not HTTP (a link stream).
    pub fn to_traceparent(&self) -> [u8; TRACEPARENT_BYTES] {
        write::traceparent(self)
    }

    /// The caller's span and wish, from `traceparent` text that did not come in a header.
    ///
    /// Returns `None` when the text is not valid.
    pub fn parse_traceparent(text: &[u8]) -> Option<IncomingTrace> {
        let (trace_id, span_id, hint) = parse::traceparent(text)?;
        Some(IncomingTrace { parent: Some(ParentSpan { trace_id, span_id, state: None }), hint })
    }
}

/// Bytes of a version 00 `traceparent`.
pub const TRACEPARENT_BYTES: usize = 55;

const SAMPLE_SPACE: u64 = 1 << 63;

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, value.parse().unwrap());
        }
        map
    }

    fn check(pairs: &[(&'static str, &str)], want: Option<(&str, &str)>, hint: SamplingHint) {
        let incoming = IncomingTrace::from_headers(&headers(pairs));
        let got = incoming.parent.map(|p| (p.trace_id.to_string(), p.span_id.to_string()));
        let want = want.map(|(trace, span)| (trace.to_owned(), span.to_owned()));
        assert_eq!((got, incoming.hint), (want, hint), "{pairs:?}");
    }

    #[test]
    fn valid_contexts_of_every_form_are_read() {
        use SamplingHint::{Accept, Debug, Defer, Deny};
        let both = Some((TRACE, SPAN));
        let w3c = format!("00-{TRACE}-{SPAN}-01");
        check(&[("traceparent", &w3c)], both, Accept);
        check(&[("traceparent", &format!("00-{TRACE}-{SPAN}-00"))], both, Deny);
        check(&[("traceparent", &format!("cc-{TRACE}-{SPAN}-01-later"))], both, Accept);
        check(&[("b3", &format!("{TRACE}-{SPAN}"))], both, Defer);
        check(&[("b3", &format!("{TRACE}-{SPAN}-1"))], both, Accept);
        check(&[("b3", &format!("{TRACE}-{SPAN}-0-{SPAN}"))], both, Deny);
        check(&[("b3", &format!("{TRACE}-{SPAN}-d"))], both, Debug);
        check(&[("b3", "0")], None, Deny);
        check(&[("b3", "1")], None, Accept);
        check(&[("b3", "d")], None, Debug);
        let ids = [("x-b3-traceid", TRACE), ("x-b3-spanid", SPAN)];
        check(&ids, both, Defer);
        check(&[ids[0], ids[1], ("x-b3-sampled", "1")], both, Accept);
        check(&[ids[0], ids[1], ("x-b3-sampled", "false")], both, Deny);
        check(&[ids[0], ids[1], ("x-b3-flags", "1")], both, Debug);
        check(&[("x-b3-sampled", "0")], None, Deny);
        let padded = Some(("0000000000000000a3ce929d0e0e4736", SPAN));
        check(&[("b3", &format!("a3ce929d0e0e4736-{SPAN}-1"))], padded, Accept);
        // W3C comes first, a bad one leaves room for B3.
        check(&[("traceparent", &w3c), ("b3", "0")], both, Accept);
        check(&[("traceparent", "junk"), ids[0], ids[1]], both, Defer);
    }

    #[test]
    fn what_is_not_valid_is_as_good_as_absent() {
        let zero = "0".repeat(32);
        let long = format!("00-{TRACE}-{SPAN}-01{}", "x".repeat(64 * 1024));
        let future = format!("01-{TRACE}-{SPAN}-01-{}", "x".repeat(64 * 1024));
        for bad in [
            "",
            "00",
            &format!("00-{TRACE}-{SPAN}"),
            &format!("00-{TRACE}-{SPAN}-01-"),
            &format!("00-{TRACE}-{SPAN}-01-x"),
            &format!("01-{TRACE}-{SPAN}-01x"),
            &format!("ff-{TRACE}-{SPAN}-01"),
            &format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            &format!("00-{zero}-{SPAN}-01"),
            &format!("00-{TRACE}-0000000000000000-01"),
            &format!("00-{TRACE}-{SPAN}-0g"),
            &format!("00_{TRACE}_{SPAN}_01"),
            &long,
            &future,
        ] {
            check(&[("traceparent", bad)], None, SamplingHint::Defer);
        }
        for bad in [
            "2",
            "x",
            &format!("{TRACE}-"),
            &format!("{TRACE}-{SPAN}-"),
            &format!("{TRACE}-{SPAN}-2"),
            &format!("{TRACE}-{SPAN}-1-"),
            &format!("{TRACE}-{SPAN}-1-{SPAN}-1"),
            &format!("{zero}-{SPAN}-1"),
            &format!("{}-{SPAN}-1", &TRACE[1..]),
            &"1".repeat(64 * 1024),
        ] {
            check(&[("b3", bad)], None, SamplingHint::Defer);
        }
        let w3c = format!("00-{TRACE}-{SPAN}-01");
        check(&[("traceparent", &w3c), ("traceparent", &w3c)], None, SamplingHint::Defer);
        check(&[("x-b3-traceid", TRACE)], None, SamplingHint::Defer);
    }

    #[test]
    fn trace_state_is_bounded_and_joined() {
        let w3c = format!("00-{TRACE}-{SPAN}-01");
        let state = |values: &[&str]| {
            let mut map = headers(&[("traceparent", &w3c)]);
            for value in values {
                map.append("tracestate", value.parse().unwrap());
            }
            let parent = IncomingTrace::from_headers(&map).parent.unwrap();
            parent.state.map(|state| state.to_str().unwrap().to_owned())
        };
        assert_eq!(state(&["a=1,b=2"]).as_deref(), Some("a=1,b=2"));
        assert_eq!(state(&["a=1", "b=2"]).as_deref(), Some("a=1,b=2"));
        assert_eq!(state(&["novalue"]), None);
        assert_eq!(state(&[&format!("a={}", "x".repeat(64 * 1024))]), None);
        assert_eq!(state(&["a=1,"; 33]), None);
    }

    #[test]
    fn headers_round_trip_in_every_form() {
        let mut ids = IdSource::from_seed([7; 32]);
        let sampler = Sampler::new(1.0, false);
        let mut map = headers(&[
            ("traceparent", &format!("00-{TRACE}-{SPAN}-00")),
            ("tracestate", "a=1"),
            ("x-b3-flags", "1"),
        ]);
        let incoming = IncomingTrace::from_headers(&map);
        let context = TraceContext::continued(incoming, &mut ids, &sampler);
        assert_eq!(context.trace_id.to_string(), TRACE);
        assert_eq!(context.parent.unwrap().to_string(), SPAN);
        context.write_headers(&mut map);
        assert_eq!(map["tracestate"], "a=1");
        assert_eq!(map["x-b3-parentspanid"], SPAN);
        assert!(!map.contains_key("x-b3-flags"));
        let all = map.clone();
        for forms in [
            &["traceparent", "tracestate"][..],
            &["b3"],
            &["x-b3-traceid", "x-b3-spanid", "x-b3-sampled", "x-b3-parentspanid"],
        ] {
            let mut one = HeaderMap::new();
            for name in forms {
                one.insert(*name, all[*name].clone());
            }
            let read = IncomingTrace::from_headers(&one);
            let parent = read.parent.unwrap();
            assert_eq!((parent.trace_id, parent.span_id), (context.trace_id, context.span_id));
            assert_eq!(read.hint, SamplingHint::Accept, "{forms:?}");
        }
        let text = context.span_ref().to_traceparent();
        assert_eq!(all["traceparent"].as_bytes(), text);
        assert!(SpanRef::parse_traceparent(&text).is_some());
        context.write_w3c(&mut map);
        assert!(!map.contains_key("b3") && map.contains_key("traceparent"));
    }

    #[test]
    fn an_invalid_context_is_not_forwarded() {
        let mut map = headers(&[("traceparent", "junk"), ("tracestate", "a=1"), ("b3", "junk")]);
        let incoming = IncomingTrace::from_headers(&map);
        let mut ids = IdSource::from_seed([1; 32]);
        let context = TraceContext::continued(incoming, &mut ids, &Sampler::new(0.0, true));
        context.write_headers(&mut map);
        assert_eq!(context.parent, None);
        assert!(!map.contains_key("tracestate"));
        assert_eq!(map["b3"], format!("{}-{}-0", context.trace_id, context.span_id));
    }

    #[test]
    fn sampling_depends_on_the_trace_id_alone() {
        let mut ids = IdSource::from_seed([3; 32]);
        let tenth = Sampler::new(0.1, false);
        let mut sampled = 0;
        for _ in 0..10_000 {
            let id = ids.trace_id();
            let first = tenth.decide(SamplingHint::Defer, id);
            // A stranger's flag changes nothing.
            assert_eq!(first, tenth.decide(SamplingHint::Debug, id));
            sampled += u32::from(first.is_sampled());
        }
        assert!((800..1200).contains(&sampled), "{sampled}");
        let id = ids.trace_id();
        assert_eq!(Sampler::new(1.0, true).decide(SamplingHint::Deny, id), Sampling::Off);
        assert_eq!(Sampler::new(0.0, true).decide(SamplingHint::Accept, id), Sampling::On);
        assert_eq!(Sampler::new(2.0, false).decide(SamplingHint::Defer, id), Sampling::On);
        assert_eq!(Sampler::new(f64::NAN, false).decide(SamplingHint::Defer, id), Sampling::Off);
    }
}
