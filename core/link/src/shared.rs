//! What all tasks of one link set share.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use arc_swap::ArcSwap;
use isthmus_model::{ClusterId, SpiffeId};
use tokio::sync::{mpsc, watch};
use tokio_util::task::TaskTracker;

use crate::limits::{LinkLimits, LinkTimers, PING_PADDING_BYTES};
use crate::options::{Authenticate, ClientTls};
use crate::peer::Peer;
use crate::proto::selector::{ConnectionId, SelectorSettings};
use crate::proto::session::SessionConfig;
use crate::proto::version::VersionRange;
use crate::status::Counters;
use crate::stream::IncomingStream;
use crate::window::WindowBudget;

/// Settings, counters and the current peers.
pub(crate) struct Shared {
    pub(crate) cluster: ClusterId,
    pub(crate) client_tls: ClientTls,
    pub(crate) server_tls: Arc<rustls::ServerConfig>,
    pub(crate) authenticate: Authenticate,
    pub(crate) incoming: mpsc::Sender<IncomingStream>,
    pub(crate) limits: LinkLimits,
    pub(crate) timers: LinkTimers,
    pub(crate) selector: SelectorSettings,
    pub(crate) seed: u64,
    pub(crate) counters: Arc<Counters>,
    pub(crate) windows: WindowBudget,
    pub(crate) peers: ArcSwap<Peers>,
    /// Owns the lanes, connections and accept loops.
    pub(crate) tasks: TaskTracker,
    pub(crate) phase: watch::Sender<Phase>,
    /// Grows with each change of a peer's state.
    pub(crate) changed: watch::Sender<u64>,
    pub(crate) next_connection: AtomicU64,
}

/// The peers of one configuration.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    pub(crate) by_cluster: BTreeMap<ClusterId, Arc<Peer>>,
    pub(crate) by_id: BTreeMap<SpiffeId, Arc<Peer>>,
}

/// How far a peer, or the whole set, is from its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Running,
    /// No new streams; connections end by this time.
    Draining {
        until: Instant,
    },
    /// Connections end now.
    Forced,
}

impl Shared {
    pub(crate) fn next_connection(&self) -> ConnectionId {
        ConnectionId(self.next_connection.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn session_config(&self, peer: &ClusterId) -> SessionConfig {
        SessionConfig {
            cluster: self.cluster.clone(),
            peer: peer.clone(),
            versions: VersionRange::CURRENT,
            hello_timeout: self.timers.handshake,
            ping_interval: self.timers.ping_interval,
            ping_padding: PING_PADDING_BYTES,
            dead_after: self.timers.dead_after,
            bye_timeout: self.timers.bye,
        }
    }

    /// Wakes those who watch for changes.
    pub(crate) fn notify(&self) {
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
    }
}
