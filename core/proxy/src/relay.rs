//! Sends a request to an endpoint and gets its answer: picks, connects, retries.
//!
//! What may be retried is computed, never guessed: a request of which no byte has been
//! written may always go to another endpoint; one that has been written only if it is
//! idempotent and has no body. The record counts the attempts.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::HOST;
use http::request::Parts;
use http::uri::{Authority, Scheme, Uri};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
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
    let purpose = Purpose::Http { app };
    let replayable = is_replayable(&request, assignment);
    let mut tried = Tried::default();
    let mut last = None;
    let mut stale_retries = 0;
    loop {
        if log.attempts >= worker.settings.attempts_max {
            return Err(last.unwrap_or_else(|| Failure::no_endpoint(assignment)));
        }
        let Some(picked) = worker.pick(&balancer, &tried) else {
            return Err(last.unwrap_or_else(|| Failure::no_endpoint(assignment)));
        };
        log.attempts += 1;
        let checked_out = match check_out(worker, &picked, purpose, log.span).await {
            Ok(checked_out) => checked_out,
            Err(error) => {
                worker.note_outcome(&picked, Outcome::ConnectFailure);
                tried.add(&picked);
                last = Some(Failure::connect(&error));
                log.picked = Some(picked);
                continue;
            }
        };
        let saved = replayable.then(|| request.parts.clone());
        let reused = checked_out.reused;
        let sending = send(checked_out.sender, request);
        let sent = match attempt_limit {
            None => sending.await,
            Some(limit) => match tokio::time::timeout(limit, sending).await {
                Ok(sent) => sent,
                Err(_) => {
                    worker.note_outcome(&picked, Outcome::GatewayError);
                    log.picked = Some(picked);
                    return Err(Failure::timeout(limit));
                }
            },
        };
        let (error, returned) = match sent {
            Ok(answer) => {
                log.picked = Some(picked);
                return Ok(answer);
            }
            Err(failed) => failed,
        };
        let stale = reused && returned.is_some();
        if stale && stale_retries < STALE_RETRIES_MAX {
            // The other side closed an idle connection: nobody's failure, and not an
            // attempt. The endpoint may be tried again on a new connection.
            stale_retries += 1;
            log.attempts -= 1;
        } else {
            worker.note_outcome(&picked, Outcome::GatewayError);
            tried.add(&picked);
        }
        log.picked = Some(picked);
        let failure = Failure::reset(&error);
        request = match (returned, saved) {
            (Some(request), _) => request,
            (None, Some(parts)) => Outgoing { parts, body: RequestBody::Empty, grpc: false },
            (None, None) => return Err(failure),
        };
        last = Some(failure);
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
            shape_http1(&mut parts);
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

/// Origin form and `Host`.
fn shape_http1(parts: &mut Parts) {
    parts.version = Version::HTTP_11;
    parts.headers.remove(MESH_PORT_HEADER);
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
    if let Some(port) = port {
        parts.headers.insert(MESH_PORT_HEADER, HeaderValue::from(port));
    }
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

/// Whether a request may be sent again after it was written: idempotent, without a body,
/// and with somewhere else to go.
///
/// Spec: RFC 9110 section 9.2.2.
fn is_replayable(request: &Outgoing, assignment: &Assignment) -> bool {
    let idempotent = [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT, Method::DELETE];
    assignment.endpoints.len() > 1
        && matches!(request.body, RequestBody::Empty)
        && idempotent.contains(&request.parts.method)
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
/// Closed idle connections that one request may meet before it counts as a failure.
const STALE_RETRIES_MAX: u32 = 8;
