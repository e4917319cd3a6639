//! The QUIC shell: endpoints and their transport parameters.
//!
//! Each listening socket has its own endpoint, so SO_REUSEPORT sockets work: the kernel
//! keeps a peer's address and port on one socket. A dial has a socket of its own, with a
//! fresh port: answers could otherwise reach another socket of the group, and a NAT entry
//! that is stuck is left behind with each attempt.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    EndpointConfig, IdleTimeout, MtuDiscoveryConfig, ServerConfig, TokioRuntime, TransportConfig,
    VarInt,
};

use crate::error::{HandshakeError, StartError};
use crate::limits::{LinkLimits, LinkTimers, WINDOW_MIN};

/// Opens an endpoint on a bound socket that takes connections.
pub(crate) fn listen(
    socket: UdpSocket,
    tls: &rustls::ServerConfig,
    limits: &LinkLimits,
    timers: &LinkTimers,
) -> Result<quinn::Endpoint, StartError> {
    let crypto = QuicServerConfig::try_from(tls.clone()).map_err(|_| StartError::Tls)?;
    let mut server = ServerConfig::with_crypto(Arc::new(crypto));
    server.transport_config(Arc::new(transport(limits, timers)));
    server.max_incoming(limits.handshakes);
    server.incoming_buffer_size(INCOMING_BUFFER_BYTES);
    server.incoming_buffer_size_total(INCOMING_BUFFER_TOTAL_BYTES);
    endpoint(socket, Some(server)).map_err(|source| StartError::Socket { transport: "UDP", source })
}

/// Dials a peer from a fresh socket; the connection is not authenticated yet.
pub(crate) async fn dial(
    address: SocketAddr,
    name: &str,
    tls: rustls::ClientConfig,
    limits: &LinkLimits,
    timers: &LinkTimers,
) -> Result<quinn::Connection, HandshakeError> {
    let failed = |reason: String| HandshakeError::Connect { address, reason };
    let crypto = QuicClientConfig::try_from(tls).map_err(|_| HandshakeError::Tls)?;
    let mut client = quinn::ClientConfig::new(Arc::new(crypto));
    client.transport_config(Arc::new(transport(limits, timers)));
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).map_err(|error| failed(error.to_string()))?;
    let endpoint = endpoint(socket, None).map_err(|error| failed(error.to_string()))?;
    let connecting =
        endpoint.connect_with(client, address, name).map_err(|error| failed(error.to_string()))?;
    // The endpoint lives on inside its connection.
    connecting.await.map_err(|error| failed(error.to_string()))
}

/// Gives an authenticated connection the windows and streams of a peer.
pub(crate) fn trust(connection: &quinn::Connection, limits: &LinkLimits, window: u64) {
    connection.set_receive_window(varint(window));
    connection.set_send_window(window);
    let streams = u64::try_from(limits.streams_per_connection).unwrap_or(u64::MAX);
    // One more for the control stream.
    connection.set_max_concurrent_bi_streams(varint(streams.saturating_add(1)));
}

fn endpoint(socket: UdpSocket, server: Option<ServerConfig>) -> std::io::Result<quinn::Endpoint> {
    let runtime = Arc::new(TokioRuntime);
    quinn::Endpoint::new(EndpointConfig::default(), server, socket, runtime)
}

/// The parameters of a connection before its peer is known: one stream, a small window.
fn transport(limits: &LinkLimits, timers: &LinkTimers) -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport.max_concurrent_bidi_streams(VarInt::from_u32(1));
    transport.max_concurrent_uni_streams(VarInt::from_u32(0));
    // The connection's window is what bounds memory; one stream may use all of it.
    transport.stream_receive_window(varint(limits.quic_window));
    transport.receive_window(varint(WINDOW_MIN));
    transport.send_window(WINDOW_MIN);
    transport.datagram_receive_buffer_size(Some(limits.datagram_buffer));
    transport.datagram_send_buffer_size(limits.datagram_buffer);
    // Our pings keep the path alive and judge it; this is the net below them.
    transport.keep_alive_interval(None);
    let idle = timers.dead_after.saturating_mul(4).min(IDLE_MAX);
    transport.max_idle_timeout(IdleTimeout::try_from(idle).ok());
    transport.initial_mtu(INITIAL_MTU_BYTES);
    transport.mtu_discovery_config(Some(MtuDiscoveryConfig::default()));
    transport
}

fn varint(value: u64) -> VarInt {
    VarInt::from_u64(value).unwrap_or(VarInt::MAX)
}

/// Bytes kept for a handshake that has not been looked at.
const INCOMING_BUFFER_BYTES: u64 = 64 * 1024;
/// Bytes kept for all handshakes that have not been looked at.
const INCOMING_BUFFER_TOTAL_BYTES: u64 = 4 << 20;
/// The smallest packet that every path must pass; discovery goes up from here.
///
/// Spec: RFC 9000 section 14.
const INITIAL_MTU_BYTES: u16 = 1200;
const IDLE_MAX: Duration = Duration::from_secs(60);
