//! A certificate authority, a server whose targets are named by authority, and clients.

use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use isthmus_hbone::wire::{ALPN_CONNECT, ALPN_HTTP};
use isthmus_hbone::{
    ConnectError, ConnectRequest, MeshAcceptor, MeshConnection, MeshConnector, ServeLimits,
    ServeOutcome, SpliceLimits, TunnelClient, TunnelSettings, TunnelStream, Verdict, serve_connect,
    splice,
};
use isthmus_model::SpiffeId;
use isthmus_runtime::Drain;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;

pub(crate) const SERVER: &str = "spiffe://east.test/ns/shop/sa/cart";
pub(crate) const CLIENT: &str = "spiffe://east.test/ns/web/sa/front";

/// One authority and what it has issued.
pub(crate) struct World {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl World {
    pub(crate) fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(root.der().clone()).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        Self { issuer: rcgen::Issuer::new(params, key), roots: Arc::new(roots), provider }
    }

    fn issue(&self, id: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names.push(rcgen::SanType::URI(id.try_into().unwrap()));
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        (vec![leaf.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    }

    pub(crate) fn server_config(&self, alpn: &[&[u8]]) -> Arc<ServerConfig> {
        let (chain, key) = self.issue(SERVER);
        let verifier = WebPkiClientVerifier::builder_with_provider(
            Arc::clone(&self.roots),
            Arc::clone(&self.provider),
        );
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(chain, key)
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|value| value.to_vec()).collect();
        Arc::new(config)
    }

    /// A client that expects `peer` and offers one protocol.
    pub(crate) fn client_config(&self, peer: &str, alpn: &[u8]) -> Arc<ClientConfig> {
        let (chain, key) = self.issue(CLIENT);
        let verifier = Expecting {
            peer: SpiffeId::parse(peer).unwrap(),
            roots: Arc::clone(&self.roots),
            provider: Arc::clone(&self.provider),
        };
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_auth_cert(chain, key)
            .unwrap();
        config.alpn_protocols = vec![alpn.to_vec()];
        config.enable_sni = false;
        Arc::new(config)
    }

    /// A server with the default limits.
    pub(crate) async fn server(&self) -> Server {
        self.server_with(ServeLimits::default()).await
    }

    pub(crate) async fn server_with(&self, limits: ServeLimits) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = MeshAcceptor::new(self.server_config(&[ALPN_CONNECT, ALPN_HTTP]), identify);
        let drain = Drain::new();
        let (targets, events) = Targets::new();
        let (ended, outcomes) = mpsc::unbounded_channel();
        let (stop, shared) = (drain.stop(), targets.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (io, _) = listener.accept().await.unwrap();
                io.set_nodelay(true).unwrap();
                let (acceptor, limits) = (acceptor.clone(), limits.clone());
                let (stop, targets, ended) = (stop.clone(), shared.clone(), ended.clone());
                connections.spawn(async move {
                    let Ok(connection) = acceptor.accept(io).await else { return };
                    let handler = move |request| targets.clone().decide(request);
                    let outcome = serve_connect(connection, &limits, handler, stop).await;
                    let _ = ended.send(outcome);
                });
            }
        });
        Server { address, drain, targets, events, outcomes, tasks }
    }

    /// The TLS stream of a client.
    pub(crate) async fn dial(&self, address: SocketAddr) -> ClientTls {
        let config = self.client_config(SERVER, ALPN_CONNECT);
        dial(address, config).await.unwrap()
    }

    /// A client connection, with its driver in `tasks`.
    pub(crate) async fn client(
        &self,
        address: SocketAddr,
        tasks: &mut JoinSet<()>,
    ) -> TunnelClient {
        let io = self.dial(address).await;
        let (client, driver) =
            TunnelClient::handshake(io, TunnelSettings::default()).await.unwrap();
        tasks.spawn(driver.run());
        client
    }

    /// Both ends of one connection without sockets, for paused time.
    pub(crate) async fn pair(
        &self,
    ) -> (
        MeshConnection<tokio::io::DuplexStream>,
        impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let acceptor = MeshAcceptor::new(self.server_config(&[ALPN_CONNECT]), identify);
        let (connector, config) = (MeshConnector::new(), self.client_config(SERVER, ALPN_CONNECT));
        let (server, client) = tokio::join!(acceptor.accept(far), connector.connect(near, config));
        (server.unwrap(), client.unwrap().stream)
    }
}

pub(crate) type ClientTls = tokio_rustls::client::TlsStream<TcpStream>;

pub(crate) async fn dial(
    address: SocketAddr,
    config: Arc<ClientConfig>,
) -> Result<ClientTls, ConnectError> {
    let io = TcpStream::connect(address)
        .await
        .map_err(|source| ConnectError::Dial { target: address.to_string(), source })?;
    io.set_nodelay(true).unwrap();
    Ok(MeshConnector::new().connect(io, config).await?.stream)
}

/// Reads the one SPIFFE URI of a leaf certificate.
pub(crate) fn identify(chain: &[CertificateDer<'_>]) -> Result<SpiffeId, String> {
    use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
    let (_, leaf) = X509Certificate::from_der(&chain[0]).map_err(|error| error.to_string())?;
    let names = leaf.subject_alternative_name().map_err(|error| error.to_string())?;
    let names = names.ok_or("no names")?.value.general_names.clone();
    let [GeneralName::URI(uri)] = names[..] else { return Err("not one URI".to_owned()) };
    SpiffeId::parse(uri).map_err(|error| error.to_string())
}

/// A server, its targets and what it saw.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) drain: Drain,
    pub(crate) targets: Targets,
    pub(crate) events: mpsc::UnboundedReceiver<Seen>,
    pub(crate) outcomes: mpsc::UnboundedReceiver<ServeOutcome>,
    pub(crate) tasks: JoinSet<()>,
}

/// What a target of the server reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    /// A request reached the handler.
    Asked { authority: String, peer: String },
    /// A held verdict was given up.
    GivenUp,
    /// A `read` target read this much and ended so.
    Read { bytes: usize, error: Option<std::io::ErrorKind> },
}

/// What the server does for each authority.
#[derive(Clone)]
pub(crate) struct Targets {
    seen: mpsc::UnboundedSender<Seen>,
    pub(crate) release: Arc<Notify>,
}

type Tunnel = Box<dyn FnOnce(TunnelStream) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

impl Targets {
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<Seen>) {
        let (seen, events) = mpsc::unbounded_channel();
        (Self { seen, release: Arc::default() }, events)
    }

    pub(crate) async fn decide(self, request: ConnectRequest) -> Verdict<Tunnel> {
        let authority = request.authority.to_string();
        let _ = self
            .seen
            .send(Seen::Asked { authority: authority.clone(), peer: request.peer.to_string() });
        let (host, _) = authority.split_once(':').unwrap();
        match host {
            "echo.test" => accept(echo),
            // The verdict comes when the test says so.
            "later.test" => {
                let given_up = GivenUp { seen: Some(self.seen.clone()) };
                self.release.notified().await;
                given_up.done();
                accept(echo)
            }
            // Ends its data first, then reads to the end.
            "greet.test" => accept(move |mut stream| async move {
                stream.write_all(b"hello").await.unwrap();
                stream.shutdown().await.unwrap();
                self.read(stream).await;
            }),
            "read.test" => accept(move |stream| self.read(stream)),
            // Takes nothing until released.
            "stall.test" => accept(move |stream| async move {
                self.release.notified().await;
                self.read(stream).await;
            }),
            // Relays to a TCP server on this host.
            "127.0.0.1" => {
                let address = request.authority.as_socket_addr().unwrap();
                let mut upstream = TcpStream::connect(address).await.unwrap();
                accept(move |mut stream| async move {
                    splice(&mut stream, &mut upstream, &SpliceLimits::default()).await;
                })
            }
            _ => Verdict::refuse(StatusCode::FORBIDDEN, format!("no {host} here")),
        }
    }

    async fn read(self, mut stream: TunnelStream) {
        let (mut bytes, mut buffer) = (0, vec![0; 64 * 1024]);
        let error = loop {
            match stream.read(&mut buffer).await {
                Ok(0) => break None,
                Ok(count) => bytes += count,
                Err(error) => break Some(error.kind()),
            }
        };
        let _ = self.seen.send(Seen::Read { bytes, error });
    }
}

fn accept<F, R>(run: F) -> Verdict<Tunnel>
where
    F: FnOnce(TunnelStream) -> R + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    Verdict::accept(Box::new(move |stream| Box::pin(run(stream))))
}

pub(crate) async fn echo(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        if stream.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
    let _ = stream.shutdown().await;
}

/// Reports a verdict that was dropped while it was pending.
struct GivenUp {
    seen: Option<mpsc::UnboundedSender<Seen>>,
}

impl GivenUp {
    fn done(mut self) {
        self.seen = None;
    }
}

impl Drop for GivenUp {
    fn drop(&mut self) {
        if let Some(seen) = &self.seen {
            let _ = seen.send(Seen::GivenUp);
        }
    }
}

/// Fails a test that hangs.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("the test hangs")
}

/// Accepts a chain of our authority whose leaf has exactly the expected identity.
struct Expecting {
    peer: SpiffeId,
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl fmt::Debug for Expecting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Expecting").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl ServerCertVerifier for Expecting {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        rustls::client::verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(leaf)?,
            &self.roots,
            intermediates,
            now,
            self.provider.signature_verification_algorithms.all,
        )?;
        match identify(std::slice::from_ref(leaf)) {
            Ok(id) if id == self.peer => Ok(ServerCertVerified::assertion()),
            Ok(id) => Err(rustls::Error::General(format!("the peer is {id}"))),
            Err(reason) => Err(rustls::Error::General(reason)),
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.3 only".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, leaf, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
