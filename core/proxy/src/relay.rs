//! Sends a request to an endpoint and gets its answer: picks, connects, retries.
//!
//! What may be retried is computed, never guessed: a request of which no byte has been
//! written may always go to another endpoint; one that has been written only if it is
//! idempotent and has no body. A rule's `retry` adds statuses, lost connections and
//! time-outs, whatever the method, for bodies that are small enough to be kept. The request
//! time-out bounds all attempts and pauses together. The record counts the attempts.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::HeaderName;
use http::request::Parts;
use http::{Response, StatusCode};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use isthmus_model::route::{Retry, Timeouts};
use isthmus_model::{AppProtocol, Assignment};
use isthmus_telemetry::SpanRef;

use crate::balancer::{Picked, Tried};
use crate::body::{Progress, RequestBody};
use crate::connect::{ConnectError, Purpose};
use crate::failure::Failure;
use crate::log::RequestLog;
use crate::mirror::{Copy, Tee};
use crate::outlier::Outcome;
use crate::pool::{self, CheckedOut, Opener};
use crate::send::send;
use crate::upstream_tls::UpstreamTls;
use crate::worker::Worker;

/// A request on its way out.
pub(crate) struct Outgoing {
    pub(crate) parts: Parts,
    pub(crate) body: RequestBody,
    pub(crate) grpc: bool,
}

impl Outgoing {
    /// The same request again; `None` when its body streams.
    fn copy(&self) -> Option<Self> {
        Some(Self { body: self.body.copy()?, parts: self.parts.clone(), grpc: self.grpc })
    }
}

/// An upstream's answer, and the connection to give back after its body.
pub(crate) struct Answer {
    pub(crate) response: Response<Incoming>,
    pub(crate) sender: Option<http1::SendRequest<RequestBody>>,
}

impl Answer {
    /// What the endpoint's proxy says of an application that did not answer, if the request
    /// may go to another endpoint for it.
    fn lost(&self, repeatable: bool) -> Option<Outcome> {
        let headers = self.response.headers();
        if headers.contains_key(&UNREACHED_HEADER) {
            // As good as a failed connection.
            Some(Outcome::ConnectFailure)
        } else if repeatable && headers.contains_key(&UNANSWERED_HEADER) {
            Some(Outcome::GatewayError)
        } else {
            None
        }
    }
}

/// How long an answer may take, and when it is asked for again.
#[derive(Clone, Copy, Default)]
pub(crate) struct Limits<'a> {
    pub(crate) timeouts: Timeouts,
    pub(crate) retry: Option<&'a Retry>,
}

impl Limits<'_> {
    fn attempts_max(&self, worker: &Worker) -> u32 {
        self.retry.map_or(worker.settings.attempts_max, |retry| retry.attempts.saturating_add(1))
    }

    /// Whether the rule wants another attempt after this status.
    fn wants(&self, status: StatusCode) -> bool {
        self.retry.is_some_and(|retry| retry.codes.contains(&status.as_u16()))
    }

    /// Waits before the attempt that follows `attempts`.
    async fn pause(&self, attempts: u32) {
        let Some(retry) = self.retry.filter(|retry| !retry.backoff.is_zero()) else { return };
        let doubled = 1u32.checked_shl(attempts.saturating_sub(1)).unwrap_or(u32::MAX);
        let limit = RETRY_PAUSE_MAX.max(retry.backoff);
        tokio::time::sleep(retry.backoff.saturating_mul(doubled).min(limit)).await;
    }
}

/// Sends a request and waits for the head of its answer.
pub(crate) async fn relay(
    worker: &Rc<Worker>,
    log: &mut RequestLog,
    request: Outgoing,
    assignment: &Arc<Assignment>,
    limits: Limits<'_>,
) -> Result<Answer, Failure> {
    let attempts = attempts(worker, log, request, assignment, limits);
    match limits.timeouts.request {
        None => attempts.await,
        Some(limit) => match tokio::time::timeout(limit, attempts).await {
            Ok(answer) => answer,
            Err(_) => Err(Failure::timeout(limit)),
        },
    }
}

#[expect(clippy::too_many_lines, reason = "one loop, whose arms share what was tried so far")]
async fn attempts(
    worker: &Rc<Worker>,
    log: &mut RequestLog,
    mut request: Outgoing,
    assignment: &Arc<Assignment>,
    limits: Limits<'_>,
) -> Result<Answer, Failure> {
    let balancer = worker.balancer(assignment);
    let app = if request.grpc { AppProtocol::Http2 } else { assignment.app };
    // TRACE, which is idempotent too, has been refused long before. A rule that asks for
    // retries vouches for its other methods (GEP-1731).
    let repeatable = request.parts.method.is_idempotent() || limits.retry.is_some();
    let attempts_max = limits.attempts_max(worker);
    let mut tried = Tried::default();
    let mut last = None;
    let mut stale_retries = 0;
    let others = |tried: &Tried, picked: &Picked| {
        let mut tried = tried.clone();
        tried.add(picked);
        worker.has_more(&balancer, &tried)
    };
    loop {
        if limits.retry.is_some() && !worker.has_more(&balancer, &tried) {
            // The rule counts attempts, not endpoints.
            tried = Tried::default();
        }
        let may_try = log.attempts < attempts_max;
        let Some(picked) = may_try.then(|| worker.pick(&balancer, &tried)).flatten() else {
            return Err(last.unwrap_or_else(|| Failure::no_endpoint(assignment)));
        };
        log.attempts += 1;
        let saved = request.copy();
        let limit = limits.timeouts.backend_request;
        let try_one = TryOne { picked: &picked, app, how: (log.span, log.tls.as_ref()), limit };
        let attempt = try_one.run(worker, request).await;
        let (outcome, failure, again) = match attempt {
            Attempt::Answered(answer) => {
                let speaks = pool::has_proxy(picked.endpoint());
                if let Some(outcome) = answer.lost(repeatable).filter(|_| speaks) {
                    worker.note_outcome(&picked, outcome);
                    tried.add(&picked);
                    log.picked = Some(picked);
                    let more = log.attempts < attempts_max && worker.has_more(&balancer, &tried);
                    match saved.filter(|_| more) {
                        Some(same) => request = same,
                        None => {
                            log.is_noted = true;
                            return Ok(answer);
                        }
                    }
                    continue;
                }
                let status = answer.response.status();
                let more = limits.wants(status) && log.attempts < attempts_max;
                match saved.filter(|_| more) {
                    Some(same) => (Outcome::of(status), Failure::status(status), Some(same)),
                    None => {
                        log.picked = Some(picked);
                        return Ok(poolable(answer, log));
                    }
                }
            }
            Attempt::TimedOut(limit) => {
                let again = saved.filter(|_| limits.retry.is_some());
                (Outcome::GatewayError, Failure::timeout(limit), again)
            }
            Attempt::NotConnected { error, request } => {
                (Outcome::ConnectFailure, Failure::connect(&error), Some(request))
            }
            Attempt::Broken { .. } if log.progress.broken.get() => {
                // Nothing that the endpoint did: a client must not be able to eject it.
                log.picked = Some(picked);
                return Err(Failure::broken_request());
            }
            Attempt::Broken { error, returned, reused } => {
                // What was written may be at an endpoint that is gone: it is sent to another
                // where there is one.
                let stale = reused && (returned.is_some() || !others(&tried, &picked));
                let again = returned.or_else(|| saved.filter(|_| repeatable));
                match again {
                    Some(same) if stale && stale_retries < STALE_RETRIES_MAX => {
                        // The other side closed an idle connection: nobody's failure, and
                        // not an attempt. The endpoint may be tried again.
                        stale_retries += 1;
                        log.attempts -= 1;
                        log.picked = Some(picked);
                        last = Some(Failure::reset(&error));
                        request = same;
                        continue;
                    }
                    again => (Outcome::GatewayError, Failure::reset(&error), again),
                }
            }
        };
        worker.note_outcome(&picked, outcome);
        tried.add(&picked);
        log.picked = Some(picked);
        match again {
            Some(same) => request = same,
            None => return Err(failure),
        }
        last = Some(failure);
        if log.attempts < attempts_max {
            limits.pause(log.attempts).await;
        }
    }
}

/// An answer before the end of its request keeps no connection: what is left of the request
/// would be read as the next one.
fn poolable(mut answer: Answer, log: &RequestLog) -> Answer {
    if !log.progress.complete.get() {
        answer.sender = None;
    }
    answer
}

/// One attempt at one endpoint.
struct TryOne<'a> {
    picked: &'a Picked,
    app: AppProtocol,
    how: How<'a>,
    limit: Option<Duration>,
}

/// What an attempt came to.
enum Attempt {
    Answered(Answer),
    /// The connection broke; the request comes back if nothing of it was written.
    Broken {
        error: hyper::Error,
        returned: Option<Outgoing>,
        reused: bool,
    },
    NotConnected {
        error: ConnectError,
        request: Outgoing,
    },
    TimedOut(Duration),
}

impl TryOne<'_> {
    async fn run(&self, worker: &Rc<Worker>, request: Outgoing) -> Attempt {
        let attempt = async {
            let purpose = Purpose::Http { app: self.app };
            let checked_out = match check_out(worker, self.picked, purpose, self.how).await {
                Ok(checked_out) => checked_out,
                Err(error) => return Attempt::NotConnected { error, request },
            };
            let reused = checked_out.reused;
            match send(checked_out.sender, request).await {
                Ok(answer) => Attempt::Answered(answer),
                Err((error, returned)) => Attempt::Broken { error, returned, reused },
            }
        };
        match self.limit {
            None => attempt.await,
            Some(limit) => {
                let timed = tokio::time::timeout(limit, attempt).await;
                timed.unwrap_or(Attempt::TimedOut(limit))
            }
        }
    }
}

/// The span that a connection is opened for, and the TLS that it speaks.
type How<'a> = (Option<SpanRef>, Option<&'a UpstreamTls>);

pub(crate) async fn check_out(
    worker: &Rc<Worker>,
    picked: &Picked,
    purpose: Purpose,
    how: How<'_>,
) -> Result<CheckedOut, ConnectError> {
    let opener = Opener {
        connector: worker.connector.as_ref(),
        tasks: &worker.tasks,
        connect_timeout: worker.settings.connect_timeout,
    };
    let to = || pool::destination(picked.assignment(), picked.endpoint(), purpose, how);
    picked.state().connections.lane(how.1).check_out(to, &opener).await
}

/// The body of a request, and whether it has been read.
///
/// A body that may have to be sent again, and is small, is read first.
pub(crate) async fn request_body(
    mut incoming: Incoming,
    log: &RequestLog,
    copies: Vec<Copy>,
    repeat: bool,
) -> Result<RequestBody, hyper::Error> {
    use http_body::Body;
    let progress = &log.progress;
    let send_all = |copies: Vec<Copy>, body: &Bytes| {
        copies.into_iter().for_each(|copy| copy.send(body.clone()));
    };
    if incoming.is_end_stream() {
        progress.complete.set(true);
        send_all(copies, &Bytes::new());
        return Ok(RequestBody::Empty);
    }
    let small = incoming.size_hint().exact().is_some_and(|size| size <= RETRY_BODY_BYTES_MAX);
    if repeat && small {
        let mut whole = BytesMut::new();
        while let Some(frame) =
            std::future::poll_fn(|cx| Pin::new(&mut incoming).poll_frame(cx)).await
        {
            if let Some(data) = frame?.data_ref() {
                whole.extend_from_slice(data);
                progress.bytes.set(whole.len() as u64);
            }
        }
        progress.complete.set(true);
        let whole = whole.freeze();
        send_all(copies, &whole);
        return Ok(RequestBody::buffered(whole));
    }
    let progress = Progress(Rc::clone(progress));
    Ok(RequestBody::Streaming { incoming, progress, tee: Tee::new(copies) })
}

/// Pause between attempts, where the rule's own is not longer.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(10);
/// Bytes of a body that is kept to be sent again.
const RETRY_BODY_BYTES_MAX: u64 = 64 * 1024;
/// Tells a sidecar which port of its application a request is for.
pub const MESH_PORT_HEADER: &str = "x-isthmus-port";
/// The same as a name, which need not be parsed for each request.
pub(crate) static MESH_PORT: HeaderName = HeaderName::from_static(MESH_PORT_HEADER);
/// Says between proxies that the application was not reached. Never leaves the mesh.
pub(crate) static UNREACHED_HEADER: HeaderName = HeaderName::from_static("x-isthmus-unreached");
/// Says between proxies that the application got the request and its connection ended
/// without an answer. Never leaves the mesh.
pub(crate) static UNANSWERED_HEADER: HeaderName = HeaderName::from_static("x-isthmus-unanswered");
/// Closed idle connections that one request may meet before it counts as a failure.
const STALE_RETRIES_MAX: u32 = 8;
