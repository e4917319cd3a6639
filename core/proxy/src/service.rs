//! One request, from its head to its answer, in a straight line: canonical form, trace,
//! snapshot, route, filters, endpoint, relay.

use std::cell::RefCell;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::header::{CONTENT_TYPE, EXPECT, HOST, ORIGIN};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use isthmus_model::route::Backend;
use isthmus_model::table::Matched;
use isthmus_model::{Assignment, RequestHead, Snapshot, Trail};
use isthmus_runtime::clock;
use isthmus_telemetry::{HopRole, Protocol, ResponseFlag};

use crate::body::{ResponseBody, UpstreamBody};
use crate::canonical::{Authority, canonicalise};
use crate::connect::Io;
use crate::cors;
use crate::filters::{self, RedirectFrom};
use crate::headers::{self, ClientInfo, UpgradeRequest};
use crate::log::{Begin, RequestLog};
use crate::mirror::Original;
use crate::relay::{
    self, Answer, Limits, MESH_PORT, Outgoing, UNANSWERED_HEADER, UNREACHED_HEADER,
};
use crate::reply::{close_after, failed, preflighted, redirected, refuse};
use crate::router::{Route, RouteInput, Router, Target};
use crate::upstream_tls::UpstreamTls;
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

pub(crate) type Reply = Response<ResponseBody>;

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
    let chosen = Chosen { matched, backend, assignment, snapshot: &pin };
    forward(connection, (parts, body), (authority, upgrade), chosen, log).await
}

/// Where the router sends a request, and the snapshot that says so.
struct Chosen<'s> {
    matched: Option<&'s Matched>,
    backend: Option<&'s Backend>,
    assignment: Target<'s>,
    snapshot: &'s Snapshot,
}

/// Does what the rule asks for on the way to a backend and back.
async fn forward(
    connection: &Rc<Connection>,
    (mut parts, body): (Parts, Incoming),
    (authority, upgrade): (Authority, &UpgradeRequest),
    chosen: Chosen<'_>,
    mut log: Box<RequestLog>,
) -> Reply {
    let worker = &connection.worker;
    let Chosen { matched, backend, assignment, snapshot } = chosen;
    let rule = matched.map(|matched| matched.rule());
    let lists = [
        rule.map_or(&[][..], |rule| rule.filters.as_slice()),
        backend.map_or(&[][..], |backend| backend.filters.as_slice()),
    ];
    let cors = lists.iter().find_map(|filters| cors::of(filters));
    if let Some(cors) = cors.filter(|_| cors::is_preflight(&parts.method, &parts.headers)) {
        return preflighted(log, cors::preflight(cors, &parts.headers));
    }
    let origin = cors.and_then(|_| parts.headers.get(ORIGIN).cloned());
    let forwarded = worker.settings.forwarded;
    let host = parts.headers.get(HOST).cloned();
    headers::set_forwarded(&mut parts.headers, &connection.client, host.as_ref(), forwarded);
    let tls = |assignment: &Assignment| upstream_tls(connection, snapshot, &authority, assignment);
    log.tls = upstream_tls(connection, snapshot, &authority, &assignment);
    if let Some(tls) = log.tls.clone()
        && let Some(reason) = tls.unusable()
    {
        let detail = format!("BackendTLSPolicy {} cannot be used: {reason}", tls.policy.policy);
        let (status, flag) = (StatusCode::INTERNAL_SERVER_ERROR, ResponseFlag::UpstreamTls);
        return refuse(log, status, flag, &detail);
    }
    let prefix = matched.map_or(0, |matched| matched.prefix_bytes);
    let mut copies = Vec::new();
    for filters in lists {
        filters::apply_request(filters, &mut parts.headers, &mut parts.uri, prefix);
        if *upgrade != UpgradeRequest::WebSocket {
            let grpc = log.protocol == Protocol::Grpc;
            let (parts, span) = (&parts, log.span);
            let original = Original { worker, snapshot, parts, grpc, span, tls: &tls };
            copies.extend(original.copies(filters));
        }
    }
    let limits = Limits {
        timeouts: rule.map(|rule| rule.timeouts).unwrap_or_default(),
        retry: rule.and_then(|rule| rule.retry.as_ref()),
    };
    let grpc = log.protocol == Protocol::Grpc;
    let mut reply = if *upgrade == UpgradeRequest::WebSocket {
        crate::upgrade::relay(connection, log, parts, &assignment).await
    } else {
        let body = relay::request_body(body, &log, copies, limits.retry.is_some()).await;
        let Ok(body) = body else {
            let (status, flag) = (StatusCode::BAD_REQUEST, ResponseFlag::ClientDisconnect);
            return refuse(log, status, flag, "the request's body was cut short");
        };
        let request = Outgoing { parts, body, grpc };
        match relay::relay(worker, &mut log, request, &assignment, limits).await {
            Ok(answer) => answered(log, answer),
            Err(failure) => failed(log, failure),
        }
    };
    if let Some(cors) = cors {
        cors::mark(cors, origin.as_ref(), reply.headers_mut());
    }
    for filters in lists {
        filters::apply_response(filters, reply.headers_mut());
    }
    reply
}

/// The TLS towards plain endpoints of an assignment; a matter of gateways.
fn upstream_tls(
    connection: &Connection,
    snapshot: &Snapshot,
    authority: &Authority,
    assignment: &Assignment,
) -> Option<UpstreamTls> {
    let router = &connection.router;
    if router.role() != HopRole::Ingress {
        return None;
    }
    let policy = snapshot.backend_tls(&assignment.service, assignment.port)?;
    let certificate = router.backend_certificate(snapshot, &authority.host);
    Some(UpstreamTls { policy: Arc::clone(policy), certificate: certificate.cloned() })
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
    parts.headers.remove(&UNANSWERED_HEADER);
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
