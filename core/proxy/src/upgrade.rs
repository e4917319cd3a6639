//! WebSocket: a request that ends HTTP on its connection.
//!
//! It gets an upstream connection of its own that is never pooled: opaque bytes to the
//! application, HTTP/1.1 spoken on them. Bytes after the request reach the upstream only
//! after both sides have agreed with `101`.
//!
//! Spec: RFC 9110 section 7.8, RFC 6455.

use std::rc::Rc;
use std::sync::Arc;

use http::request::Parts;
use http::{Method, Request, Response, StatusCode, Version};
use hyper_util::rt::TokioIo;
use isthmus_hbone::{SpliceLimits, splice};
use isthmus_model::{Assignment, RequestHead, Trail};
use isthmus_telemetry::ResponseFlag;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::balancer::Tried;
use crate::body::{RequestBody, ResponseBody};
use crate::canonical::Authority;
use crate::connect::{Io, Purpose};
use crate::log::RequestLog;
use crate::outlier::Outcome;
use crate::pool;
use crate::relay::Answer;
use crate::reply::{close_after, mark_upgrade, refuse};
use crate::router::{Route, RouteInput};
use crate::service::{self, Connection};
use crate::tcp;

/// Passes a WebSocket request on and keeps the upstream side for after the answer.
pub(crate) async fn relay(
    connection: &Rc<Connection>,
    mut log: Box<RequestLog>,
    mut parts: Parts,
    assignment: &Arc<Assignment>,
) -> Response<ResponseBody> {
    let worker = &connection.worker;
    if parts.version != Version::HTTP_11 {
        let (status, flag) = (StatusCode::BAD_REQUEST, ResponseFlag::Malformed);
        return refuse(log, status, flag, "a protocol change needs HTTP/1.1");
    }
    let balancer = worker.balancer(assignment);
    let mut tried = Tried::default();
    if parts.headers.contains_key(http::header::CONTENT_LENGTH) {
        let (status, flag) = (StatusCode::BAD_REQUEST, ResponseFlag::Malformed);
        return refuse(log, status, flag, "a protocol change has no body");
    }
    let (mut status, mut flag) = (StatusCode::SERVICE_UNAVAILABLE, ResponseFlag::NoHealthyUpstream);
    let mut detail = format!("{} has no usable endpoint", assignment.service);
    mark_upgrade(&mut parts.headers);
    while log.attempts < worker.settings.attempts_max {
        let Some(picked) = worker.pick(&balancer, &tried) else { break };
        log.attempts += 1;
        let how = (log.span, log.tls.as_ref());
        let to = pool::destination(picked.assignment(), picked.endpoint(), Purpose::Bytes, how);
        let connecting = worker.connector.connect(to);
        let connected = tokio::time::timeout(worker.settings.connect_timeout, connecting).await;
        let io = match connected {
            Ok(Ok(connected)) => connected.io.boxed(),
            Ok(Err(error)) => {
                worker.note_outcome(&picked, Outcome::ConnectFailure);
                tried.add(&picked);
                (flag, detail) = (error.flag(), error.to_string());
                continue;
            }
            Err(_) => {
                worker.note_outcome(&picked, Outcome::ConnectFailure);
                tried.add(&picked);
                (flag, detail) =
                    (ResponseFlag::UpstreamConnectFailure, "connecting took too long".into());
                continue;
            }
        };
        log.picked = Some(picked);
        let request = Request::from_parts(parts, RequestBody::Empty);
        let sent = match pool::http1_handshake(io, &worker.tasks).await {
            Ok(mut sender) => sender.send_request(request).await,
            Err(error) => Err(error),
        };
        return match sent {
            Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                switch(connection, log, response).await
            }
            Ok(response) => service::answered(log, Answer { response, sender: None }),
            Err(error) => {
                let flag = ResponseFlag::UpstreamReset;
                refuse(log, StatusCode::BAD_GATEWAY, flag, &error.to_string())
            }
        };
    }
    if detail.is_empty() {
        status = StatusCode::BAD_GATEWAY;
    }
    refuse(log, status, flag, &detail)
}

async fn switch(
    connection: &Rc<Connection>,
    mut log: Box<RequestLog>,
    mut response: Response<hyper::body::Incoming>,
) -> Response<ResponseBody> {
    log.from_upstream = true;
    log.answered(StatusCode::SWITCHING_PROTOCOLS);
    let upgraded = match hyper::upgrade::on(&mut response).await {
        Ok(upgraded) => upgraded,
        Err(error) => {
            let (status, flag) = (StatusCode::BAD_GATEWAY, ResponseFlag::UpstreamReset);
            return refuse(log, status, flag, &error.to_string());
        }
    };
    let (mut parts, _) = response.into_parts();
    crate::headers::strip_response(&mut parts.headers);
    mark_upgrade(&mut parts.headers);
    parts.version = Version::HTTP_11;
    let upstream: Box<dyn Io> = Box::new(TokioIo::new(upgraded));
    *connection.tunnel.borrow_mut() = Some((upstream, log));
    Response::from_parts(parts, ResponseBody::Empty(None))
}

/// Opens a tunnel for a client that asked with CONNECT (the outbound side of a sidecar).
///
/// Spec: RFC 9110 section 9.3.6.
pub(crate) async fn connect(
    connection: &Rc<Connection>,
    mut log: Box<RequestLog>,
    authority: Authority,
) -> Response<ResponseBody> {
    service::fetch_missing(connection, &authority, &mut log).await;
    let pin = log.pin.clone();
    let headers = http::HeaderMap::new();
    let input = RouteInput {
        head: RequestHead {
            method: &Method::CONNECT,
            host: &authority.host,
            path: "/",
            query: None,
            headers: &headers,
        },
        port: authority.port,
        server_name: None,
        mesh_port: None,
        random: connection.worker.random(),
    };
    log.host.clone_from(&authority.host);
    let mut reply = match connection.router.route(&pin, &input, &mut Trail::off()) {
        Route::Forward { assignment, .. } => {
            match tcp::connect(&connection.worker, &assignment, None).await {
                Ok((picked, upstream, attempts)) => {
                    log.picked = Some(picked);
                    log.attempts = attempts;
                    log.answered(StatusCode::OK);
                    *connection.tunnel.borrow_mut() = Some((upstream, log));
                    return Response::new(ResponseBody::Empty(None));
                }
                Err((flag, detail, _)) => {
                    refuse(log, StatusCode::SERVICE_UNAVAILABLE, flag, &detail)
                }
            }
        }
        Route::Refuse { status, flag, detail, .. } => refuse(log, status, flag, detail),
        Route::Redirect { .. } => {
            refuse(log, StatusCode::BAD_REQUEST, ResponseFlag::Malformed, "not a tunnel")
        }
    };
    close_after(&mut reply);
    reply
}

/// Carries bytes both ways until both sides have ended.
pub(crate) async fn carry<S>(connection: &Connection, client: &mut S)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Some((mut upstream, mut log)) = connection.tunnel.borrow_mut().take() else { return };
    let mut stop = connection.worker.stop.clone();
    let limits = SpliceLimits::default();
    tokio::select! {
        outcome = splice(client, &mut upstream, &limits) => {
            log.progress.bytes.set(outcome.a_to_b);
            log.sent(outcome.b_to_a);
            log.completed();
        }
        () = stop.forced() => log.flag = ResponseFlag::Draining,
    }
}
