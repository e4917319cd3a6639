//! Sizes and times of one tunnel connection.

use std::time::Duration;

use crate::wire::{
    CLIENT_STREAMS_MAX, CONNECTION_WINDOW_BYTES, PING_INTERVAL, PING_TIMEOUT, STREAM_WINDOW_BYTES,
};

/// How a silent peer is found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive {
    /// Time between two PINGs. Default: 10 s.
    pub interval: Duration,
    /// Time for the answer. Default: 20 s.
    pub timeout: Duration,
}

impl Default for Keepalive {
    fn default() -> Self {
        Self { interval: PING_INTERVAL, timeout: PING_TIMEOUT }
    }
}

/// Settings of a client connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelSettings {
    /// Tunnels on one connection at once; the peer's own limit also holds. Default: 100.
    pub streams_max: usize,
    /// Time from the request to the peer's answer. Default: 15 s, since the peer may
    /// have to cross a link first.
    pub open_timeout: Duration,
    /// Time without any tunnel after which the connection is closed. Default: 5 min.
    pub idle_timeout: Duration,
    /// PINGs.
    pub keepalive: Keepalive,
    /// Bytes that one stream may have in flight towards us. Default: 4 MiB.
    pub stream_window_bytes: u32,
    /// Bytes that all streams may have in flight towards us; keep it above the stream's
    /// window. Default: 16 MiB.
    pub connection_window_bytes: u32,
}

impl Default for TunnelSettings {
    fn default() -> Self {
        Self {
            streams_max: CLIENT_STREAMS_MAX,
            open_timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(5 * 60),
            keepalive: Keepalive::default(),
            stream_window_bytes: STREAM_WINDOW_BYTES,
            connection_window_bytes: CONNECTION_WINDOW_BYTES,
        }
    }
}
