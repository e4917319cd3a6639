//! Answers that are made here: refusals, redirects, preflights.

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, LOCATION, UPGRADE};
use http::{HeaderValue, Response, StatusCode};
use isthmus_telemetry::{Protocol, ResponseFlag};

use crate::body::ResponseBody;
use crate::failure::Failure;
use crate::log::RequestLog;
use crate::relay::{UNANSWERED_HEADER, UNREACHED_HEADER};
use crate::service::Reply;

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
    // Tells a proxy that asked that it may ask another endpoint: always if the application
    // got nothing, else as the request allows.
    let says = [
        (ResponseFlag::UpstreamConnectFailure, &UNREACHED_HEADER),
        (ResponseFlag::UpstreamReset, &UNANSWERED_HEADER),
    ];
    let said = says.into_iter().find(|(of, _)| *of == flag && !log.source_identity.is_empty());
    let mut reply = if log.protocol == Protocol::Grpc {
        grpc_refusal(log, status, detail)
    } else {
        text_refusal(log, status, detail)
    };
    if let Some((_, header)) = said {
        reply.headers_mut().insert(header, HeaderValue::from_static("1"));
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
        // A rule whose backends cannot be used: GRPCRouteRule asks for UNAVAILABLE.
        500 if matches!(log.flag, ResponseFlag::NoHealthyUpstream | ResponseFlag::UpstreamTls) => {
            14
        }
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

pub(crate) fn redirected(
    mut log: Box<RequestLog>,
    redirect: Option<(StatusCode, HeaderValue)>,
) -> Reply {
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

/// Answers a browser's preflight. 200, since old browsers take no other status.
pub(crate) fn preflighted(mut log: Box<RequestLog>, headers: http::HeaderMap) -> Reply {
    log.refused(StatusCode::OK, ResponseFlag::Direct, String::new());
    let mut reply = Response::new(ResponseBody::Empty(Some(log)));
    *reply.headers_mut() = headers;
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
