//! All links of one gateway.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use arc_swap::ArcSwap;
use isthmus_model::ClusterId;
use isthmus_runtime::clock;
use tokio::io::AsyncWriteExt;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::error::{OpenError, StartError};
use crate::lane::Lane;
use crate::link::StreamGuard;
use crate::options::{LinkOptions, PeerConfig};
use crate::peer::{Peer, Picked};
use crate::proto::header::StreamHeader;
use crate::proto::session::CloseCode;
use crate::shared::{Peers, Phase, Shared};
use crate::status::{Counters, LinkCounters, LinkStatus, count};
use crate::stream::LinkStream;
use crate::window::WindowBudget;
use crate::{accept, handshake, quic};

/// All links of one gateway: listens, dials, opens streams.
///
/// Cheap to clone and usable from any thread. Its tasks run on the runtime that called
/// [`LinkSet::start`]; dropping the last clone ends them all.
#[derive(Clone)]
pub struct LinkSet {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    runtime: Handle,
    endpoints: Vec<quinn::Endpoint>,
}

impl LinkSet {
    /// Starts to listen; peers are given with [`LinkSet::set_peers`].
    ///
    /// # Errors
    ///
    /// [`StartError`] when a socket or the TLS settings cannot be used.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn start(options: LinkOptions) -> Result<Self, StartError> {
        let server_tls = Arc::new(handshake::server_tls(&options.server_tls));
        let shared = Arc::new(Shared {
            cluster: options.cluster,
            client_tls: options.client_tls,
            server_tls: Arc::clone(&server_tls),
            authenticate: options.authenticate,
            incoming: options.incoming,
            windows: WindowBudget::new(options.limits.total_window),
            limits: options.limits,
            timers: options.timers,
            selector: options.selector,
            seed: options.seed,
            counters: Arc::new(Counters::default()),
            peers: ArcSwap::default(),
            tasks: TaskTracker::new(),
            phase: watch::Sender::new(Phase::Running),
            changed: watch::Sender::new(0),
            next_connection: AtomicU64::new(1),
        });
        let mut endpoints = Vec::with_capacity(options.quic.len());
        for socket in options.quic {
            let endpoint = quic::listen(socket, &server_tls, &shared.limits, &shared.timers)?;
            shared.tasks.spawn(accept::run_quic(Arc::clone(&shared), endpoint.clone()));
            endpoints.push(endpoint);
        }
        for listener in options.tcp {
            let failed = |source| StartError::Socket { transport: "TCP", source };
            listener.set_nonblocking(true).map_err(failed)?;
            let listener = tokio::net::TcpListener::from_std(listener).map_err(failed)?;
            shared.tasks.spawn(accept::run_tcp(Arc::clone(&shared), listener));
        }
        let inner = Inner { shared, runtime: Handle::current(), endpoints };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Makes the peers those of `configs`: new ones are dialled, those that are gone or
    /// have changed are drained and closed within [`LinkTimers::removal`](crate::LinkTimers).
    ///
    /// Of two peers with the same cluster or identity the first is taken. Calls must not
    /// overlap; one owner calls this.
    pub fn set_peers(&self, configs: Vec<PeerConfig>) {
        let shared = &self.inner.shared;
        let old = shared.peers.load_full();
        let (mut next, mut started) = (Peers::default(), Vec::new());
        let mut seen = BTreeSet::new();
        for config in configs {
            let known = next.by_cluster.contains_key(&config.cluster);
            if known || !seen.insert(config.expected_id.clone()) {
                let (cluster, id) = (&config.cluster, &config.expected_id);
                tracing::warn!(%cluster, %id, "peer is listed twice, the first is taken");
                continue;
            }
            let peer = match old.by_cluster.get(&config.cluster) {
                Some(peer) if peer.config == config => Arc::clone(peer),
                Some(_) | None => {
                    let peer = Arc::new(Peer::new(clock::now(), config));
                    started.push(Arc::clone(&peer));
                    peer
                }
            };
            next.by_id.insert(peer.config.expected_id.clone(), Arc::clone(&peer));
            next.by_cluster.insert(peer.config.cluster.clone(), peer);
        }
        let kept: Vec<_> = next.by_cluster.values().cloned().collect();
        shared.peers.store(Arc::new(next));
        let until = clock::now() + shared.timers.removal;
        for peer in old.by_cluster.values() {
            if !kept.iter().any(|own| Arc::ptr_eq(own, peer)) {
                peer.phase.send_replace(Phase::Draining { until });
            }
        }
        if *shared.phase.borrow() == Phase::Running {
            started.iter().for_each(|peer| self.start_lanes(peer));
        }
        shared.notify();
    }

    /// Opens a stream to a service of a peer, without waiting for the peer's answer.
    ///
    /// Data may be written at once; the first read waits for the answer and fails with a
    /// [`StreamRefused`](crate::StreamRefused) inside when the peer refuses. When no
    /// connection is up, waits for one up to [`LinkTimers::open_wait`](crate::LinkTimers).
    ///
    /// # Errors
    ///
    /// [`OpenError`] says why there is no stream; nothing was sent to a service then.
    pub async fn open(
        &self,
        cluster: &ClusterId,
        header: StreamHeader,
    ) -> Result<LinkStream, OpenError> {
        let shared = &self.inner.shared;
        let mut bytes = Vec::with_capacity(256);
        header.encode(&mut bytes);
        let deadline = tokio::time::Instant::now() + shared.timers.open_wait;
        let mut failure = OpenError::NoLink { peer: cluster.clone() };
        for _ in 0..OPEN_ATTEMPTS_MAX {
            let guard = self.reserve(cluster, deadline, &failure).await?;
            match tokio::time::timeout_at(deadline, start_stream(guard, &bytes)).await {
                Ok(Ok(stream)) => {
                    count(&shared.counters.streams_opened);
                    return Ok(stream);
                }
                Ok(Err(reason)) => {
                    failure = OpenError::Transport { peer: cluster.clone(), reason };
                    // The connection has ended but is still listed; its task is next.
                    tokio::task::yield_now().await;
                }
                Err(_) => return Err(OpenError::Busy { peer: cluster.clone(), connections: 1 }),
            }
        }
        Err(failure)
    }

    /// The state of each peer, ordered by cluster.
    pub fn status(&self) -> Vec<LinkStatus> {
        let peers = self.inner.shared.peers.load();
        peers.by_cluster.values().map(|peer| peer.status()).collect()
    }

    /// Wakes when a peer's state changes; several changes may come as one. Measurements
    /// (round trip, loss) change without a wake.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.inner.shared.changed.subscribe()
    }

    /// Totals since the start.
    pub fn counters(&self) -> LinkCounters {
        self.inner.shared.counters.snapshot()
    }

    /// Stops accepting and dialling, lets streams end up to `deadline`, then closes.
    ///
    /// Peers are told at once, so that they open new streams elsewhere.
    pub async fn drain(&self, deadline: Duration) {
        let shared = &self.inner.shared;
        let until = clock::now() + deadline;
        self.set_phase(Phase::Draining { until });
        shared.tasks.close();
        let limit = deadline + shared.timers.bye;
        if tokio::time::timeout(limit, shared.tasks.wait()).await.is_err() {
            self.set_phase(Phase::Forced);
            let _ = tokio::time::timeout(FORCE_TIMEOUT, shared.tasks.wait()).await;
        }
        for endpoint in &self.inner.endpoints {
            endpoint.close(CloseCode::Drained.to_wire().into(), b"drained");
            // Lets the last packets leave the socket.
            let _ = tokio::time::timeout(FORCE_TIMEOUT, endpoint.wait_idle()).await;
        }
    }

    fn set_phase(&self, phase: Phase) {
        let shared = &self.inner.shared;
        shared.phase.send_replace(phase);
        for peer in shared.peers.load().by_cluster.values() {
            peer.phase.send_replace(phase);
        }
        shared.notify();
    }

    fn start_lanes(&self, peer: &Arc<Peer>) {
        if !peer.config.dial {
            return;
        }
        let shared = &self.inner.shared;
        let count = peer.config.connections.clamp(1, shared.limits.connections_per_peer.max(1));
        for index in 0..count {
            let lane = Lane::new(shared, peer, index);
            shared.tasks.spawn_on(lane.run(), &self.inner.runtime);
        }
    }

    /// A place on a connection to the cluster, waiting for one to come up if need be.
    async fn reserve(
        &self,
        cluster: &ClusterId,
        deadline: tokio::time::Instant,
        failure: &OpenError,
    ) -> Result<StreamGuard, OpenError> {
        let shared = &self.inner.shared;
        if *shared.phase.borrow() != Phase::Running {
            return Err(OpenError::Draining);
        }
        let unknown = || OpenError::UnknownPeer { peer: cluster.clone() };
        let peer = Arc::clone(shared.peers.load().by_cluster.get(cluster).ok_or_else(unknown)?);
        let mut changed = peer.links_changed.subscribe();
        loop {
            match peer.pick() {
                Picked::Link(guard) => return Ok(guard),
                Picked::Busy { connections } => {
                    return Err(OpenError::Busy { peer: cluster.clone(), connections });
                }
                Picked::None => {}
            }
            match tokio::time::timeout_at(deadline, changed.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Err(failure.clone()),
            }
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.phase.send_replace(Phase::Forced);
        for peer in self.shared.peers.load().by_cluster.values() {
            peer.phase.send_replace(Phase::Forced);
        }
    }
}

impl fmt::Debug for LinkSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkSet")
            .field("cluster", &self.inner.shared.cluster)
            .finish_non_exhaustive()
    }
}

async fn start_stream(guard: StreamGuard, header: &[u8]) -> Result<LinkStream, String> {
    let mut raw = guard.link.connection.open().await?;
    raw.write_all(header).await.map_err(|error| error.to_string())?;
    raw.flush().await.map_err(|error| error.to_string())?;
    Ok(LinkStream::opened(raw, guard))
}

/// Connections tried for one stream.
const OPEN_ATTEMPTS_MAX: usize = 3;
const FORCE_TIMEOUT: Duration = Duration::from_secs(1);
