//! From an address or an accepted socket to an established connection.
//!
//! A connection counts as established when TLS is done on both ends, the peer's
//! certificate has the identity of a configured peer, and Hello was exchanged. Nothing
//! less wins a race or stops a retry.

use std::net::SocketAddr;
use std::sync::Arc;

use isthmus_model::SpiffeId;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;

use crate::connection::{Connection, Inbound};
use crate::control::{self, Established};
use crate::error::HandshakeError;
use crate::options::{ALPN, PeerConfig};
use crate::peer::Peer;
use crate::proto::selector::Transport;
use crate::proto::session::Side;
use crate::shared::{Phase, Shared};
use crate::{quic, tcp};

/// Dials one of the peer's addresses; `attempt` says which in turn.
pub(crate) async fn dial(
    shared: Arc<Shared>,
    peer: Arc<Peer>,
    transport: Transport,
    attempt: usize,
) -> Result<Established, HandshakeError> {
    let limit = shared.timers.handshake;
    let work = async {
        let address = resolve(&shared, &peer.config, attempt).await?;
        match transport {
            Transport::Quic => dial_quic(&shared, &peer, address).await,
            Transport::Tcp => dial_tcp(&shared, &peer, address).await,
        }
    };
    tokio::time::timeout(limit, work).await.unwrap_or(Err(HandshakeError::Timeout(limit)))
}

async fn dial_quic(
    shared: &Arc<Shared>,
    peer: &Arc<Peer>,
    address: SocketAddr,
) -> Result<Established, HandshakeError> {
    let (name, tls) = (server_name(&peer.config), client_tls(shared, &peer.config));
    let connection =
        quic::dial(address, &name.to_str(), tls, &shared.limits, &shared.timers).await?;
    finish_quic(shared, connection, Expect::Peer(peer), Side::Dialler).await.map(|(e, _)| e)
}

async fn dial_tcp(
    shared: &Arc<Shared>,
    peer: &Arc<Peer>,
    address: SocketAddr,
) -> Result<Established, HandshakeError> {
    let failed =
        |error: std::io::Error| HandshakeError::Connect { address, reason: error.to_string() };
    let socket = TcpStream::connect(address).await.map_err(failed)?;
    socket.set_nodelay(true).map_err(failed)?;
    let (name, tls) = (server_name(&peer.config), client_tls(shared, &peer.config));
    let connector = tokio_rustls::TlsConnector::from(Arc::new(tls));
    let stream = connector.connect(name, socket).await.map_err(failed)?;
    let session = stream.get_ref().1;
    check_alpn(session.alpn_protocol())?;
    let found = identify(shared, session.peer_certificates())?;
    Expect::Peer(peer).check(shared, found)?;
    finish_tcp(shared, stream, address, peer, Side::Dialler).await
}

/// Takes a QUIC connection that a peer dialled.
pub(crate) async fn accept_quic(
    shared: &Arc<Shared>,
    incoming: quinn::Incoming,
) -> Result<(Established, Arc<Peer>), HandshakeError> {
    let address = incoming.remote_address();
    let failed = |reason: String| HandshakeError::Connect { address, reason };
    let limit = shared.timers.handshake;
    let work = async {
        let connecting = incoming.accept().map_err(|error| failed(error.to_string()))?;
        let connection = connecting.await.map_err(|error| failed(error.to_string()))?;
        finish_quic(shared, connection, Expect::Any, Side::Acceptor).await
    };
    tokio::time::timeout(limit, work).await.unwrap_or(Err(HandshakeError::Timeout(limit)))
}

/// Takes a TCP connection that a peer dialled.
pub(crate) async fn accept_tcp(
    shared: &Arc<Shared>,
    socket: TcpStream,
    address: SocketAddr,
) -> Result<(Established, Arc<Peer>), HandshakeError> {
    let failed =
        |error: std::io::Error| HandshakeError::Connect { address, reason: error.to_string() };
    let limit = shared.timers.handshake;
    let work = async {
        socket.set_nodelay(true).map_err(failed)?;
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::clone(&shared.server_tls));
        let stream = acceptor.accept(socket).await.map_err(failed)?;
        let session = stream.get_ref().1;
        check_alpn(session.alpn_protocol())?;
        let found = identify(shared, session.peer_certificates())?;
        let peer = Expect::Any.check(shared, found)?;
        let established = finish_tcp(shared, stream, address, &peer, Side::Acceptor).await?;
        Ok((established, peer))
    };
    tokio::time::timeout(limit, work).await.unwrap_or(Err(HandshakeError::Timeout(limit)))
}

/// Whose certificate is wanted.
#[derive(Debug, Clone, Copy)]
enum Expect<'a> {
    /// Any configured peer's; the certificate says which.
    Any,
    /// This peer's.
    Peer(&'a Arc<Peer>),
}

impl Expect<'_> {
    fn check(self, shared: &Shared, found: SpiffeId) -> Result<Arc<Peer>, HandshakeError> {
        match self {
            Self::Peer(peer) if peer.config.expected_id == found => Ok(Arc::clone(peer)),
            Self::Peer(peer) => {
                let expected = peer.config.expected_id.clone();
                Err(HandshakeError::WrongPeer { expected, found })
            }
            Self::Any => match shared.peers.load().by_id.get(&found) {
                Some(peer) if *peer.phase.borrow() == Phase::Running => Ok(Arc::clone(peer)),
                Some(_) | None => Err(HandshakeError::UnknownPeer { found }),
            },
        }
    }
}

async fn finish_quic(
    shared: &Arc<Shared>,
    quic: quinn::Connection,
    expect: Expect<'_>,
    side: Side,
) -> Result<(Established, Arc<Peer>), HandshakeError> {
    let connection = Connection::Quic(quic.clone());
    let mut inbound = Inbound::Quic(quic.clone());
    let work = async {
        let data = quic.handshake_data();
        let data = data.and_then(|d| d.downcast::<quinn::crypto::rustls::HandshakeData>().ok());
        check_alpn(data.as_ref().and_then(|data| data.protocol.as_deref()))?;
        let chain = quic.peer_identity();
        let chain = chain.and_then(|c| c.downcast::<Vec<CertificateDer<'static>>>().ok());
        let found = identify(shared, chain.as_ref().map(|chain| chain.as_slice()))?;
        let peer = expect.check(shared, found)?;
        let cluster = &peer.config.cluster;
        let (control, session) =
            control::greet(shared, cluster, side, &connection, &mut inbound).await?;
        Ok::<_, HandshakeError>((control, session, peer))
    };
    match work.await {
        Ok((control, session, peer)) => {
            let window = shared.windows.grant(shared.limits.quic_window);
            quic::trust(&quic, &shared.limits, window.bytes);
            let streams_max = shared.limits.streams_per_connection;
            let established =
                Established { connection, inbound, control, session, streams_max, window };
            Ok((established, peer))
        }
        Err(error) => {
            connection.close(error.code(), &error.to_string());
            Err(error)
        }
    }
}

async fn finish_tcp<S>(
    shared: &Arc<Shared>,
    tls: S,
    address: SocketAddr,
    peer: &Arc<Peer>,
    side: Side,
) -> Result<Established, HandshakeError>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let window = shared.windows.grant(shared.limits.tcp_window);
    let (connection, mut inbound) = tcp::start(tls, address, side, &shared.limits, window.bytes);
    let cluster = &peer.config.cluster;
    match control::greet(shared, cluster, side, &connection, &mut inbound).await {
        Ok((control, session)) => {
            let streams_max = tcp::streams_max(&shared.limits, window.bytes);
            Ok(Established { connection, inbound, control, session, streams_max, window })
        }
        Err(error) => {
            connection.close(error.code(), &error.to_string());
            Err(error)
        }
    }
}

fn check_alpn(protocol: Option<&[u8]>) -> Result<(), HandshakeError> {
    if protocol == Some(ALPN) { Ok(()) } else { Err(HandshakeError::Alpn) }
}

fn identify(
    shared: &Shared,
    chain: Option<&[CertificateDer<'_>]>,
) -> Result<SpiffeId, HandshakeError> {
    match chain {
        Some(chain) if !chain.is_empty() => {
            (shared.authenticate)(chain).map_err(HandshakeError::Identity)
        }
        Some(_) | None => Err(HandshakeError::Identity("no certificate".to_owned())),
    }
}

/// The caller's settings with what the protocol fixes: our ALPN, no 0-RTT, no resumption.
fn client_tls(shared: &Shared, peer: &PeerConfig) -> rustls::ClientConfig {
    let mut tls = rustls::ClientConfig::clone(&(shared.client_tls)(peer));
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.enable_early_data = false;
    tls.resumption = rustls::client::Resumption::disabled();
    tls
}

/// As [`client_tls`], for the accepting side.
pub(crate) fn server_tls(tls: &rustls::ServerConfig) -> rustls::ServerConfig {
    let mut tls = tls.clone();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.max_early_data_size = 0;
    tls.send_tls13_tickets = 0;
    tls.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    tls
}

/// The name in the ClientHello: the peer's trust domain.
///
/// Identity is checked by SPIFFE ID; the name only helps load balancers that route by it.
fn server_name(peer: &PeerConfig) -> ServerName<'static> {
    let domain = peer.expected_id.trust_domain().as_str().to_owned();
    ServerName::try_from(domain)
        .unwrap_or_else(|_| ServerName::IpAddress(std::net::IpAddr::from([127, 0, 0, 1]).into()))
}

async fn resolve(
    shared: &Shared,
    peer: &PeerConfig,
    attempt: usize,
) -> Result<SocketAddr, HandshakeError> {
    let none = || HandshakeError::Resolve {
        address: peer.cluster.as_str().to_owned(),
        reason: "the peer has no address".to_owned(),
    };
    let count = peer.addresses.len();
    let index = attempt.checked_rem(count).ok_or_else(none)?;
    let text = peer.addresses.get(index).ok_or_else(none)?;
    let failed = |reason: String| HandshakeError::Resolve { address: text.clone(), reason };
    let found = tokio::net::lookup_host(text).await.map_err(|error| failed(error.to_string()))?;
    let found: Vec<SocketAddr> = found.take(shared.limits.addresses_per_name.max(1)).collect();
    // Each round over the names takes the next address of each.
    let turn = (attempt / count).checked_rem(found.len()).unwrap_or(0);
    found.get(turn).copied().ok_or_else(|| failed("no address".to_owned()))
}
