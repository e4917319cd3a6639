//! What can go wrong with links, as types.

use std::net::SocketAddr;
use std::time::Duration;

use isthmus_model::{ClusterId, SpiffeId};

use crate::proto::session::{CloseCode, CloseReason};

/// A stream that could not be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Every connection to the peer has as many streams as it may.
    #[error("all {connections} connections to cluster {peer} are full")]
    Busy {
        /// The peer.
        peer: ClusterId,
        /// Live connections.
        connections: usize,
    },
    /// This gateway is shutting down.
    #[error("this gateway is draining")]
    Draining,
    /// No connection to the peer is up.
    #[error("no link to cluster {peer} is up")]
    NoLink {
        /// The peer.
        peer: ClusterId,
    },
    /// The connection ended while the stream was opened.
    #[error("connection to cluster {peer} ended: {reason}")]
    Transport {
        /// The peer.
        peer: ClusterId,
        /// What the transport says.
        reason: String,
    },
    /// The cluster is not a configured peer.
    #[error("cluster {peer} is not a peer of this gateway")]
    UnknownPeer {
        /// The cluster asked for.
        peer: ClusterId,
    },
}

/// A [`LinkSet`](crate::LinkSet) that could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A socket cannot be used.
    #[error("cannot use the {transport} socket")]
    Socket {
        /// `TCP` or `UDP`.
        transport: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The server's TLS settings cannot be used for QUIC.
    #[error("the server's tls settings have no cipher suite that quic needs")]
    Tls,
}

/// A connection that was not established, by either end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    #[error("peer did not choose alpn isthmus-link/1")]
    Alpn,
    #[error("cannot connect to {address}: {reason}")]
    Connect { address: SocketAddr, reason: String },
    #[error("peer's certificate is not accepted: {0}")]
    Identity(String),
    #[error("cannot resolve {address}: {reason}")]
    Resolve { address: String, reason: String },
    #[error("{0}")]
    Session(CloseReason),
    #[error("client tls settings cannot be used for quic")]
    Tls,
    #[error("handshake took longer than {0:?}")]
    Timeout(Duration),
    #[error("transport ended: {0}")]
    Transport(String),
    #[error("{found} is not the identity of a configured peer")]
    UnknownPeer { found: SpiffeId },
    #[error("peer is {found}, expected {expected}")]
    WrongPeer { expected: SpiffeId, found: SpiffeId },
}

impl HandshakeError {
    /// Whether the peer could not prove to be who it should be.
    pub(crate) fn is_authentication(&self) -> bool {
        match self {
            Self::Identity(_) | Self::UnknownPeer { .. } | Self::WrongPeer { .. } => true,
            Self::Session(reason) => matches!(reason, CloseReason::Cluster { .. }),
            Self::Alpn
            | Self::Connect { .. }
            | Self::Resolve { .. }
            | Self::Tls
            | Self::Timeout(_)
            | Self::Transport(_) => false,
        }
    }

    /// The code that the peer is told.
    pub(crate) fn code(&self) -> CloseCode {
        match self {
            Self::Identity(_) | Self::UnknownPeer { .. } | Self::WrongPeer { .. } => {
                CloseCode::Identity
            }
            Self::Session(reason) => reason.code(),
            Self::Timeout(_) => CloseCode::Timeout,
            Self::Alpn
            | Self::Connect { .. }
            | Self::Resolve { .. }
            | Self::Tls
            | Self::Transport(_) => CloseCode::Protocol,
        }
    }
}
