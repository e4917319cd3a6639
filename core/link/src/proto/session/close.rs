//! Why connections end, and the codes that say so on the wire.

use std::time::Duration;

use isthmus_model::ClusterId;

use crate::proto::version::VersionRange;
use crate::proto::wire::DecodeError;

/// Why a connection ends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// The peer's Hello names another cluster than its certificate.
    #[error("peer says it is cluster {said}, its certificate is of cluster {expected}")]
    Cluster {
        /// What the certificate stands for.
        expected: ClusterId,
        /// What the Hello says.
        said: ClusterId,
    },
    /// The control stream ended without a word.
    #[error("control stream ended: {reason}")]
    ControlEnded {
        /// What the transport says.
        reason: String,
    },
    /// A drain has come to its end.
    #[error("drained")]
    Drained,
    /// A drain took longer than its deadline.
    #[error("drain deadline passed with streams open")]
    DrainDeadline,
    /// The peer sends control frames faster than they are worth.
    #[error("control stream is flooded")]
    Flooded,
    /// The peer sent no Hello in time.
    #[error("no hello within {0:?}")]
    HelloTimeout(Duration),
    /// This end closes on its own account.
    #[error("closed: {}", .0.label())]
    Local(CloseCode),
    /// The peer ended the connection.
    #[error("peer closed: {} ({reason})", code.label())]
    Peer {
        /// Why, as a code.
        code: CloseCode,
        /// Why, for the log.
        reason: String,
    },
    /// The peer sent what cannot be read.
    #[error("protocol error")]
    Protocol(#[from] DecodeError),
    /// Nothing was heard from the peer for too long.
    #[error("nothing heard for {0:?}")]
    Silent(Duration),
    /// The peer sent a frame that its state does not allow.
    #[error("frame {0} is not allowed now")]
    Unexpected(&'static str),
    /// No version in common.
    #[error("no common protocol version: ours {}-{}, theirs {}-{}", ours.min, ours.max, theirs.min, theirs.max)]
    Version {
        /// What this end speaks.
        ours: VersionRange,
        /// What the peer speaks.
        theirs: VersionRange,
    },
}

impl CloseReason {
    /// The code that goes on the wire.
    pub fn code(&self) -> CloseCode {
        match self {
            Self::Cluster { .. } => CloseCode::Identity,
            Self::ControlEnded { .. } | Self::Protocol(_) | Self::Unexpected(_) => {
                CloseCode::Protocol
            }
            Self::Drained => CloseCode::Drained,
            Self::Flooded => CloseCode::Limit,
            Self::DrainDeadline | Self::HelloTimeout(_) | Self::Silent(_) => CloseCode::Timeout,
            Self::Local(code) | Self::Peer { code, .. } => *code,
            Self::Version { .. } => CloseCode::Version,
        }
    }
}

/// Codes of `CONNECTION_CLOSE`, Bye and Refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CloseCode {
    /// A drain has ended; nothing was lost.
    Drained,
    /// The identity is not that of a configured peer, or its Hello names another.
    Identity,
    /// A bound was exceeded.
    Limit,
    /// The link is not wanted any more.
    Normal,
    /// Bytes that the protocol does not allow.
    Protocol,
    /// Another connection has taken over.
    Superseded,
    /// Something took too long.
    Timeout,
    /// A code of a newer version.
    Unknown(u16),
    /// No version in common.
    Version,
}

impl CloseCode {
    /// The number on the wire.
    pub fn to_wire(self) -> u16 {
        match self {
            Self::Normal => 0,
            Self::Protocol => 1,
            Self::Version => 2,
            Self::Identity => 3,
            Self::Timeout => 4,
            Self::Drained => 5,
            Self::Limit => 6,
            Self::Superseded => 7,
            Self::Unknown(code) => code,
        }
    }

    /// The code of a number on the wire.
    pub fn from_wire(code: u16) -> Self {
        match code {
            0 => Self::Normal,
            1 => Self::Protocol,
            2 => Self::Version,
            3 => Self::Identity,
            4 => Self::Timeout,
            5 => Self::Drained,
            6 => Self::Limit,
            7 => Self::Superseded,
            other => Self::Unknown(other),
        }
    }

    /// The name for logs and metric labels.
    pub fn label(self) -> &'static str {
        match self {
            Self::Drained => "drained",
            Self::Identity => "identity",
            Self::Limit => "limit",
            Self::Normal => "normal",
            Self::Protocol => "protocol",
            Self::Superseded => "superseded",
            Self::Timeout => "timeout",
            Self::Unknown(_) => "unknown",
            Self::Version => "version",
        }
    }
}
