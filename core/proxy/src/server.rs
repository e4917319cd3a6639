//! Client connections: accept, find out what is spoken, serve, drain.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::TokioTimer;
use isthmus_runtime::{Accepting, clock};
use isthmus_telemetry::{AccessRecord, Protocol, ResponseFlag};
use rustls::ServerConfig;
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::LazyConfigAcceptor;

use crate::client_io::{ClientIo, Rewound};
use crate::executor::HyperExecutor;
use crate::guard::Guard;
use crate::headers::ClientInfo;
use crate::router::Router;
use crate::service::{Connection, handle};
use crate::watch::Watch;
use crate::worker::Worker;

/// Where the TLS configuration of a listener comes from; asked for each connection, so
/// that a new certificate is used by the next handshake.
pub trait TlsSource {
    /// The current configuration; `None` closes the connection.
    fn config(&self) -> Option<Arc<ServerConfig>>;

    /// The same for a client that asks for this name; by default every name has one.
    fn config_for(&self, _server_name: Option<&str>) -> Option<Arc<ServerConfig>> {
        self.config()
    }
}

/// What a listener serves.
#[derive(Clone)]
pub struct Service {
    /// Decides where requests go.
    pub router: Rc<dyn Router>,
    /// Ends TLS, if the listener has it.
    pub tls: Option<Rc<dyn TlsSource>>,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").field("tls", &self.tls.is_some()).finish_non_exhaustive()
    }
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub struct Client {
    /// The address.
    pub address: SocketAddr,
    /// Whether the connection is TLS.
    pub tls: bool,
    /// The SPIFFE ID that the client proved; empty when it proved none.
    pub identity: Rc<str>,
    /// The server name that the client asked for.
    pub server_name: Option<Rc<str>>,
}

/// Accepts HTTP connections until the drain begins.
pub async fn accept(worker: Rc<Worker>, listener: TcpListener, service: Service) {
    let owner = Rc::clone(&worker);
    let serve =
        move |stream, address| serve_tcp(Rc::clone(&owner), stream, address, service.clone());
    accept_each(worker, listener, serve).await;
}

/// Accepts connections until the drain begins and serves each in a task of the worker.
///
/// An error of `accept` never ends the loop: it backs off and goes on, since running out
/// of file descriptors must not turn a listener off.
pub async fn accept_each<F, S>(worker: Rc<Worker>, listener: TcpListener, serve: F)
where
    F: Fn(TcpStream, SocketAddr) -> S,
    S: Future<Output = ()> + 'static,
{
    let mut stop = worker.stop().clone();
    let mut accepting = Accepting::new(listener, "data plane");
    loop {
        let (stream, address) = tokio::select! {
            biased; // A drain must win over a flood of new connections.
            () = stop.draining() => return,
            accepted = accepting.next() => accepted,
        };
        if stream.set_nodelay(true).is_ok() {
            worker.tasks().spawn(serve(stream, address));
        }
    }
}

/// Serves HTTP on a connection that was just accepted, TLS included where the service has
/// it.
pub async fn serve_tcp(
    worker: Rc<Worker>,
    stream: TcpStream,
    address: SocketAddr,
    service: Service,
) {
    let Some(watch) = worker.watch() else {
        tracing::debug!("connection limit of the worker reached; a connection is closed");
        return;
    };
    let mut client = Client { address, tls: false, identity: Rc::from(""), server_name: None };
    let Some(tls) = &service.tls else {
        return serve(worker, stream, client, service.router, watch).await;
    };
    let handshake = async {
        let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        let config = tls.config_for(start.client_hello().server_name());
        let config = config.ok_or_else(|| std::io::Error::other("no usable certificate"))?;
        start.into_stream(config).await
    };
    match tokio::time::timeout(worker.settings.tls_timeout, handshake).await {
        Ok(Ok(stream)) => {
            client.tls = true;
            client.server_name = stream.get_ref().1.server_name().map(Rc::from);
            serve(worker, stream, client, service.router, watch).await;
        }
        Ok(Err(error)) => tracing::debug!(%error, %address, "TLS handshake failed"),
        Err(_) => tracing::debug!(%address, "TLS handshake took too long"),
    }
}

/// Serves HTTP on a stream whose client is known already.
pub async fn serve_stream<S>(worker: Rc<Worker>, stream: S, client: Client, router: Rc<dyn Router>)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let Some(watch) = worker.watch() else { return };
    serve(worker, stream, client, router, watch).await;
}

/// Finds out which HTTP is spoken and serves it to its end.
async fn serve<S>(
    worker: Rc<Worker>,
    mut stream: S,
    client: Client,
    router: Rc<dyn Router>,
    watch: Rc<Watch>,
) where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let _in_flight = worker.stop().guard();
    let detected = tokio::time::timeout(worker.settings.idle_timeout, detect(&mut stream));
    let mut stop = worker.stop().clone();
    let detected = tokio::select! {
        detected = detected => detected,
        () = stop.draining() => return,
    };
    let Ok(Ok((http, prefix))) = detected else { return };
    let connection = Rc::new(Connection {
        client: ClientInfo::new(client.address.ip(), client.tls),
        address: Some(client.address),
        identity: client.identity,
        server_name: client.server_name,
        watch: Rc::clone(&watch),
        tunnel: Default::default(),
        router,
        worker: Rc::clone(&worker),
    });
    let guard = (http == Http::One).then(Guard::new);
    let io = ClientIo::new(stream, prefix, guard, watch, worker.scratch());
    match http {
        Http::One => serve_http1(connection, io).await,
        Http::Two => serve_http2(connection, io).await,
        Http::Nothing => {}
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Http {
    Nothing,
    One,
    Two,
}

/// Reads until the first bytes tell HTTP/2 (RFC 9113 section 3.4) from HTTP/1.
async fn detect<S: AsyncRead + Unpin>(stream: &mut S) -> std::io::Result<(Http, Bytes)> {
    let mut first = BytesMut::with_capacity(DETECT_BYTES);
    loop {
        let known = first.len().min(PREFACE.len());
        if first[..known] != PREFACE[..known] {
            return Ok((Http::One, first.freeze()));
        }
        if known == PREFACE.len() {
            return Ok((Http::Two, first.freeze()));
        }
        if stream.read_buf(&mut first).await? == 0 {
            let http = if first.is_empty() { Http::Nothing } else { Http::One };
            return Ok((http, first.freeze()));
        }
    }
}

async fn serve_http1<S>(connection: Rc<Connection>, io: ClientIo<S>)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let service = {
        let connection = Rc::clone(&connection);
        service_fn(move |request: Request<Incoming>| handle(Rc::clone(&connection), request))
    };
    let settings = &connection.worker.settings;
    let mut serving = std::pin::pin!(
        http1::Builder::new()
            // A client that goes away must be noticed while an upstream is silent.
            .half_close(false)
            // Not `pipeline_flush`: with it, hyper leaves its own refusals (and answers
            // before them) in the buffer for as long as unread bytes follow them.
            .writev(false)
            .max_buf_size(settings.header_bytes_max.max(MIN_BUFFER_BYTES))
            .max_headers(settings.header_count_max)
            .serve_connection(io, service)
            .without_shutdown()
    );
    let mut stop = connection.worker.stop().clone();
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = stop.draining() => {
            connection.watch.drain();
            tokio::select! {
                ended = serving => ended,
                () = stop.forced() => return,
            }
        }
    };
    record_refusal(&connection);
    match ended {
        Ok(parts) if connection.tunnel.borrow().is_some() => {
            let mut stream = Rewound::new(parts.read_buf, parts.io.into_stream());
            crate::upgrade::carry(&connection, &mut stream).await;
        }
        Ok(parts) => {
            use tokio::io::AsyncWriteExt;
            let _ = parts.io.into_stream().shutdown().await;
        }
        Err(error) => tracing::debug!(%error, "client connection ended"),
    }
}

async fn serve_http2<S>(connection: Rc<Connection>, io: ClientIo<S>)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let service = {
        let connection = Rc::clone(&connection);
        service_fn(move |request: Request<Incoming>| handle(Rc::clone(&connection), request))
    };
    let settings = &connection.worker.settings;
    let header_bytes = u32::try_from(settings.header_bytes_max).unwrap_or(u32::MAX);
    let mut serving = std::pin::pin!(
        http2::Builder::new(HyperExecutor::new(connection.worker.tasks().clone()))
            .timer(TokioTimer::new())
            .max_concurrent_streams(settings.streams_max)
            .max_header_list_size(header_bytes)
            .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
            .max_local_error_reset_streams(LOCAL_RESETS_MAX)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(settings.connection_window_bytes)
            .max_send_buf_size(SEND_BUFFER_BYTES)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .serve_connection(io, service)
    );
    let mut stop = connection.worker.stop().clone();
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = stop.draining() => {
            serving.as_mut().graceful_shutdown();
            tokio::select! {
                ended = serving => ended,
                () = stop.forced() => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "client connection ended");
    }
}

/// A message that the guard refused was answered by hyper; it is recorded here.
fn record_refusal(connection: &Connection) {
    let Some(refusal) = connection.watch.refusal.get() else { return };
    let record = AccessRecord {
        client: connection.address,
        status: 400,
        flag: ResponseFlag::Malformed,
        detail: refusal.label(),
        ..AccessRecord::new(connection.router.role(), Protocol::Http1, clock::wall())
    };
    connection.worker.recorder.record(&record);
}

/// What an HTTP/2 client begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM";
const DETECT_BYTES: usize = 4096;
/// hyper's lower bound of its buffer.
const MIN_BUFFER_BYTES: usize = 8192;
/// Streams that a client has reset before we looked at them (rapid reset).
const PENDING_RESETS_MAX: usize = 20;
/// Streams that we reset for a client's errors (MadeYouReset).
const LOCAL_RESETS_MAX: usize = 256;
/// What a client may send on one stream before an upstream reads.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
/// Bytes of answers buffered for one stream.
const SEND_BUFFER_BYTES: usize = 256 * 1024;
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
