//! TLS listeners that share one bound address.
//!
//! While all of them are HTTPS, connections take the path of the proxy: one handshake,
//! one certificate resolver. As soon as one passes TLS through, or ends it for opaque
//! bytes, the ClientHello is read first, within bounds of bytes and time, and the server
//! name picks the listener. The bytes read are then given again to whoever goes on: to
//! rustls where TLS ends here, to the backend where it does not.
//!
//! Where TLS is routed by its server name, a name that no listener takes closes the
//! connection without a word: an alert would be the answer of a TLS server, and none is
//! there for this name (Gateway API conformance `TLSRouteHostnameIntersection`).

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use isthmus_model::snapshot::FrontKey;
use isthmus_model::{Generation, ListenerProtocol};
use isthmus_proxy::{Client, Rewound, Service, TlsSource, Worker, serve_stream, serve_tcp};
use isthmus_telemetry::{Protocol, ResponseFlag};
use rustls::server::Acceptor;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::certificates::FrontTls;
use crate::router::IngressRouter;
use crate::streams::{Refusal, carry, refused};

/// The TLS listeners of one bound address, on one worker.
pub(crate) struct TlsFront {
    worker: Rc<Worker>,
    key: FrontKey,
    https: Service,
    opaque: FrontTls,
    /// Whether every listener is HTTPS, as of a snapshot.
    only_https: Cell<Option<(Generation, bool)>>,
}

impl TlsFront {
    /// Serves the listeners at `key`; `port` is the one that clients see.
    pub(crate) fn new(worker: Rc<Worker>, key: FrontKey, port: u16) -> Self {
        let https = FrontTls::new(Rc::clone(&worker), key, ListenerProtocol::Https);
        let opaque = FrontTls::new(Rc::clone(&worker), key, ListenerProtocol::TlsTerminate);
        let tls: Rc<dyn TlsSource> = Rc::new(https);
        let https = Service { router: Rc::new(IngressRouter::new(key, port)), tls: Some(tls) };
        Self { worker, key, https, opaque, only_https: Cell::new(None) }
    }

    /// Serves one accepted connection.
    pub(crate) async fn serve(self: Rc<Self>, stream: TcpStream, address: SocketAddr) {
        if self.is_only_https() {
            return serve_tcp(Rc::clone(&self.worker), stream, address, self.https.clone()).await;
        }
        self.serve_mixed(stream, address).await;
    }

    fn is_only_https(&self) -> bool {
        let snapshot = self.worker.pin();
        if let Some((generation, known)) = self.only_https.get()
            && generation == snapshot.generation
        {
            return known;
        }
        let listeners = snapshot.front(&self.key).map(|f| f.listeners()).unwrap_or_default();
        let only = listeners.iter().all(|l| l.protocol == ListenerProtocol::Https);
        self.only_https.set(Some((snapshot.generation, only)));
        only
    }

    async fn serve_mixed(&self, mut stream: TcpStream, address: SocketAddr) {
        let mut client = Client { address, tls: true, identity: Rc::from(""), server_name: None };
        let Some(place) = self.worker.admit() else {
            return refused(&self.worker, &client, Protocol::Tls, Refusal::OVERLOAD);
        };
        let mut stop = self.worker.stop().clone();
        let limit = self.worker.settings().tls_timeout;
        let read = tokio::select! {
            read = tokio::time::timeout(limit, read_hello(&mut stream)) => read,
            () = stop.draining() => return,
        };
        let hello = match read {
            Ok(Ok(hello)) => hello,
            Ok(Err((refusal, alert))) => {
                refused(&self.worker, &client, Protocol::Tls, refusal);
                return say(stream, &alert).await;
            }
            Err(_) => return refused(&self.worker, &client, Protocol::Tls, SLOW_HELLO),
        };
        client.server_name = hello.server_name;
        let protocol = {
            let snapshot = self.worker.pin();
            let name = client.server_name.as_deref().unwrap_or("");
            snapshot
                .front(&self.key)
                .and_then(|front| front.listener(name))
                // A name without a route is refused before a certificate is shown.
                .filter(|e| {
                    e.listener.protocol == ListenerProtocol::Https || e.stream_route(name).is_some()
                })
                .map(|entry| entry.listener.protocol)
        };
        let replayed = Rewound::new(hello.bytes, stream);
        match protocol {
            Some(ListenerProtocol::Https) => {
                let config = self
                    .https
                    .tls
                    .as_ref()
                    .and_then(|tls| tls.config_for(client.server_name.as_deref()));
                if let Some(stream) = self.handshake(config, &client, replayed).await {
                    // The proxy takes a place of its own.
                    drop(place);
                    let (worker, router) = (Rc::clone(&self.worker), Rc::clone(&self.https.router));
                    serve_stream(worker, stream, client, router).await;
                }
            }
            Some(ListenerProtocol::TlsTerminate) => {
                let handshake = self.handshake(
                    self.opaque.config_for(client.server_name.as_deref()),
                    &client,
                    replayed,
                );
                if let Some(stream) = handshake.await {
                    carry(&self.worker, self.key, client, stream, Protocol::Tcp).await;
                }
            }
            Some(ListenerProtocol::TlsPassthrough) => {
                client.tls = false;
                carry(&self.worker, self.key, client, replayed, Protocol::Tls).await;
            }
            // The listeners of the other protocols are never at an address of TLS.
            Some(ListenerProtocol::Http | ListenerProtocol::Tcp | ListenerProtocol::Udp) | None => {
                refused(&self.worker, &client, Protocol::Tls, NO_NAME);
            }
        }
    }

    /// Ends TLS here; failures are recorded.
    async fn handshake(
        &self,
        config: Option<std::sync::Arc<rustls::ServerConfig>>,
        client: &Client,
        stream: Rewound<TcpStream>,
    ) -> Option<TlsStream<Rewound<TcpStream>>> {
        let Some(config) = config else {
            refused(&self.worker, client, Protocol::Tls, NO_CERTIFICATE);
            return None;
        };
        let limit = self.worker.settings().tls_timeout;
        match tokio::time::timeout(limit, TlsAcceptor::from(config).accept(stream)).await {
            Ok(Ok(stream)) => Some(stream),
            Ok(Err(error)) => {
                let detail = &error.to_string();
                let why = Refusal { route: "", flag: ResponseFlag::Malformed, detail };
                refused(&self.worker, client, Protocol::Tls, why);
                None
            }
            Err(_) => {
                refused(&self.worker, client, Protocol::Tls, SLOW_HELLO);
                None
            }
        }
    }
}

/// A ClientHello, with all bytes read so far.
struct Hello {
    bytes: Bytes,
    /// In lower case; `None` when the client names no host.
    server_name: Option<Rc<str>>,
}

/// Reads until the ClientHello is whole; otherwise says why, and with which alert.
async fn read_hello(stream: &mut TcpStream) -> Result<Hello, (Refusal<'static>, Vec<u8>)> {
    let mut bytes = BytesMut::with_capacity(HELLO_READ_BYTES);
    let mut acceptor = Acceptor::default();
    loop {
        let before = bytes.len();
        if before >= HELLO_BYTES_MAX {
            return Err((LONG_HELLO, Vec::new()));
        }
        match stream.read_buf(&mut bytes).await {
            Ok(0) | Err(_) => return Err((NO_HELLO, Vec::new())),
            Ok(_) => {}
        }
        let mut new = &bytes[before..];
        while !new.is_empty() {
            if acceptor.read_tls(&mut new).is_err() {
                return Err((LONG_HELLO, Vec::new()));
            }
        }
        match acceptor.accept() {
            Ok(None) => {}
            Ok(Some(accepted)) => {
                let hello = accepted.client_hello();
                let server_name =
                    hello.server_name().map(|name| Rc::from(name.to_ascii_lowercase()));
                return Ok(Hello { bytes: bytes.freeze(), server_name });
            }
            Err((_, mut alert)) => {
                let mut out = Vec::new();
                // Writing to memory does not fail.
                let _ = alert.write(&mut out);
                return Err((NOT_TLS, out));
            }
        }
    }
}

/// Sends an alert and ends.
async fn say<S: AsyncWrite + Unpin>(mut stream: S, alert: &[u8]) {
    // A client that does not read only loses the reason.
    let _ = stream.write_all(alert).await;
    let _ = stream.shutdown().await;
}

const fn malformed(detail: &'static str) -> Refusal<'static> {
    Refusal { route: "", flag: ResponseFlag::Malformed, detail }
}

/// Bytes of a ClientHello, with whatever came behind it. One record has at most 16 KiB;
/// hellos with post-quantum keys have about 2 KiB.
const HELLO_BYTES_MAX: usize = 32 * 1024;
/// Bytes read at once while a ClientHello is not whole.
const HELLO_READ_BYTES: usize = 4096;
const NO_NAME: Refusal<'static> = Refusal {
    route: "",
    flag: ResponseFlag::NoRoute,
    detail: "no listener with a route takes this TLS server name",
};
const NO_CERTIFICATE: Refusal<'static> = Refusal {
    route: "",
    flag: ResponseFlag::NoRoute,
    detail: "the listener has no certificate that can be used",
};
const SLOW_HELLO: Refusal<'static> = Refusal {
    route: "",
    flag: ResponseFlag::ClientTimeout,
    detail: "the TLS handshake took too long",
};
const LONG_HELLO: Refusal<'static> = Refusal {
    route: "",
    flag: ResponseFlag::TooLarge,
    detail: "the TLS ClientHello is larger than 32 KiB",
};
const NO_HELLO: Refusal<'static> = malformed("the client ended before its TLS ClientHello");
const NOT_TLS: Refusal<'static> = malformed("the client does not speak TLS");
