//! Sends a request to an endpoint and gets its answer: picks, connects, retries.
//!
//! What may be retried is computed, never guessed: a request of which no byte has been
//! written may always go to another endpoint; one that has been written only if it is
//! idempotent and has no body. The record counts the attempts.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::{HOST, HeaderName, TRANSFER_ENCODING};
use http::request::Parts;
use http::uri::{Authority, Scheme, Uri};
use http::{HeaderValue, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use isthmus_model::route::Timeouts;
use isthmus_model::{AppProtocol, Assignment};
use isthmus_telemetry::{ResponseFlag, SpanRef};

use crate::balancer::{Picked, Tried};
use crate::body::{Progress, RequestBody};
use crate::connect::{ConnectError, Purpose};
use crate::log::RequestLog;
use crate::outlier::Outcome;
use crate::pool::{self, CheckedOut, Opener, Sender};
use crate::worker::Worker;

/// A request on its way out.
pub(crate) struct Outgoing {
    pub(crate) parts: Parts,
    pub(crate) body: RequestBody,
    pub(crate) grpc: bool,
}

/// An upstream's answer, and the connection to give back after its body.
pub(crate) struct Answer {
    pub(crate) response: Response<Incoming>,
    pub(crate) sender: Option<http1::SendRequest<RequestBody>>,
}

impl Answer {
    /// Whether the endpoint's proxy says that the application got nothing.
    fn is_unreached(&self) -> bool {
        self.response.headers().contains_key(&UNREACHED_HEADER)
    }
}

/// Why there is no answer.
pub(crate) struct Failure {
    pub(crate) status: StatusCode,
    pub(crate) flag: ResponseFlag,
    pub(crate) detail: String,
}

impl Failure {
    fn no_endpoint(assignment: &Assignment) -> Self {
        let detail =
            format!("{} port {} has no usable endpoint", assignment.service, assignment.port);
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            flag: ResponseFlag::NoHealthyUpstream,
            detail,
        }
    }

    fn connect(error: &ConnectError) -> Self {
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            flag: error.flag(),
            detail: error.to_string(),
        }
    }

    fn reset(error: &hyper::Error) -> Self {
        let (status, flag) = if error.is_parse() {
            (StatusCode::BAD_GATEWAY, ResponseFlag::UpstreamProtocol)
        } else {
            (StatusCode::BAD_GATEWAY, ResponseFlag::UpstreamReset)
        };
        Self { status, flag, detail: format!("the upstream ended without an answer: {error}") }
    }

    fn timeout(limit: Duration) -> Self {
        Self {
            status: StatusCode::GATEWAY_TIMEOUT,
            flag: ResponseFlag::UpstreamTimeout,
            detail: format!("no answer within {} ms", limit.as_millis()),
        }
    }
}

/// Sends a request and waits for the head of its answer.
pub(crate) async fn relay(
    worker: &Rc<Worker>,
    log: &mut RequestLog,
    request: Outgoing,
    assignment: &Arc<Assignment>,
    timeouts: Timeouts,
) -> Result<Answer, Failure> {
    let attempts = attempts(worker, log, request, assignment, timeouts.backend_request);
    match timeouts.request {
        None => attempts.await,
        Some(limit) => match tokio::time::timeout(limit, attempts).await {
            Ok(answer) => answer,
            Err(_) => Err(Failure::timeout(limit)),
        },
    }
}

async fn attempts(
    worker: &Rc<Worker>,
    log: &mut RequestLog,
    mut request: Outgoing,
    assignment: &Arc<Assignment>,
    attempt_limit: Option<Duration>,
) -> Result<Answer, Failure> {
    let balancer = worker.balancer(assignment);
    let app = if request.grpc { AppProtocol::Http2 } else { assignment.app };
    let (grpc, (bodyless, idempotent)) = (request.grpc, replayable(&request));
    let mut tried = Tried::default();
    let mut last = None;
    let mut stale_retries = 0;
    let others = |tried: &Tried, picked: &Picked| {
        let mut tried = tried.clone();
        tried.add(picked);
        worker.has_more(&balancer, &tried)
    };
    loop {
        let may_try = log.attempts < worker.settings.attempts_max;
        let Some(picked) = may_try.then(|| worker.pick(&balancer, &tried)).flatten() else {
            return Err(last.unwrap_or_else(|| Failure::no_endpoint(assignment)));
        };
        log.attempts += 1;
        let saved = bodyless.then(|| request.parts.clone());
        let replay = |parts| Outgoing { parts, body: RequestBody::Empty, grpc };
        let try_one = TryOne { picked: &picked, app, span: log.span, limit: attempt_limit };
        let attempt = try_one.run(worker, request).await;
        let (outcome, failure, again) = match attempt {
            Attempt::Answered(answer) if answer.is_unreached() => {
                // The endpoint's proxy answered, and its application was not reached: as
                // good as a failed connection.
                worker.note_outcome(&picked, Outcome::ConnectFailure);
                tried.add(&picked);
                log.picked = Some(picked);
                let more = log.attempts < worker.settings.attempts_max
                    && worker.has_more(&balancer, &tried);
                match saved.filter(|_| more) {
                    Some(parts) => request = replay(parts),
                    None => return Ok(answer),
                }
                continue;
            }
            Attempt::Answered(answer) => {
                log.picked = Some(picked);
                return Ok(poolable(answer, log));
            }
            Attempt::TimedOut(limit) => {
                worker.note_outcome(&picked, Outcome::GatewayError);
                log.picked = Some(picked);
                return Err(Failure::timeout(limit));
            }
            Attempt::NotConnected { error, request } => {
                (Outcome::ConnectFailure, Failure::connect(&error), Some(request))
            }
            Attempt::Broken { error, returned, reused } => {
                // What was written may be at an endpoint that is gone: it is sent to another
                // where there is one.
                let stale = reused && (returned.is_some() || !others(&tried, &picked));
                let again = returned.or_else(|| saved.filter(|_| idempotent).map(replay));
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
    span: Option<SpanRef>,
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
            let checked_out = match check_out(worker, self.picked, purpose, self.span).await {
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

async fn check_out(
    worker: &Rc<Worker>,
    picked: &Picked,
    purpose: Purpose,
    span: Option<SpanRef>,
) -> Result<CheckedOut, ConnectError> {
    let opener = Opener {
        connector: worker.connector.as_ref(),
        tasks: &worker.tasks,
        connect_timeout: worker.settings.connect_timeout,
    };
    let to = || pool::destination(picked.assignment(), picked.endpoint(), purpose, span);
    picked.state().connections.check_out(to, &opener).await
}

/// Sends on one connection; on failure gives the request back if nothing was written.
async fn send(
    sender: Sender,
    request: Outgoing,
) -> Result<Answer, (hyper::Error, Option<Outgoing>)> {
    let Outgoing { mut parts, body, grpc } = request;
    let give_back = |message: Option<Request<RequestBody>>| {
        message.map(|message| {
            let (parts, body) = message.into_parts();
            Outgoing { parts, body, grpc }
        })
    };
    match sender {
        Sender::Http1(mut sender) => {
            shape_http1(&mut parts, &body);
            match sender.try_send_request(Request::from_parts(parts, body)).await {
                Ok(response) => Ok(Answer { response, sender: Some(sender) }),
                Err(mut error) => {
                    let message = give_back(error.take_message());
                    Err((error.into_error(), message))
                }
            }
        }
        Sender::Http2 { mut sender, port } => {
            shape_http2(&mut parts, port);
            match sender.try_send_request(Request::from_parts(parts, body)).await {
                Ok(response) => Ok(Answer { response, sender: None }),
                Err(mut error) => {
                    let message = give_back(error.take_message());
                    Err((error.into_error(), message))
                }
            }
        }
    }
}

/// Origin form and `Host`; a body of unknown length is chunked, whatever the method.
fn shape_http1(parts: &mut Parts, body: &RequestBody) {
    use http_body::Body;
    parts.version = Version::HTTP_11;
    if !body.is_end_stream() && body.size_hint().exact().is_none() {
        parts.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    parts.headers.remove(&MESH_PORT);
    if let Some(authority) = parts.uri.authority() {
        // Shaped for HTTP/2 by an earlier attempt.
        if let Ok(host) = HeaderValue::from_str(authority.as_str()) {
            parts.headers.insert(HOST, host);
        }
        if let Some(path) = parts.uri.path_and_query() {
            parts.uri = Uri::from(path.clone());
        }
    }
}

/// Absolute form, from which h2 takes `:scheme`, `:authority` and `:path`.
fn shape_http2(parts: &mut Parts, port: Option<u16>) {
    parts.version = Version::HTTP_2;
    parts.headers.remove(TRANSFER_ENCODING);
    match port {
        Some(port) => parts.headers.insert(&MESH_PORT, HeaderValue::from(port)),
        None => parts.headers.remove(&MESH_PORT),
    };
    let Some(host) = parts.headers.remove(HOST) else { return };
    let authority = Authority::try_from(host.as_bytes());
    let path = parts.uri.path_and_query().cloned();
    let (Ok(authority), Some(path)) = (authority, path) else { return };
    let mut uri = http::uri::Parts::default();
    uri.scheme = Some(Scheme::HTTP);
    uri.authority = Some(authority);
    uri.path_and_query = Some(path);
    if let Ok(uri) = Uri::from_parts(uri) {
        parts.uri = uri;
    }
}

/// Whether a request has no body, and whether it is idempotent: with both it may be sent
/// again after it was written.
///
/// Spec: RFC 9110 section 9.2.2.
fn replayable(request: &Outgoing) -> (bool, bool) {
    let bodyless = matches!(request.body, RequestBody::Empty);
    // TRACE, which is idempotent too, has been refused long before.
    (bodyless, request.parts.method.is_idempotent())
}

/// The body of a request, and whether it has been read.
pub(crate) fn request_body(incoming: Incoming, log: &RequestLog) -> RequestBody {
    use http_body::Body;
    if incoming.is_end_stream() {
        log.progress.complete.set(true);
        return RequestBody::Empty;
    }
    RequestBody::Streaming { incoming, progress: Progress(Rc::clone(&log.progress)) }
}

/// Tells a sidecar which port of its application a request is for.
pub const MESH_PORT_HEADER: &str = "x-isthmus-port";
/// The same as a name, which need not be parsed for each request.
pub(crate) static MESH_PORT: HeaderName = HeaderName::from_static(MESH_PORT_HEADER);
/// Says between proxies that the application was not reached. Never leaves the mesh.
pub(crate) static UNREACHED_HEADER: HeaderName = HeaderName::from_static("x-isthmus-unreached");
/// Closed idle connections that one request may meet before it counts as a failure.
const STALE_RETRIES_MAX: u32 = 8;
