//! Why a tunnel could not be opened.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use crate::authority::InvalidAuthority;
use crate::mesh::ConnectError;

/// A tunnel that was not opened.
///
/// Cloneable, because everyone who waited for the same connection gets the same error.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TunnelError {
    /// Every stream that may be open is open.
    #[error("no tunnel is free: {limit} are in use")]
    AtCapacity {
        /// The limit that was reached.
        limit: usize,
    },
    /// The authority of the request is malformed.
    #[error("the tunnel's target is not valid")]
    Authority {
        /// Which part is wrong.
        #[from]
        source: InvalidAuthority,
    },
    /// The connection for the tunnel could not be made.
    #[error("cannot connect for the tunnel")]
    Connect {
        /// What went wrong.
        source: Arc<ConnectError>,
    },
    /// The connection has ended or is ending. No byte of the tunnel has been processed
    /// by the target; a new connection may be tried.
    #[error("the tunnel's connection is gone")]
    ConnectionGone {
        /// What HTTP/2 said, unless the connection was closed in order.
        source: Option<Arc<h2::Error>>,
    },
    /// The peer answered and said no.
    #[error("the peer refused the tunnel with status {status}: {reason}")]
    Refused {
        /// The answer's status.
        status: StatusCode,
        /// The peer's words, at most 256 bytes; empty when it gave none.
        reason: String,
    },
    /// HTTP/2 does not allow the request, for example because of a header such as
    /// `connection`.
    #[error("the tunnel's request cannot be sent")]
    Request {
        /// What HTTP/2 said.
        source: Arc<h2::Error>,
    },
    /// The peer reset the stream instead of answering.
    #[error("the peer reset the tunnel with code {code}")]
    Reset {
        /// The HTTP/2 error code.
        code: h2::Reason,
    },
    /// The answer took too long.
    #[error("the peer did not answer within {limit:?}")]
    Timeout {
        /// The time allowed.
        limit: Duration,
    },
}

impl TunnelError {
    /// Whether another connection to the same peer may do better.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::ConnectionGone { .. } | Self::AtCapacity { .. } => true,
            Self::Authority { .. }
            | Self::Connect { .. }
            | Self::Refused { .. }
            | Self::Request { .. }
            | Self::Reset { .. }
            | Self::Timeout { .. } => false,
        }
    }

    /// The label for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::AtCapacity { .. } => "at_capacity",
            Self::Authority { .. } => "authority",
            Self::Connect { .. } => "connect",
            Self::ConnectionGone { .. } => "connection_gone",
            Self::Refused { .. } => "refused",
            Self::Request { .. } => "request",
            Self::Reset { .. } => "reset",
            Self::Timeout { .. } => "timeout",
        }
    }

    /// Reads why HTTP/2 did not take a request.
    pub(crate) fn from_request(error: h2::Error) -> Self {
        let gone = error.is_io() || error.is_go_away() || error.is_reset();
        let source = Arc::new(error);
        if gone { Self::ConnectionGone { source: Some(source) } } else { Self::Request { source } }
    }

    /// Reads what HTTP/2 reported for a stream that has no answer yet.
    pub(crate) fn from_stream(error: h2::Error, streams_max: usize) -> Self {
        match error.reason() {
            // The peer promises that it did nothing with the stream.
            Some(h2::Reason::REFUSED_STREAM) if error.is_reset() => {
                Self::AtCapacity { limit: streams_max }
            }
            Some(code) if error.is_reset() => Self::Reset { code },
            Some(_) | None => Self::ConnectionGone { source: Some(Arc::new(error)) },
        }
    }
}
