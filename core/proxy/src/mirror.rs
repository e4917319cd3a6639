//! Copies of requests to other services, whose answers nobody reads.
//!
//! A copy never touches the request that it is made from: it is sent by a task of its
//! own, when the request's body has gone by, and what goes wrong with it is only counted.
//! Bodies are copied as they stream past, up to [`BODY_BYTES_MAX`]; above it the copy is
//! given up. At most [`IN_FLIGHT_MAX`] copies of one worker exist at a time.
//!
//! Spec: Gateway API HTTPRequestMirrorFilter ("responses from the mirrored backend are
//! ignored").

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::EXPECT;
use http::request::Parts;
use http_body::Body;
use isthmus_model::route::{BackendTarget, Filter, Mirror};
use isthmus_model::{AppProtocol, Assignment, Snapshot};
use isthmus_runtime::clock;
use isthmus_telemetry::SpanRef;

use crate::balancer::Tried;
use crate::body::RequestBody;
use crate::connect::Purpose;
use crate::outlier::Outcome;
use crate::relay::{self, Outgoing};
use crate::upstream_tls::UpstreamTls;
use crate::worker::Worker;

/// The copies of one worker.
#[derive(Debug, Default)]
pub(crate) struct Mirrors {
    in_flight: Cell<usize>,
    dropped: Cell<u64>,
    reported: Cell<u64>,
}

impl Mirrors {
    /// Copies that were given up: too many, too large, or without an answer.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.get()
    }

    /// Tells operators of new losses; called each second.
    pub(crate) fn report(&self) {
        let (now, before) = (self.dropped.get(), self.reported.get());
        if now > before {
            tracing::warn!(copies = now - before, total = now, "mirrored requests were given up");
            self.reported.set(now);
        }
    }

    fn drop_one(&self) {
        self.dropped.set(self.dropped.get() + 1);
    }
}

/// One copy that is not sent yet.
#[derive(Debug)]
pub(crate) struct Copy {
    slot: Slot,
    parts: Parts,
    assignment: Arc<Assignment>,
    tls: Option<UpstreamTls>,
    grpc: bool,
    span: Option<SpanRef>,
}

/// A place among the copies of the worker.
#[derive(Debug)]
struct Slot(Rc<Worker>);

impl Drop for Slot {
    fn drop(&mut self) {
        let in_flight = &self.0.mirrors.in_flight;
        in_flight.set(in_flight.get().saturating_sub(1));
    }
}

/// What copies are made from.
pub(crate) struct Original<'a> {
    pub(crate) worker: &'a Rc<Worker>,
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) parts: &'a Parts,
    pub(crate) grpc: bool,
    pub(crate) span: Option<SpanRef>,
    /// The TLS towards the endpoints of an assignment.
    pub(crate) tls: &'a dyn Fn(&Assignment) -> Option<UpstreamTls>,
}

impl Original<'_> {
    /// The copies that the filters ask for this time.
    pub(crate) fn copies(&self, filters: &[Filter]) -> Vec<Copy> {
        let mirror = |filter: &Filter| match filter {
            Filter::Mirror(mirror) => self.copy(mirror),
            Filter::Cors(_)
            | Filter::Redirect(_)
            | Filter::RequestHeaders(_)
            | Filter::ResponseHeaders(_)
            | Filter::Rewrite(_) => None,
        };
        filters.iter().filter_map(mirror).collect()
    }

    fn copy(&self, mirror: &Mirror) -> Option<Copy> {
        if !is_chosen(mirror.fraction, self.worker.random()) {
            return None;
        }
        let mirrors = &self.worker.mirrors;
        let made = match &mirror.target {
            BackendTarget::Invalid { .. } => None,
            BackendTarget::Service { service, port } => self.snapshot.assignment(service, *port),
        };
        let free = mirrors.in_flight.get() < IN_FLIGHT_MAX;
        let Some(assignment) = made.filter(|_| free) else {
            mirrors.drop_one();
            return None;
        };
        let tls = (self.tls)(assignment);
        if tls.as_ref().is_some_and(|tls| tls.unusable().is_some()) {
            mirrors.drop_one();
            return None;
        }
        mirrors.in_flight.set(mirrors.in_flight.get() + 1);
        let slot = Slot(Rc::clone(self.worker));
        let mut parts = self.parts.clone();
        parts.headers.remove(EXPECT);
        let assignment = Arc::clone(assignment);
        Some(Copy { slot, parts, assignment, tls, grpc: self.grpc, span: self.span })
    }
}

fn is_chosen((part, whole): (u32, u32), random: u32) -> bool {
    // Scales the random number to 0..whole without the bias of a remainder.
    (u64::from(random) * u64::from(whole)) >> 32 < u64::from(part)
}

impl Copy {
    /// Sends the copy with its body, in a task of the worker.
    pub(crate) fn send(self, body: Bytes) {
        let worker = Rc::clone(&self.slot.0);
        let tasks = worker.tasks.clone();
        tasks.spawn(async move {
            let sent = tokio::time::timeout(TIMEOUT, self.run(body)).await;
            if !matches!(sent, Ok(Some(()))) {
                worker.mirrors.drop_one();
            }
        });
    }

    /// Sends, and reads the answer to its end; `None` when something went wrong.
    async fn run(self, body: Bytes) -> Option<()> {
        let worker = &self.slot.0;
        let picked = worker.pick(&worker.balancer(&self.assignment), &Tried::default())?;
        let app = if self.grpc { AppProtocol::Http2 } else { self.assignment.app };
        let purpose = Purpose::Http { app };
        let checked_out =
            relay::check_out(worker, &picked, purpose, (self.span, self.tls.as_ref())).await;
        let Ok(checked_out) = checked_out else {
            worker.note_outcome(&picked, Outcome::ConnectFailure);
            return None;
        };
        let body = if body.is_empty() { RequestBody::Empty } else { RequestBody::buffered(body) };
        let request = Outgoing { parts: self.parts, body, grpc: self.grpc };
        let answer = crate::send::send(checked_out.sender, request).await.ok()?;
        let mut incoming = answer.response.into_body();
        while let Some(frame) =
            std::future::poll_fn(|cx| Pin::new(&mut incoming).poll_frame(cx)).await
        {
            frame.ok()?;
        }
        if let Some(sender) = answer.sender {
            let lane = picked.state().connections.lane(self.tls.as_ref());
            lane.check_in(sender, clock::now(), worker.settings.upstream_idle_max);
        }
        Some(())
    }
}

/// Gathers a body that streams past, for the copies.
#[derive(Debug)]
pub(crate) struct Tee {
    gathered: BytesMut,
    copies: Vec<Copy>,
}

impl Tee {
    /// Gathers for these copies, of which there is at least one.
    pub(crate) fn new(copies: Vec<Copy>) -> Option<Box<Self>> {
        (!copies.is_empty()).then(|| Box::new(Self { gathered: BytesMut::new(), copies }))
    }

    /// Some of the body has gone by.
    pub(crate) fn data(&mut self, data: &[u8]) {
        if self.gathered.len().saturating_add(data.len()) <= BODY_BYTES_MAX {
            // A copy of the bytes: a slice would keep the whole buffer that it is from.
            self.gathered.extend_from_slice(data);
            return;
        }
        self.gathered = BytesMut::new();
        for copy in self.copies.drain(..) {
            copy.slot.0.mirrors.drop_one();
        }
    }

    /// The body is complete.
    pub(crate) fn end(mut self) {
        let body = std::mem::take(&mut self.gathered).freeze();
        for copy in std::mem::take(&mut self.copies) {
            copy.send(body.clone());
        }
    }
}

impl Drop for Tee {
    /// The request ended before its body did.
    fn drop(&mut self) {
        for copy in &self.copies {
            copy.slot.0.mirrors.drop_one();
        }
    }
}

/// Bytes of a body that is copied.
pub(crate) const BODY_BYTES_MAX: usize = 256 * 1024;
/// Copies of one worker, from the head of the request to the end of the answer; with the
/// limit of a body they bound the memory of one worker to 64 MiB.
const IN_FLIGHT_MAX: usize = 256;
/// Time for a copy, from its sending to the end of the answer.
const TIMEOUT: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fraction_takes_its_share_of_all_random_numbers() {
        let step = u32::MAX / 10_000;
        let share = |fraction| (0..10_000).filter(|n| is_chosen(fraction, n * step)).count();
        assert_eq!(share((1, 1)), 10_000);
        assert_eq!(share((100, 100)), 10_000);
        assert_eq!(share((0, 100)), 0);
        assert!((2499..=2501).contains(&share((25, 100))));
        assert!(is_chosen((1, 1), u32::MAX));
    }
}
