//! The small HTTP/1 server behind the metrics, health and admin ports.
//!
//! It runs on the control runtime, so that it answers while the workers are saturated.
//! Connections, head size, head time and connection life are bounded. Handlers are
//! synchronous and never read a body.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode, header};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use isthmus_runtime::{Accepting, SocketError, bind_tcp};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// What answers a request; sees its head alone.
pub(crate) type Handler = Arc<dyn Fn(&Parts) -> Reply + Send + Sync>;

/// A whole answer.
pub(crate) type Reply = Response<Full<Bytes>>;

/// A port that could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The admin endpoint was given an address that others can reach.
    #[error("admin address {address} is not a loopback address; admin never listens on others")]
    NotLoopback {
        /// The address as given.
        address: SocketAddr,
    },
    /// The address cannot be bound.
    #[error("cannot open the {name} port")]
    Socket {
        /// Which port: metrics, health or admin.
        name: &'static str,
        /// What is wrong with the address.
        source: SocketError,
    },
    /// The runtime refused the socket.
    #[error("cannot register the {name} port")]
    System {
        /// Which port: metrics, health or admin.
        name: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}

/// A listening port and its connections; dropping it closes them all.
#[derive(Debug)]
pub struct ControlServer {
    address: SocketAddr,
    tasks: JoinSet<()>,
}

impl ControlServer {
    pub(crate) fn start(
        name: &'static str,
        address: SocketAddr,
        handler: Handler,
    ) -> Result<Self, ServeError> {
        let system = |source| ServeError::System { name, source };
        let sockets = bind_tcp(address, 1).map_err(|source| ServeError::Socket { name, source })?;
        let socket = sockets.into_iter().next();
        let missing = || system(std::io::Error::from(std::io::ErrorKind::NotFound));
        let listener = TcpListener::from_std(socket.ok_or_else(missing)?).map_err(system)?;
        let address = listener.local_addr().map_err(system)?;
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(name, listener, handler));
        Ok(Self { address, tasks })
    }

    /// The address that the port has.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Closes the port and its connections.
    pub async fn shutdown(mut self) {
        self.tasks.shutdown().await;
    }
}

async fn accept(name: &'static str, listener: TcpListener, handler: Handler) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    let mut accepting = Accepting::new(listener, name);
    loop {
        // Above the bound the kernel's queue holds what comes; the time limits below
        // make sure that a place becomes free.
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let (stream, _) = accepting.next().await;
        let handler = Arc::clone(&handler);
        connections.spawn(async move {
            let served = serve(stream, handler);
            // Whoever needs longer connects again.
            let _ = tokio::time::timeout(CONNECTION_LIFE_MAX, served).await;
            drop(permit);
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(stream: TcpStream, handler: Handler) {
    let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let (parts, _) = request.into_parts();
        let reply = handler(&parts);
        async move { Ok::<_, Infallible>(reply) }
    });
    let result = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = result {
        tracing::debug!(%error, "a control connection ended early");
    }
}

/// An answer with a text body.
pub(crate) fn reply(status: StatusCode, content_type: &'static str, body: String) -> Reply {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The answer to a method that the path does not have.
pub(crate) fn method_not_allowed(allow: &'static str) -> Reply {
    let text = "method not allowed\n".to_owned();
    let mut response = reply(StatusCode::METHOD_NOT_ALLOWED, TEXT, text);
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
    response
}

/// Whether a request only reads.
pub(crate) fn is_read(method: &Method) -> bool {
    method == Method::GET || method == Method::HEAD
}

pub(crate) const TEXT: &str = "text/plain; charset=utf-8";

/// Connections of one control port at a time.
const CONNECTIONS_MAX: usize = 64;
const CONNECTION_LIFE_MAX: Duration = Duration::from_secs(300);
const HEAD_TIME_MAX: Duration = Duration::from_secs(5);
const HEAD_BYTES_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 64;
