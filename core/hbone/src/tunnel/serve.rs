//! The server's side of one tunnel connection.
//!
//! The whole connection is one future: HTTP/2, every decision and every tunnel are polled
//! together, on the task of whoever calls [`serve_connect`]. Nothing is spawned, nothing
//! has to be `Send`, and dropping the future ends everything at once.
//!
//! A CONNECT passes these gates in order: it is well formed; there is room; the handler
//! accepts it in time. Data that the client sends meanwhile waits in the stream's window.
//! A stream that the client resets takes its decision and its tunnel with it, so that
//! cancelled work cannot pile up.
//!
//! In a drain the peer is told (GOAWAY) and open tunnels go on until they end or the
//! drain is forced.

mod admit;
mod connection;

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use isthmus_model::SpiffeId;
use isthmus_runtime::Stop;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::authority::Authority;
use crate::mesh::MeshConnection;
use crate::tunnel::settings::Keepalive;
use crate::tunnel::stream::TunnelStream;
use crate::wire::{
    CONNECTION_WINDOW_BYTES, HEADER_LIST_BYTES_MAX, SERVER_STREAMS_MAX, STREAM_WINDOW_BYTES,
};

/// A well-formed CONNECT.
#[derive(Debug, Clone)]
pub struct ConnectRequest {
    /// What is asked for.
    pub authority: Authority,
    /// The request's headers, at most 16 KiB decoded.
    pub headers: HeaderMap,
    /// Who asks, proven by mTLS.
    pub peer: SpiffeId,
}

/// What a handler decides about a CONNECT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict<T> {
    /// Answer 200 with these headers, then run the tunnel.
    Accept {
        /// Headers of the answer.
        headers: HeaderMap,
        /// Takes the [`TunnelStream`] and runs until the tunnel has ended.
        tunnel: T,
    },
    /// Answer with an error.
    Refuse {
        /// The status of the answer.
        status: StatusCode,
        /// Why, for the header `x-isthmus-refused-reason`; cut to 256 bytes of visible
        /// ASCII. The peer reads it: no secrets.
        reason: String,
    },
}

impl<T> Verdict<T> {
    /// Accepts without headers of our own.
    pub fn accept(tunnel: T) -> Self {
        Self::Accept { headers: HeaderMap::new(), tunnel }
    }

    /// Refuses.
    pub fn refuse(status: StatusCode, reason: impl Into<String>) -> Self {
        Self::Refuse { status, reason: reason.into() }
    }
}

/// Bounds of one server connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServeLimits {
    /// Tunnels at once. Default: 256.
    pub streams_max: u32,
    /// Decoded header bytes of one request. Default: 16 KiB.
    pub header_list_bytes_max: u32,
    /// Time for the HTTP/2 preface. Default: 10 s.
    pub preface_timeout: Duration,
    /// Time for the handler's verdict, then 504. Default: 30 s.
    pub verdict_timeout: Duration,
    /// Time without any tunnel after which the connection is closed. Default: 10 min,
    /// longer than a client's, so that the client ends it first.
    pub idle_timeout: Duration,
    /// Time for tunnels to pass on their last bytes after the connection has ended.
    /// Default: 30 s.
    pub linger_timeout: Duration,
    /// PINGs.
    pub keepalive: Keepalive,
    /// Bytes that one stream may have in flight towards us. Default: 4 MiB.
    pub stream_window_bytes: u32,
    /// Bytes that all streams may have in flight towards us. Default: 16 MiB.
    pub connection_window_bytes: u32,
}

impl Default for ServeLimits {
    fn default() -> Self {
        Self {
            streams_max: SERVER_STREAMS_MAX,
            header_list_bytes_max: HEADER_LIST_BYTES_MAX,
            preface_timeout: Duration::from_secs(10),
            verdict_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(10 * 60),
            linger_timeout: Duration::from_secs(30),
            keepalive: Keepalive::default(),
            stream_window_bytes: STREAM_WINDOW_BYTES,
            connection_window_bytes: CONNECTION_WINDOW_BYTES,
        }
    }
}

/// How a server connection ended.
#[derive(Debug, Clone)]
pub enum ServeEnd {
    /// The peer closed it.
    Closed,
    /// Our drain ended it after its last tunnel.
    Drained,
    /// HTTP/2 failed: the connection broke, or the peer broke the protocol or a limit.
    Failed {
        /// What HTTP/2 said.
        source: Arc<h2::Error>,
    },
    /// The drain's deadline cut it.
    Forced,
    /// It had no tunnel for too long.
    Idle,
    /// The peer sent no preface in time.
    PrefaceTimeout,
    /// The peer opened and reset streams at the rate of an attack.
    ResetFlood,
    /// The peer did not answer a PING.
    Silent,
    /// The peer did not choose HBONE in the handshake.
    WrongProtocol,
}

/// What a server connection did.
#[derive(Debug, Clone)]
pub struct ServeOutcome {
    /// Tunnels that were accepted and have ended.
    pub served: u64,
    /// Requests refused: malformed, over a limit, or by the handler.
    pub refused: u64,
    /// Streams that the peer reset before they were answered.
    pub reset_early: u64,
    /// How it ended.
    pub end: ServeEnd,
}

/// Serves CONNECT on one connection until it ends.
///
/// `handler` is called once for each well-formed request; its future decides, and is
/// dropped when the client gives up. An accepted tunnel runs inside the connection's own
/// future: it must await and never block.
///
/// # Cancel safety
///
/// Dropping the future cuts the connection and all its tunnels.
pub async fn serve_connect<IO, H, D, T, R>(
    connection: MeshConnection<IO>,
    limits: &ServeLimits,
    handler: H,
    stop: Stop,
) -> ServeOutcome
where
    IO: AsyncRead + AsyncWrite + Unpin,
    H: Fn(ConnectRequest) -> D,
    D: Future<Output = Verdict<T>>,
    T: FnOnce(TunnelStream) -> R,
    R: Future<Output = ()>,
{
    connection::run(connection, limits, handler, stop).await
}
