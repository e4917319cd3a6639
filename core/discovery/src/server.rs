//! The controller's gRPC service: mutual TLS, one identity for each connection.
//!
//! The accept loop never ends on an error: it pauses and goes on, since a controller that
//! has run out of descriptors must serve again once it has some. Connections are bounded,
//! in all and for each address, since whoever connects says only later who it is;
//! handshakes have a deadline, and a peer without a certificate never gets past TLS.
//!
//! A stream ends when the certificate that opened it does: what a peer has not proved
//! again it is not told. Its client has opened another one by then (`client/stream.rs`).

mod life;

use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use isthmus_model::{SpiffeId, TrustDomain};
use isthmus_runtime::{Accepting, Places, clock};
use rustls_pki_types::CertificateDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::Service;
use tonic::{Request, Response, Status, Streaming};

use self::life::Life;
use crate::executor::ConnectionTasks;
use crate::hub::PublisherHandle;
use crate::hub::session::{Authority, DELTAS_QUEUED, SessionError};
use crate::wire::proto::discovery_server::{Discovery, DiscoveryServer as GrpcService};
use crate::wire::{ClientAssembler, MESSAGE_BYTES_MAX, encode, proto};

/// Reads who a peer is from its verified chain, leaf first; `None` when the leaf does not
/// say.
pub type IdentifyPeer = Arc<dyn Fn(&[CertificateDer<'_>]) -> Option<PeerIdentity> + Send + Sync>;

/// What a peer has proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    /// Who it is.
    pub id: SpiffeId,
    /// The last moment at which its certificate is valid.
    pub not_after: SystemTime,
}

/// What the server needs.
#[derive(Clone)]
pub struct ServerOptions {
    /// Must demand and verify client certificates; ALPN is set here.
    pub tls: Arc<rustls::ServerConfig>,
    /// Reads the identity of a verified peer.
    pub identify: IdentifyPeer,
    /// The own trust domain; nobody else is served.
    pub trust_domain: TrustDomain,
    /// What is served.
    pub publisher: PublisherHandle,
    /// Connections at a time; further ones are closed at once. Default:
    /// [`CONNECTIONS_MAX`].
    pub connections_max: usize,
    /// Those of one address; further ones are closed at once. Default:
    /// [`ADDRESS_CONNECTIONS_MAX`].
    pub address_connections_max: usize,
}

impl ServerOptions {
    /// Options with the default limits.
    pub fn new(
        tls: Arc<rustls::ServerConfig>,
        identify: IdentifyPeer,
        trust_domain: TrustDomain,
        publisher: PublisherHandle,
    ) -> Self {
        Self {
            tls,
            identify,
            trust_domain,
            publisher,
            connections_max: CONNECTIONS_MAX,
            address_connections_max: ADDRESS_CONNECTIONS_MAX,
        }
    }
}

impl fmt::Debug for ServerOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerOptions")
            .field("trust_domain", &self.trust_domain)
            .finish_non_exhaustive()
    }
}

/// The listening server; dropping it ends every connection.
#[derive(Debug)]
pub struct DiscoveryServer {
    local: SocketAddr,
    _task: JoinSet<()>,
}

impl DiscoveryServer {
    /// Serves on a bound listener. Must be called inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// The system's, when the listener has no address.
    pub fn start(listener: TcpListener, options: ServerOptions) -> std::io::Result<Self> {
        let local = listener.local_addr()?;
        let mut task = JoinSet::new();
        task.spawn(accept(listener, options));
        Ok(Self { local, _task: task })
    }

    /// The bound address.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }
}

async fn accept(listener: TcpListener, options: ServerOptions) {
    let mut tls = (*options.tls).clone();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let mut places = Places::new(options.connections_max, options.address_connections_max);
    let mut connections = JoinSet::new();
    let mut accepting = Accepting::new(listener, "discovery");
    loop {
        let (stream, from) = tokio::select! {
            // Both arms are cancel-safe; which goes first does not matter.
            accepted = accepting.next() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let place = match places.take(from.ip()) {
            Ok(place) => place,
            Err(reason) => {
                tracing::debug!(%from, %reason, "a discovery connection was closed");
                continue;
            }
        };
        let (acceptor, options) = (acceptor.clone(), options.clone());
        connections.spawn(async move {
            if let Err(error) = connection(stream, acceptor, options).await {
                tracing::debug!(%error, "a discovery connection ended");
            }
            drop(place);
        });
    }
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum ConnectionError {
    #[error("HTTP/2 failed: {source}")]
    Http { source: hyper::Error },
    #[error("the peer's certificate names no identity")]
    NoIdentity,
    #[error("the TLS handshake failed: {source}")]
    Tls { source: std::io::Error },
    #[error("no TLS handshake within {} s", HANDSHAKE_TIMEOUT.as_secs())]
    Timeout,
}

async fn connection(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    options: ServerOptions,
) -> Result<(), ConnectionError> {
    // Small messages must not wait for each other; a refusal only costs latency.
    let _ = stream.set_nodelay(true);
    let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream))
        .await
        .map_err(|_| ConnectionError::Timeout)?
        .map_err(|source| ConnectionError::Tls { source })?;
    let peer = identity(&stream, &options).ok_or(ConnectionError::NoIdentity)?;
    let until = clock::deadline(clock::now(), clock::wall(), peer.not_after);
    let authority = Authority::Peer { identity: peer.id, own: options.trust_domain, until };
    let life = Life::new();
    let streams = Streams { authority, publisher: options.publisher, life: life.clone() };
    let grpc = GrpcService::new(streams)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    // A clone of the service is cheap, and each request needs its own.
    let service = service_fn(move |request| grpc.clone().call(request));
    let serving = http2::Builder::new(ConnectionTasks::default())
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADER_BYTES_MAX)
        .keep_alive_interval(Some(KEEP_ALIVE))
        .keep_alive_timeout(KEEP_ALIVE)
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        // Which goes first does not matter: both are the end.
        outcome = serving => outcome.map_err(|source| ConnectionError::Http { source }),
        () = life.end() => Ok(()),
    }
}

fn identity(stream: &TlsStream<TcpStream>, options: &ServerOptions) -> Option<PeerIdentity> {
    let (_, session) = stream.get_ref();
    (options.identify)(session.peer_certificates()?)
}

/// The service of one connection.
#[derive(Debug, Clone)]
struct Streams {
    authority: Authority,
    publisher: PublisherHandle,
    life: Life,
}

#[tonic::async_trait]
impl Discovery for Streams {
    type StreamStream = Pin<Box<dyn Stream<Item = Result<proto::ServerMessage, Status>> + Send>>;

    async fn stream(
        &self,
        request: Request<Streaming<proto::ClientMessage>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let mut assembler = ClientAssembler::default();
        // The session owns what it reads from, so this is dropped with the session.
        let guard = self.life.stream();
        let incoming = request.into_inner().filter_map(move |message| {
            let _ = &guard;
            let message = match message {
                Ok(message) => assembler
                    .handle(message)
                    .map_err(|error| SessionError::Protocol { reason: error.to_string() }),
                Err(_) => Err(SessionError::Closed),
            };
            std::future::ready(message.transpose())
        });
        let (outgoing, deltas) = tokio::sync::mpsc::channel(DELTAS_QUEUED);
        let publisher = self.publisher.clone();
        publisher
            .attach(self.authority.clone(), Box::pin(incoming), outgoing)
            .await
            .map_err(|error| status(&error))?;
        let outgoing = ReceiverStream::new(deltas).flat_map(|delta| match delta {
            Ok(delta) => futures_util::stream::iter(encode::delta(delta).map(Ok)).left_stream(),
            Err(error) => futures_util::stream::iter([Err(status(&error))]).right_stream(),
        });
        Ok(Response::new(Box::pin(outgoing)))
    }
}

fn status(error: &SessionError) -> Status {
    let text = error.to_string();
    match error {
        SessionError::Closed => Status::unavailable(text),
        SessionError::Expired => Status::unauthenticated(text),
        SessionError::Full => Status::resource_exhausted(text),
        SessionError::HelloTimeout | SessionError::NoHello | SessionError::Protocol { .. } => {
            Status::invalid_argument(text)
        }
        SessionError::Refused(_) => Status::permission_denied(text),
        SessionError::Subscription(_) => Status::aborted(text),
    }
}

/// The one protocol spoken inside TLS.
pub(crate) const ALPN: &[u8] = b"h2";

/// Connections at a time.
pub const CONNECTIONS_MAX: usize = 8192;

/// Connections of one address at a time. A proxy has one, and two while its certificate is
/// renewed; all proxies of a machine share its address, and so do all pods of a node that
/// hides them behind its own.
pub const ADDRESS_CONNECTIONS_MAX: usize = 1024;

/// How long a peer may take for TLS.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Streams of one connection; who opens another one connects again.
const STREAMS_MAX: u32 = 1;

/// Bytes in the headers of a request.
const HEADER_BYTES_MAX: u32 = 16 * 1024;

/// How often a silent connection is probed, and how long the answer may take.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(10);
