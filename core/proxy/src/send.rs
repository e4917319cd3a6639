//! One request on one connection: the form that HTTP/1.1 or HTTP/2 wants it in.

use http::header::{HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::uri::{Authority, Scheme, Uri};
use http::{HeaderValue, Request, Version};

use crate::body::RequestBody;
use crate::pool::Sender;
use crate::relay::{Answer, MESH_PORT, Outgoing};

/// Sends on one connection; on failure gives the request back if nothing was written.
pub(crate) async fn send(
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
