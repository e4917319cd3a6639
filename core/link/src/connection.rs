//! One connection of either transport, as the rest of the crate sees it.

use std::net::SocketAddr;
use std::time::Duration;

use quinn::VarInt;
use tokio::sync::mpsc;

use crate::proto::selector::Transport;
use crate::proto::session::CloseCode;
use crate::raw::RawStream;
use crate::tcp::TcpConnection;

/// Opens streams, closes, counts. Cheap to clone, usable from any thread.
#[derive(Debug, Clone)]
pub(crate) enum Connection {
    Quic(quinn::Connection),
    Tcp(TcpConnection),
}

/// The streams that the peer opens.
#[derive(Debug)]
pub(crate) enum Inbound {
    Quic(quinn::Connection),
    Tcp { streams: mpsc::Receiver<RawStream>, connection: TcpConnection },
}

/// Totals of a connection since its start.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Totals {
    /// Bytes given to the network, headers and repeats included.
    pub(crate) sent: u64,
    /// Of `sent`, bytes that the network lost.
    pub(crate) lost: u64,
    /// Packets sent and lost; 0 on TCP, which does not say.
    pub(crate) packets: u64,
    pub(crate) packets_lost: u64,
    /// Grows whenever the peer's streams bring something.
    pub(crate) received: u64,
    /// The transport's own round trip; `None` on TCP.
    pub(crate) rtt: Option<Duration>,
}

impl Connection {
    pub(crate) fn transport(&self) -> Transport {
        match self {
            Self::Quic(_) => Transport::Quic,
            Self::Tcp(_) => Transport::Tcp,
        }
    }

    /// The peer's address as it is now; a QUIC peer may move.
    pub(crate) fn remote_address(&self) -> SocketAddr {
        match self {
            Self::Quic(connection) => connection.remote_address(),
            Self::Tcp(connection) => connection.remote_address(),
        }
    }

    /// Opens a stream; the peer learns of it with the first byte.
    pub(crate) async fn open(&self) -> Result<RawStream, String> {
        match self {
            Self::Quic(connection) => match connection.open_bi().await {
                Ok(halves) => Ok(RawStream::quic(halves)),
                Err(error) => Err(error.to_string()),
            },
            Self::Tcp(connection) => connection.open().await,
        }
    }

    /// Ends the connection and all its streams.
    pub(crate) fn close(&self, code: CloseCode, reason: &str) {
        match self {
            Self::Quic(connection) => {
                connection.close(VarInt::from(code.to_wire()), reason.as_bytes());
            }
            Self::Tcp(connection) => connection.close(),
        }
    }

    /// Resolves when the connection has ended, with what the transport says.
    pub(crate) async fn closed(&self) -> String {
        match self {
            Self::Quic(connection) => connection.closed().await.to_string(),
            Self::Tcp(connection) => connection.closed().await,
        }
    }

    pub(crate) fn totals(&self) -> Totals {
        match self {
            Self::Quic(connection) => {
                let stats = connection.stats();
                Totals {
                    sent: stats.udp_tx.bytes,
                    lost: stats.path.lost_bytes,
                    packets: stats.path.sent_packets,
                    packets_lost: stats.path.lost_packets,
                    received: stats.frame_rx.stream.saturating_add(stats.frame_rx.datagram),
                    rtt: Some(stats.path.rtt),
                }
            }
            Self::Tcp(connection) => connection.totals(),
        }
    }
}

impl Inbound {
    /// The next stream that the peer opens.
    ///
    /// # Cancel safety
    ///
    /// No stream is lost when the future is dropped.
    pub(crate) async fn accept(&mut self) -> Result<RawStream, String> {
        match self {
            Self::Quic(connection) => match connection.accept_bi().await {
                Ok(halves) => Ok(RawStream::quic(halves)),
                Err(error) => Err(error.to_string()),
            },
            Self::Tcp { streams, connection } => match streams.recv().await {
                Some(stream) => Ok(stream),
                None => Err(connection.closed().await),
            },
        }
    }
}
