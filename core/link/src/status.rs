//! What operators and the router see of links.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use isthmus_model::ClusterId;

use crate::proto::frame::Stats;
use crate::proto::selector::{ChangeReason, Transport};

/// The state of the link to one peer.
#[derive(Debug, Clone, PartialEq)]
pub struct LinkStatus {
    /// The peer.
    pub peer: ClusterId,
    /// Whether streams can be opened.
    pub state: LinkState,
    /// The transport that new streams use; the better one when lanes differ.
    pub transport: Option<Transport>,
    /// Smallest smoothed round trip of the active connections.
    pub rtt: Option<Duration>,
    /// Largest loss of the active connections, from 0 to 1.
    pub loss: f64,
    /// Bytes delivered in the last second over all connections.
    pub goodput: u64,
    /// Live connections.
    pub connections: usize,
    /// Open application streams.
    pub streams: usize,
    /// How often a lane changed its connection, by reason.
    pub changes: BTreeMap<ChangeReason, u64>,
    /// When `state` last changed.
    pub since: Instant,
    /// The peer's address on one of the active connections.
    pub address: Option<SocketAddr>,
    /// What the peer last said that it measures.
    pub peer_stats: Stats,
    /// The last failure, for operators.
    pub last_error: Option<String>,
}

/// Whether a link can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LinkState {
    /// No connection; one is sought if this end dials.
    Down,
    /// Connections end in good order, new streams are not taken.
    Draining,
    /// Streams can be opened.
    Up,
}

impl LinkState {
    /// The name for logs and metric labels.
    pub fn label(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Draining => "draining",
            Self::Up => "up",
        }
    }
}

/// Totals since the start, over all peers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkCounters {
    /// Application bytes written to streams.
    pub bytes_sent: u64,
    /// Application bytes read from streams.
    pub bytes_received: u64,
    /// Streams that this end opened.
    pub streams_opened: u64,
    /// Streams that a peer opened and this end took.
    pub streams_accepted: u64,
    /// Streams that a peer opened and this end refused.
    pub streams_refused: u64,
    /// Connections that were established.
    pub connections_opened: u64,
    /// Established connections that have ended.
    pub connections_closed: u64,
    /// Handshakes that failed for any reason.
    pub handshakes_failed: u64,
    /// Handshakes that failed because the peer is not who it should be.
    pub auth_failures: u64,
    /// Handshakes that were turned away because too many were in flight.
    pub handshakes_dropped: u64,
}

/// The live counters behind [`LinkCounters`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) bytes_sent: AtomicU64,
    pub(crate) bytes_received: AtomicU64,
    pub(crate) streams_opened: AtomicU64,
    pub(crate) streams_accepted: AtomicU64,
    pub(crate) streams_refused: AtomicU64,
    pub(crate) connections_opened: AtomicU64,
    pub(crate) connections_closed: AtomicU64,
    pub(crate) handshakes_failed: AtomicU64,
    pub(crate) auth_failures: AtomicU64,
    pub(crate) handshakes_dropped: AtomicU64,
}

impl Counters {
    pub(crate) fn snapshot(&self) -> LinkCounters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LinkCounters {
            bytes_sent: read(&self.bytes_sent),
            bytes_received: read(&self.bytes_received),
            streams_opened: read(&self.streams_opened),
            streams_accepted: read(&self.streams_accepted),
            streams_refused: read(&self.streams_refused),
            connections_opened: read(&self.connections_opened),
            connections_closed: read(&self.connections_closed),
            handshakes_failed: read(&self.handshakes_failed),
            auth_failures: read(&self.auth_failures),
            handshakes_dropped: read(&self.handshakes_dropped),
        }
    }
}

/// Adds one to a counter.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
