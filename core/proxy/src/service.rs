//! One request, from its head to its answer, in a straight line: canonical form, trace,
//! snapshot, route, filters, endpoint, relay.

use std::cell::RefCell;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, EXPECT, HOST, LOCATION, UPGRADE};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use isthmus_model::{RequestHead, Trail};
use isthmus_runtime::clock;
use isthmus_telemetry::{HopRole, Protocol, ResponseFlag};

use crate::body::{ResponseBody, UpstreamBody};
use crate::canonical::{Authority, canonicalise};
use crate::connect::Io;
use crate::filters::{self, RedirectFrom};
use crate::headers::{self, ClientInfo, UpgradeRequest};
use crate::log::{Begin, RequestLog};
use crate::relay::{self, Answer, Failure, MESH_PORT, Outgoing, UNREACHED_HEADER};
use crate::router::{Route, RouteInput, Router};
use crate::watch::{ActiveRequest, Watch};
use crate::worker::Worker;

/// One client connection.
pub(crate) struct Connection {
    pub(crate) worker: Rc<Worker>,
    pub(crate) router: Rc<dyn Router>,
    pub(crate) client: ClientInfo,
    pub(crate) address: Option<SocketAddr>,
    /// The SPIFFE ID that the client proved; empty when it proved none.
    pub(crate) identity: Rc<str>,
    /// The server name of the client's TLS handshake.
    pub(crate) server_name: Option<Rc<str>>,
    pub(crate) watch: Rc<Watch>,
    /// The upstream side of a protocol change, until the client's side is free.
    pub(crate) tunnel: RefCell<Option<PendingTunnel>>,
}

type Reply = Response<ResponseBody>;

/// The upstream's bytes, and the record of the request that asked for them.
type PendingTunnel = (Box<dyn Io>, Box<RequestLog>);

/// Answers one request; never fails, since every failure is an answer.
pub(crate) async fn handle(
    connection: Rc<Connection>,
    request: Request<Incoming>,
) -> Result<Reply, Infallible> {
    let (mut parts, body) = request.into_parts();
    let is_connect = parts.method == Method::CONNECT;
    let one = parts.version != Version::HTTP_2;
    let worker = &connection.worker;
    let mut log = begin(&connection, &parts);
    let settings = &connection.worker.settings;
    if parts.headers.len() > settings.header_count_max {
        return Ok(refuse(
            log,
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            ResponseFlag::TooLarge,
            "too many header lines",
        ));
    }
    let authority = match canonicalise(&mut parts, settings.rules) {
        Ok(authority) => authority,
        Err(error) => {
            let mut reply =
                refuse(log, error.status(), ResponseFlag::Malformed, &error.to_string());
            if one {
                // Whoever sends what has no one meaning is not listened to any longer.
                close_after(&mut reply);
            }
            return Ok(reply);
        }
    };
    if parts.headers.get(EXPECT).is_some_and(|value| !is_continue(value)) {
        // RFC 9110 section 10.1.1.
        let (status, flag) = (StatusCode::EXPECTATION_FAILED, ResponseFlag::Malformed);
        let mut reply = refuse(log, status, flag, "only 100-continue can be expected");
        if one {
            close_after(&mut reply);
        }
        return Ok(reply);
    }
    if is_connect {
        return Ok(tunnel(&connection, log, authority, one).await);
    }
    if parts.uri.path() == "*" {
        return Ok(refuse(log, StatusCode::NO_CONTENT, ResponseFlag::Direct, ""));
    }
    let upgrade = headers::strip_request(&mut parts.headers, settings.forwarded);
    log.host.clone_from(&authority.host);
    log.uri = parts.uri.clone();
    begin_trace(&connection, &mut parts, &mut log);
    fetch_missing(&connection, &authority, &mut log).await;
    let mut reply = route(&connection, parts, body, (authority, &upgrade), log).await;
    let switched = reply.status() == StatusCode::SWITCHING_PROTOCOLS;
    if (upgrade != UpgradeRequest::None && !switched) || (one && worker.stop.is_draining()) {
        // The guard does not look at bytes after such a request.
        close_after(&mut reply);
    }
    Ok(reply)
}

/// A CONNECT is for applications that use their sidecar as a proxy, and for nobody else:
/// whoever else sent one could reach an application past policy.
async fn tunnel(
    connection: &Rc<Connection>,
    log: Box<RequestLog>,
    authority: Authority,
    one: bool,
) -> Reply {
    if one && connection.router.role() == HopRole::Outbound {
        return crate::upgrade::connect(connection, log, authority).await;
    }
    let (status, flag) = (StatusCode::METHOD_NOT_ALLOWED, ResponseFlag::Malformed);
    let mut reply = refuse(log, status, flag, "no tunnel is offered here");
    if one {
        close_after(&mut reply);
    }
    reply
}

fn begin(connection: &Connection, parts: &Parts) -> Box<RequestLog> {
    let grpc = parts.version == Version::HTTP_2 && is_grpc(parts);
    let protocol = match parts.version {
        _ if grpc => Protocol::Grpc,
        Version::HTTP_2 => Protocol::Http2,
        _ => Protocol::Http1,
    };
    RequestLog::begin(Begin {
        worker: Rc::clone(&connection.worker),
        pin: connection.worker.pin(),
        role: connection.router.role(),
        protocol,
        started: clock::now(),
        method: parts.method.clone(),
        uri: parts.uri.clone(),
        client: connection.address,
        source_identity: Rc::clone(&connection.identity),
        active: ActiveRequest::begin(&connection.watch),
    })
}

fn is_continue(expect: &HeaderValue) -> bool {
    expect.as_bytes().eq_ignore_ascii_case(b"100-continue")
}

fn is_grpc(parts: &Parts) -> bool {
    parts
        .headers
        .get(CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

fn begin_trace(connection: &Connection, parts: &mut Parts, log: &mut RequestLog) {
    let recorder = &connection.worker.recorder;
    let trace = recorder.begin_trace(&parts.headers);
    trace.write_headers(&mut parts.headers);
    log.span = Some(trace.span_ref());
    log.request_id = recorder.request_id(&mut parts.headers);
}

/// Waits for a service that the snapshot does not have yet, and pins the snapshot that
/// has it.
pub(crate) async fn fetch_missing(
    connection: &Connection,
    authority: &Authority,
    log: &mut RequestLog,
) {
    let Some(service) = connection.router.service(authority) else { return };
    if log.pin.service(&service).is_none() {
        connection.worker.want(&service).await;
        log.pin = connection.worker.pin();
    } else {
        connection.worker.touch(&service);
    }
}

async fn route(
    connection: &Rc<Connection>,
    mut parts: Parts,
    body: Incoming,
    (authority, upgrade): (Authority, &UpgradeRequest),
    mut log: Box<RequestLog>,
) -> Reply {
    let worker = &connection.worker;
    let pin = log.pin.clone();
    // Only a client that has proved who it is may choose the application's port: policy
    // was asked about the port that plaintext reaches.
    let mesh_port = mesh_port(&mut parts).filter(|_| !connection.identity.is_empty());
    let input = RouteInput {
        head: RequestHead {
            method: &parts.method,
            host: &authority.host,
            path: parts.uri.path(),
            query: parts.uri.query(),
            headers: &parts.headers,
        },
        port: authority.port,
        server_name: connection.server_name.as_deref(),
        mesh_port,
        random: worker.random(),
    };
    let (matched, backend, assignment) =
        match connection.router.route(&pin, &input, &mut Trail::off()) {
            Route::Refuse { matched, status, flag, detail } => {
                log.route = matched.map(|matched| matched.route_index);
                return refuse(log, status, flag, detail);
            }
            Route::Redirect { matched, redirect } => {
                log.route = Some(matched.route_index);
                let from = RedirectFrom {
                    scheme: if connection.client.tls { "https" } else { "http" },
                    host: &authority.host,
                    listener_port: connection.router.listener_port(),
                    uri: &parts.uri,
                    prefix_bytes: matched.prefix_bytes,
                };
                return redirected(log, filters::redirect(redirect, from));
            }
            Route::Forward { matched, backend, assignment } => (matched, backend, assignment),
        };
    log.route = matched.map(|matched| matched.route_index);
    let forwarded = worker.settings.forwarded;
    let host = parts.headers.get(HOST).cloned();
    headers::set_forwarded(&mut parts.headers, &connection.client, host.as_ref(), forwarded);
    let rule = matched.map(|matched| matched.rule());
    for filters in [rule.map(|rule| &rule.filters), backend.map(|backend| &backend.filters)] {
        let prefix = matched.map_or(0, |matched| matched.prefix_bytes);
        filters::apply_request(
            filters.map_or(&[], Vec::as_slice),
            &mut parts.headers,
            &mut parts.uri,
            prefix,
        );
    }
    let timeouts = rule.map(|rule| rule.timeouts).unwrap_or_default();
    let grpc = log.protocol == Protocol::Grpc;
    let mut reply = if *upgrade == UpgradeRequest::WebSocket {
        crate::upgrade::relay(connection, log, parts, &assignment).await
    } else {
        let request = Outgoing { parts, body: relay::request_body(body, &log), grpc };
        match relay::relay(worker, &mut log, request, &assignment, timeouts).await {
            Ok(answer) => answered(log, answer),
            Err(failure) => failed(log, failure),
        }
    };
    for filters in [rule.map(|rule| &rule.filters), backend.map(|backend| &backend.filters)] {
        filters::apply_response(filters.map_or(&[], Vec::as_slice), reply.headers_mut());
    }
    reply
}

/// Takes the application's port out of a mesh request.
fn mesh_port(parts: &mut Parts) -> Option<u16> {
    let value = parts.headers.remove(&MESH_PORT)?;
    value.to_str().ok()?.parse().ok()
}

pub(crate) fn answered(mut log: Box<RequestLog>, answer: Answer) -> Reply {
    log.from_upstream = true;
    if answer.response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let (status, flag) = (StatusCode::BAD_GATEWAY, ResponseFlag::UpstreamProtocol);
        return refuse(log, status, flag, "the upstream changed the protocol unasked");
    }
    let (mut parts, incoming) = answer.response.into_parts();
    parts.headers.remove(&UNREACHED_HEADER);
    headers::strip_response(&mut parts.headers);
    parts.version = Version::HTTP_11;
    log.answered(parts.status);
    if log.protocol == Protocol::Grpc {
        log.grpc_status(&parts.headers);
    }
    let ended = {
        use http_body::Body;
        incoming.is_end_stream()
    };
    if ended {
        log.completed();
        if let Some(sender) = answer.sender {
            log.give_back(sender);
        }
        return Response::from_parts(parts, ResponseBody::Empty(Some(log)));
    }
    let body = UpstreamBody { incoming, sender: answer.sender, log };
    Response::from_parts(parts, ResponseBody::Upstream(Box::new(body)))
}

pub(crate) fn failed(log: Box<RequestLog>, failure: Failure) -> Reply {
    refuse(log, failure.status, failure.flag, &failure.detail)
}

/// An answer of our own. gRPC clients get their status in headers.
///
/// Spec: gRPC over HTTP/2, "Trailers-Only"; the map from HTTP is gRPC's
/// `http-grpc-status-mapping`.
pub(crate) fn refuse(
    mut log: Box<RequestLog>,
    status: StatusCode,
    flag: ResponseFlag,
    detail: &str,
) -> Reply {
    log.refused(status, flag, detail.to_owned());
    let unreached = flag == ResponseFlag::UpstreamConnectFailure && !log.source_identity.is_empty();
    let mut reply = if log.protocol == Protocol::Grpc {
        grpc_refusal(log, status, detail)
    } else {
        text_refusal(log, status, detail)
    };
    if unreached {
        // Tells a proxy that asked that the application got nothing, so that it may ask
        // another endpoint.
        reply.headers_mut().insert(&UNREACHED_HEADER, HeaderValue::from_static("1"));
    }
    reply
}

fn text_refusal(log: Box<RequestLog>, status: StatusCode, detail: &str) -> Reply {
    let text = if detail.is_empty() { Bytes::new() } else { Bytes::from(format!("{detail}\n")) };
    let empty = text.is_empty();
    let body = if empty {
        ResponseBody::Empty(Some(log))
    } else {
        ResponseBody::Text(Some(text), Some(log))
    };
    let mut reply = Response::new(body);
    *reply.status_mut() = status;
    if !empty {
        let plain = HeaderValue::from_static("text/plain; charset=utf-8");
        reply.headers_mut().insert(CONTENT_TYPE, plain);
    }
    reply
}

fn grpc_refusal(log: Box<RequestLog>, status: StatusCode, detail: &str) -> Reply {
    let code: u16 = match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 => 14,
        504 => 4,
        _ => 2,
    };
    let mut log = log;
    log.status = StatusCode::OK.as_u16();
    let mut reply = Response::new(ResponseBody::Empty(Some(log)));
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from(code));
    let message: String = detail.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').collect();
    if let Ok(message) = HeaderValue::from_str(&message.replace('%', "%25")) {
        headers.insert("grpc-message", message);
    }
    reply
}

fn redirected(mut log: Box<RequestLog>, redirect: Option<(StatusCode, HeaderValue)>) -> Reply {
    let Some((status, location)) = redirect else {
        let (status, flag) = (StatusCode::INTERNAL_SERVER_ERROR, ResponseFlag::Malformed);
        return refuse(log, status, flag, "the redirect has no valid location");
    };
    log.refused(status, ResponseFlag::Direct, String::new());
    let mut reply = Response::new(ResponseBody::Empty(Some(log)));
    *reply.status_mut() = status;
    reply.headers_mut().insert(LOCATION, location);
    reply
}

pub(crate) fn close_after(reply: &mut Reply) {
    reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
}

/// Puts the headers of a protocol change back on.
pub(crate) fn mark_upgrade(headers: &mut http::HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
}
