//! What goes into a session and what comes out.

use std::time::Duration;

use isthmus_model::ClusterId;

use super::close::CloseReason;
use crate::proto::frame::{Role, Stats};
use crate::proto::version::VersionRange;

/// What a session must know from the start.
#[derive(Debug, Clone)]
pub struct SessionConfig {
    /// This cluster.
    pub cluster: ClusterId,
    /// The cluster that the peer's certificate stands for; its Hello must say the same.
    pub peer: ClusterId,
    /// The versions that this end speaks.
    pub versions: VersionRange,
    /// How long the peer may take for its Hello.
    pub hello_timeout: Duration,
    /// Time between pings.
    pub ping_interval: Duration,
    /// Bytes of padding in a ping.
    pub ping_padding: u16,
    /// How long the peer may be silent.
    pub dead_after: Duration,
    /// How long to wait for the peer to close after a drain.
    pub bye_timeout: Duration,
}

/// Which end this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// This end was dialled.
    Acceptor,
    /// This end dialled.
    Dialler,
}

/// What a session tells its shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionEvent {
    /// The session is over; the connection is to be closed with the reason's code.
    Closed(CloseReason),
    /// The peer takes no new streams on this connection.
    PeerDraining,
    /// The dialler says whether this connection is for new streams.
    PeerRole(Role),
    /// What the peer measures.
    PeerStats(Stats),
    /// Both ends agree; streams may be opened.
    Up {
        /// The version in use.
        version: u16,
    },
}
