//! The east-west role: links to peers, and workers that relay between them and this
//! cluster.
//!
//! The links run on a runtime of their own; their handles work on every thread. Workers
//! take connections from sidecars on the mesh port, and streams from peers that the links
//! hand them in turn.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use isthmus_certs::{Expected, MeshTls, TlsError, peer_id};
use isthmus_hbone::wire::ALPN_CONNECT;
use isthmus_link::{
    ALPN, IncomingStream, LinkLimits, LinkOptions, LinkSet, LinkTimers, PeerConfig, StartError,
    TraceContext,
};
use isthmus_model::{ClusterId, Snapshot, SpiffeId, TrustDomain};
use isthmus_proxy::{MeshDialer, NoRemote, ProxySettings, Worker, WorkerParts};
use isthmus_runtime::{
    Drain, DrainOutcome, LocalTasks, SnapshotCell, SocketError, Stop, WorkerId, Workers, bind_tcp,
    bind_udp,
};
use isthmus_telemetry::{RecorderSeed, SpanRef};
use rustls::ServerConfig;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use crate::{incoming, outgoing};

/// What an east-west gateway is made from.
pub struct EastWestOptions {
    /// The cluster.
    pub cluster: ClusterId,
    /// The cluster's trust domain: only its workloads may use the gateway.
    pub trust_domain: TrustDomain,
    /// Where links are taken, UDP and TCP.
    pub link: SocketAddr,
    /// Where local sidecars are taken.
    pub mesh: SocketAddr,
    /// The gateway's identity, and whom it trusts.
    pub tls: MeshTls,
    /// Where peers, imports and exports come from.
    pub snapshots: SnapshotCell<Snapshot>,
    /// One recorder for each worker; their number decides the number of workers.
    pub recorders: Vec<RecorderSeed>,
    /// The limits, for destinations that this gateway stands in for.
    pub proxy: ProxySettings,
    /// Bounds of the links.
    pub limits: LinkLimits,
    /// Timers of the links.
    pub timers: LinkTimers,
    /// Seed of random choices.
    pub seed: u64,
}

impl fmt::Debug for EastWestOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EastWestOptions").field("link", &self.link).finish_non_exhaustive()
    }
}

/// An east-west gateway that could not be started.
#[derive(Debug, thiserror::Error)]
pub enum EastWestError {
    /// The links could not be set up.
    #[error("east-west gateway: {source}")]
    Links {
        /// Why.
        source: StartError,
    },
    /// The system refused a thread or runtime.
    #[error("east-west gateway: cannot start its threads")]
    Runtime {
        /// What the system said.
        source: io::Error,
    },
    /// A port could not be bound.
    #[error("east-west gateway: {source}")]
    Socket {
        /// Which address and why.
        source: SocketError,
    },
    /// TLS could not be set up.
    #[error("east-west gateway: {source}")]
    Tls {
        /// Why.
        source: TlsError,
    },
}

/// The links of this process, for other roles in it.
#[derive(Clone)]
pub struct LinkHandle {
    set: Arc<LinkSet>,
}

impl LinkHandle {
    /// The links.
    pub fn set(&self) -> &LinkSet {
        &self.set
    }
}

impl fmt::Debug for LinkHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkHandle").finish_non_exhaustive()
    }
}

/// A running east-west gateway.
pub struct EastWest {
    links: LinkHandle,
    workers: Workers,
    drain: Drain,
    runtime: Option<Runtime>,
}

impl fmt::Debug for EastWest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EastWest").field("workers", &self.workers).finish_non_exhaustive()
    }
}

impl EastWest {
    /// Binds the ports, starts links and workers, and follows the peers of the snapshots.
    ///
    /// # Errors
    ///
    /// [`EastWestError`] names the address or part.
    pub fn start(options: EastWestOptions) -> Result<Self, EastWestError> {
        let socket = |source| EastWestError::Socket { source };
        let tls = |source| EastWestError::Tls { source };
        let runtime = |source| EastWestError::Runtime { source };
        let count = options.recorders.len().max(1);
        let mesh = bind_tcp(options.mesh, count).map_err(socket)?;
        let quic = bind_udp(options.link, count).map_err(socket)?;
        let tcp = bind_tcp(options.link, count).map_err(socket)?;
        let own = Expected::InTrustDomain(options.trust_domain.clone());
        let server = options.tls.server_config_expecting(&[ALPN_CONNECT], own).map_err(tls)?;
        let link_runtime = link_runtime(count).map_err(runtime)?;
        let (mut senders, mut receivers) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let (sender, receiver) = mpsc::channel(STREAMS_WAITING_MAX);
            senders.push(sender);
            receivers.push(receiver);
        }
        let drain = Drain::new();
        let links = start_links(&options, (quic, tcp), &link_runtime, (senders, drain.stop()))?;
        let shared = Arc::new(Shared {
            cluster: options.cluster,
            tls: options.tls,
            server,
            snapshots: options.snapshots,
            links: links.clone(),
            proxy: options.proxy,
            seed: options.seed,
            stop: drain.stop(),
        });
        let seeds = options
            .recorders
            .into_iter()
            .zip(mesh)
            .zip(receivers)
            .map(|((recorder, mesh), streams)| Seed {
                shared: Arc::clone(&shared),
                recorder,
                mesh,
                streams,
            })
            .collect();
        let workers = Workers::start("eastwest", seeds, run).map_err(runtime)?;
        Ok(Self { links, workers, drain, runtime: Some(link_runtime) })
    }

    /// The links, for status and for the ingress of the same process.
    pub fn links(&self) -> LinkHandle {
        self.links.clone()
    }

    /// Refuses new streams, lets those in flight end up to `deadline`, and ends.
    pub async fn drain(mut self, deadline: Duration) -> DrainOutcome {
        let (outcome, ()) =
            tokio::join!(self.drain.run(deadline), self.links.set().drain(deadline));
        let (workers, runtime) = (self.workers, self.runtime.take());
        let _ = tokio::task::spawn_blocking(move || {
            workers.join();
            if let Some(runtime) = runtime {
                runtime.shutdown_timeout(RUNTIME_SHUTDOWN);
            }
        })
        .await;
        outcome
    }
}

fn link_runtime(threads: usize) -> io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name("link")
        .enable_all()
        .build()
}

type Sockets = (Vec<UdpSocket>, Vec<StdListener>);

fn start_links(
    options: &EastWestOptions,
    (quic, tcp): Sockets,
    runtime: &Runtime,
    (workers, stop): (Vec<mpsc::Sender<IncomingStream>>, Stop),
) -> Result<LinkHandle, EastWestError> {
    let tls = |source| EastWestError::Tls { source };
    let server_tls = options.tls.server_config(&[ALPN]).map_err(tls)?;
    // Checked once here, so that the factory below cannot fail later.
    let fallback = options.tls.client_config(&[ALPN], Expected::AnyOf(Default::default()));
    let (fallback, client) = (fallback.map_err(tls)?, options.tls.clone());
    let (sender, incoming) = mpsc::channel(STREAMS_WAITING_MAX);
    let _entered = runtime.enter();
    let set = LinkSet::start(LinkOptions {
        cluster: options.cluster.clone(),
        client_tls: Arc::new(move |peer: &PeerConfig| {
            let expected = Expected::Exactly(peer.expected_id.clone());
            client.client_config(&[ALPN], expected).unwrap_or_else(|_| Arc::clone(&fallback))
        }),
        server_tls,
        quic,
        tcp,
        authenticate: Arc::new(|chain| peer_id(chain).map_err(|error| error.to_string())),
        incoming: sender,
        limits: options.limits.clone(),
        timers: options.timers.clone(),
        selector: Default::default(),
        seed: options.seed,
    })
    .map_err(|source| EastWestError::Links { source })?;
    let links = LinkHandle { set: Arc::new(set) };
    let tasks = follow_peers(links.clone(), options.snapshots.clone(), stop);
    let deal = deal(incoming, workers);
    // The runtime is the owner: both tasks end with it.
    runtime.handle().spawn(async move {
        tokio::join!(tasks, deal);
    });
    Ok(links)
}

/// Hands streams to the workers in turn; a worker that is full is passed over.
async fn deal(
    mut incoming: mpsc::Receiver<IncomingStream>,
    workers: Vec<mpsc::Sender<IncomingStream>>,
) {
    let mut next = 0usize;
    while let Some(mut stream) = incoming.recv().await {
        let mut taken = false;
        for offset in 0..workers.len() {
            let worker = &workers[(next + offset) % workers.len()];
            match worker.try_send(stream) {
                Ok(()) => {
                    taken = true;
                    break;
                }
                Err(
                    mpsc::error::TrySendError::Full(back) | mpsc::error::TrySendError::Closed(back),
                ) => {
                    stream = back;
                    continue;
                }
            }
        }
        next = next.wrapping_add(1);
        if !taken {
            tracing::warn!("every worker of the east-west gateway is full; a stream is dropped");
        }
    }
}

/// Keeps the links' peers equal to the snapshot's.
async fn follow_peers(links: LinkHandle, snapshots: SnapshotCell<Snapshot>, mut stop: Stop) {
    let mut changed = snapshots.watch();
    changed.mark_changed();
    let mut current = Vec::new();
    loop {
        tokio::select! {
            () = stop.draining() => return,
            outcome = changed.changed() => if outcome.is_err() { return },
        }
        let wanted = peer_configs(&snapshots.load());
        if wanted != current {
            links.set().set_peers(wanted.clone());
            current = wanted;
        }
    }
}

fn peer_configs(snapshot: &Snapshot) -> Vec<PeerConfig> {
    let config = |peer: &Arc<isthmus_model::Peer>| PeerConfig {
        cluster: peer.cluster.clone(),
        expected_id: peer.gateway.clone(),
        addresses: peer.addresses.clone(),
        dial: peer.dial,
        connections: LINK_CONNECTIONS,
    };
    snapshot.peers().values().map(config).collect()
}

pub(crate) struct Shared {
    pub(crate) cluster: ClusterId,
    pub(crate) tls: MeshTls,
    pub(crate) server: Arc<ServerConfig>,
    pub(crate) snapshots: SnapshotCell<Snapshot>,
    pub(crate) links: LinkHandle,
    proxy: ProxySettings,
    seed: u64,
    stop: Stop,
}

struct Seed {
    shared: Arc<Shared>,
    recorder: RecorderSeed,
    mesh: StdListener,
    streams: mpsc::Receiver<IncomingStream>,
}

async fn run(id: WorkerId, seed: Seed) {
    let shared = seed.shared;
    let tasks = LocalTasks::default();
    let settings = shared.proxy.clone().for_mesh();
    let tls = Some(shared.tls.clone());
    let worker = Worker::start(WorkerParts {
        settings,
        recorder: seed.recorder.with_respect_parent(true).into_recorder(),
        reader: shared.snapshots.reader(),
        connector: Box::new(MeshDialer::new(tls, Rc::new(NoRemote), tasks.clone())),
        on_demand: None,
        stop: shared.stop.clone(),
        tasks: tasks.clone(),
        seed: shared.seed.wrapping_add(id.0 as u64),
    });
    match tokio::net::TcpListener::from_std(seed.mesh) {
        Ok(listener) => {
            let outgoing = outgoing::accept(Rc::clone(&worker), Arc::clone(&shared), listener);
            tasks.spawn(outgoing);
        }
        Err(error) => tracing::error!(%error, "the mesh port of the gateway cannot be registered"),
    }
    tasks.spawn(incoming::serve(Rc::clone(&worker), Arc::clone(&shared), seed.streams));
    let mut stop = shared.stop.clone();
    stop.forced().await;
}

/// A span as the link's header carries it.
pub(crate) fn link_trace(span: &SpanRef) -> TraceContext {
    TraceContext {
        trace_id: span.trace_id.to_bytes(),
        span_id: span.span_id.to_bytes(),
        flags: u8::from(span.sampled),
    }
}

/// The identity of a cluster's east-west gateways.
pub fn gateway_id(trust_domain: &TrustDomain) -> Option<SpiffeId> {
    let text = format!("spiffe://{trust_domain}/ns/isthmus-system/sa/isthmus-eastwest");
    SpiffeId::parse(&text).ok()
}

/// Streams that may wait for one worker; above it the link refuses.
const STREAMS_WAITING_MAX: usize = 1024;
/// Connections to one peer.
const LINK_CONNECTIONS: usize = 2;
/// Time that the links' runtime gets to end after the drain.
const RUNTIME_SHUTDOWN: Duration = Duration::from_secs(1);
