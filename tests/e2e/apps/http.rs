//! The HTTP application: says as JSON who answered and what reached it.
//!
//! Some paths do more: `/hold` waits until the test lets it go, `/echo` streams the body
//! back with its trailers, `/trailers` answers with trailers, `/early` does not wait for
//! the body.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::json;
use tokio::net::TcpStream;

use super::Shared;

/// Serves one connection.
pub(super) async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let service = service_fn(|request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(answer(request, &shared).await) }
    });
    // What a client does to its connection is no concern of a sample.
    let _ = auto::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

type Body = BoxBody<Bytes, hyper::Error>;

async fn answer(request: Request<Incoming>, shared: &Shared) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    if path.ends_with("/echo") {
        return Response::new(body.boxed());
    }
    let mut received = None;
    if !path.ends_with("/early") {
        received = body.collect().await.ok().map(|body| body.to_bytes().len());
    }
    if path.ends_with("/hold") {
        shared.hold().await;
    }
    let mut headers: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (name, value) in &parts.headers {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        headers.entry(name.as_str()).or_default().push(value);
    }
    let answer = json!({
        "service": shared.service,
        "cluster": shared.cluster,
        "version": format!("{:?}", parts.version),
        "method": parts.method.as_str(),
        "path": path,
        "query": parts.uri.query(),
        "headers": headers,
        "bodyBytes": received,
    });
    let body = Full::new(Bytes::from(answer.to_string())).map_err(|never| match never {});
    let mut response = if path.ends_with("/trailers") {
        let trailers = HeaderMap::from_iter([(
            http::HeaderName::from_static("x-checksum"),
            HeaderValue::from_static("abc"),
        )]);
        Response::new(body.with_trailers(std::future::ready(Some(Ok(trailers)))).boxed())
    } else {
        Response::new(body.boxed())
    };
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(http::header::CONTENT_TYPE, json);
    response.headers_mut().insert("x-internal", HeaderValue::from_static("yes"));
    response
}
