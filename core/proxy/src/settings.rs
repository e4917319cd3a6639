//! The limits of a listener, each with its unit and default.

use std::time::Duration;

use crate::canonical::Rules;
use crate::headers::ForwardedTrust;
use crate::outlier::OutlierSettings;

/// What a listener allows and how long it waits.
#[derive(Debug, Clone)]
pub struct ProxySettings {
    /// Bytes of a request head, names and values. Default 64 KiB; above it 431.
    pub header_bytes_max: usize,
    /// Header lines of a request. Default 100; above it 431.
    pub header_count_max: usize,
    /// Concurrent HTTP/2 streams of one connection. Default 100.
    pub streams_max: u32,
    /// Bytes that a client may send on one HTTP/2 connection before upstreams read.
    /// Default 1 MiB; sidecars and gateways, whose clients share a connection, use more.
    pub connection_window_bytes: u32,
    /// Connections of one worker. Default 10 000; a further one is closed at once.
    pub connections_max: usize,
    /// Time for a whole request head, from its first byte. Default 10 s.
    pub head_timeout: Duration,
    /// Time without a request before a client connection is closed. Default 75 s.
    pub idle_timeout: Duration,
    /// Time without a byte of a request body before it is given up. Default 60 s.
    pub body_timeout: Duration,
    /// Time for the TLS handshake with a client. Default 10 s.
    pub tls_timeout: Duration,
    /// Time to connect to an endpoint, TLS included. Default 5 s.
    pub connect_timeout: Duration,
    /// Time that an idle upstream connection is kept. Default 60 s.
    pub upstream_idle_timeout: Duration,
    /// Idle upstream connections kept for each endpoint and worker. Default 64.
    pub upstream_idle_max: usize,
    /// Attempts of one request, the first included. Default 3.
    pub attempts_max: u32,
    /// When failing endpoints are left out.
    pub outlier: OutlierSettings,
    /// What clients may ask for.
    pub rules: Rules,
    /// How far clients' `X-Forwarded-*` are believed.
    pub forwarded: ForwardedTrust,
}

impl ProxySettings {
    /// For listeners whose clients are proxies: many requests of many clients share one
    /// connection, and one that is slow must not hold up the others.
    #[must_use]
    pub fn for_mesh(self) -> Self {
        Self {
            streams_max: MESH_STREAMS_MAX,
            connection_window_bytes: MESH_CONNECTION_WINDOW_BYTES,
            rules: Rules { encoded_slashes: true, ..self.rules },
            forwarded: ForwardedTrust::Keep,
            ..self
        }
    }
}

/// Concurrent streams of a connection between proxies.
const MESH_STREAMS_MAX: u32 = 4096;
/// Room for 256 stalled uploads of a connection between proxies.
const MESH_CONNECTION_WINDOW_BYTES: u32 = 64 * 1024 * 1024;

impl Default for ProxySettings {
    fn default() -> Self {
        Self {
            header_bytes_max: 64 * 1024,
            header_count_max: 100,
            streams_max: 100,
            connection_window_bytes: 1024 * 1024,
            connections_max: 10_000,
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            body_timeout: Duration::from_secs(60),
            tls_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(5),
            upstream_idle_timeout: Duration::from_secs(60),
            upstream_idle_max: 64,
            attempts_max: 3,
            outlier: OutlierSettings::default(),
            rules: Rules::default(),
            forwarded: ForwardedTrust::Replace,
        }
    }
}
