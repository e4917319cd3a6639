//! Bounds and times of links; every one has a default and a unit.

use std::time::Duration;

/// What bounds the memory and work that a peer can cause.
#[derive(Debug, Clone)]
pub struct LinkLimits {
    /// Connections with one peer, dialled and accepted together. Default: 64.
    pub connections_per_peer: usize,
    /// Handshakes of unauthenticated clients in flight, UDP and TCP each. From half of
    /// it on, QUIC clients must prove their address first (Retry). Default: 256.
    pub handshakes: usize,
    /// Application streams on one connection, each direction. Default: 4096.
    pub streams_per_connection: usize,
    /// Streams whose header has not come yet, on one connection. Default: 256.
    pub pending_headers: usize,
    /// Flow-control window of one QUIC connection and of each of its streams, in bytes.
    /// Default: 192 MiB, which is 10 Gbit/s × 150 ms.
    pub quic_window: u64,
    /// Sum of the windows of the streams of one TCP connection, in bytes. yamux keeps
    /// 256 KiB for each stream, so this bounds the streams too. Default: 512 MiB.
    pub tcp_window: u64,
    /// Sum of the windows of all connections, in bytes; a connection gets at most half
    /// of what is left. Default: 4 GiB.
    pub total_window: u64,
    /// QUIC datagrams that wait in each direction of one connection, in bytes.
    /// Default: 4 MiB.
    pub datagram_buffer: usize,
    /// Retired connections of one lane that still have streams; the oldest is closed
    /// when there are more. Default: 4.
    pub retired_per_lane: usize,
    /// Addresses that one name of a peer may resolve to. Default: 8.
    pub addresses_per_name: usize,
}

impl Default for LinkLimits {
    fn default() -> Self {
        Self {
            connections_per_peer: 64,
            handshakes: 256,
            streams_per_connection: 4096,
            pending_headers: 256,
            quic_window: 192 << 20,
            tcp_window: 512 << 20,
            total_window: 4 << 30,
            datagram_buffer: 4 << 20,
            retired_per_lane: 4,
            addresses_per_name: 8,
        }
    }
}

/// How long things may take.
#[derive(Debug, Clone)]
pub struct LinkTimers {
    /// From the first packet to the end of the Hello exchange. Default: 10 s.
    pub handshake: Duration,
    /// Time between pings. Default: 1 s.
    pub ping_interval: Duration,
    /// Silence after which a connection is dead. Default: 3 s.
    pub dead_after: Duration,
    /// From a stream's first byte to the end of its header. Default: 10 s.
    pub header: Duration,
    /// How long [`LinkSet::open`](crate::LinkSet::open) waits for a connection when
    /// none is up. Default: 500 ms.
    pub open_wait: Duration,
    /// How long the streams of a peer that was removed may last. Default: 4 s.
    pub removal: Duration,
    /// How long the peer may take to close after a drain. Default: 2 s.
    pub bye: Duration,
}

impl Default for LinkTimers {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            ping_interval: Duration::from_secs(1),
            dead_after: Duration::from_secs(3),
            header: Duration::from_secs(10),
            open_wait: Duration::from_millis(500),
            removal: Duration::from_secs(4),
            bye: Duration::from_secs(2),
        }
    }
}

/// Bytes of padding in a ping: a full-size packet on a path with the smallest MTU that
/// QUIC allows, so that a path that passes only small packets is found dead.
pub(crate) const PING_PADDING_BYTES: u16 = 1024;

/// The smallest window that a connection gets when the total is used up, in bytes.
pub(crate) const WINDOW_MIN: u64 = 1 << 20;
