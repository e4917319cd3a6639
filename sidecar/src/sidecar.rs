//! Binds a sidecar's ports and runs its workers.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use isthmus_certs::{MeshTls, TlsError};
use isthmus_discovery::OnDemand;
use isthmus_hbone::wire::{ALPN_CONNECT, ALPN_HTTP};
use isthmus_model::{ServiceKey, Snapshot, SpiffeId};
use isthmus_proxy::canonical::Rules;
use isthmus_proxy::connect::LocalFuture;
use isthmus_proxy::{
    GatewayDialer, MeshDialer, NoRemote, ProxySettings, RemoteDialer, Service, Worker, WorkerParts,
    accept_each,
};
use isthmus_runtime::{
    Drain, DrainOutcome, LocalTasks, SnapshotCell, SocketError, Stop, WorkerId, Workers, bind_tcp,
};
use isthmus_telemetry::RecorderSeed;
use rustls::ServerConfig;
use tokio::net::TcpListener;

use crate::accept::{self, Inbound};
use crate::inbound::InboundRouter;
use crate::options::{SidecarOptions, TcpForward, Workload};
use crate::outbound::OutboundRouter;

/// A sidecar that could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A port could not be bound.
    #[error("sidecar {name}: {source}")]
    Socket {
        /// The sidecar.
        name: String,
        /// Which address and why.
        source: SocketError,
    },
    /// The system refused a thread.
    #[error("sidecar {name}: cannot start a worker thread")]
    Thread {
        /// The sidecar.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// TLS could not be set up.
    #[error("sidecar {name}: {source}")]
    Tls {
        /// The sidecar.
        name: String,
        /// Why.
        source: TlsError,
    },
}

/// A running sidecar.
#[derive(Debug)]
pub struct Sidecar {
    workers: Workers,
    drain: Drain,
}

impl Sidecar {
    /// Binds every port and starts the workers.
    ///
    /// # Errors
    ///
    /// [`StartError`] names the sidecar and the address.
    pub fn start(options: SidecarOptions) -> Result<Self, StartError> {
        let name = options.workload.name.clone();
        let socket = |source| StartError::Socket { name: name.clone(), source };
        let count = options.recorders.len().max(1);
        let mut mesh = bind_tcp(options.mesh, count).map_err(socket)?;
        let mut outbound = bind_optional(options.outbound, count).map_err(socket)?;
        let mut inbound = bind_optional(options.inbound, count).map_err(socket)?;
        let mut tcp = Vec::new();
        for forward in &options.tcp {
            tcp.push((forward.clone(), bind_tcp(forward.listen, count).map_err(socket)?));
        }
        let server = options.tls.server_config(&[ALPN_HTTP, ALPN_CONNECT]);
        let server = server.map_err(|source| StartError::Tls { name: name.clone(), source })?;
        let drain = Drain::new();
        let shared = Arc::new(Shared {
            own: own_addresses(&options),
            workload: options.workload,
            tls: options.tls,
            server,
            snapshots: options.snapshots,
            on_demand: options.on_demand,
            gateway: options.gateway,
            proxy: options.proxy,
            seed: options.seed,
            stop: drain.stop(),
        });
        let mut seeds = Vec::with_capacity(count);
        for recorder in options.recorders {
            let forwards = tcp.iter_mut();
            let Some(mesh) = mesh.pop() else { break };
            seeds.push(Seed {
                shared: Arc::clone(&shared),
                recorder,
                mesh,
                outbound: outbound.pop(),
                inbound: inbound.pop(),
                tcp: forwards.filter_map(|(f, list)| Some((f.clone(), list.pop()?))).collect(),
            });
        }
        let workers = Workers::start("sidecar", seeds, run)
            .map_err(|source| StartError::Thread { name, source })?;
        Ok(Self { workers, drain })
    }

    /// Stops accepting, lets what is in flight end up to `deadline`, and joins the workers.
    pub async fn drain(self, deadline: Duration) -> DrainOutcome {
        let outcome = self.drain.run(deadline).await;
        let workers = self.workers;
        // Joining blocks, but not for long: every worker ends once the drain is forced.
        let _ = tokio::task::spawn_blocking(move || workers.join()).await;
        outcome
    }
}

fn bind_optional(
    address: Option<SocketAddr>,
    count: usize,
) -> Result<Vec<StdListener>, SocketError> {
    address.map_or_else(|| Ok(Vec::new()), |address| bind_tcp(address, count))
}

fn own_addresses(options: &SidecarOptions) -> Vec<SocketAddr> {
    let fixed = [Some(options.mesh), options.outbound, options.inbound];
    fixed.into_iter().flatten().chain(options.tcp.iter().map(|f| f.listen)).collect()
}

/// What all workers of a sidecar have in common.
struct Shared {
    workload: Workload,
    own: Vec<SocketAddr>,
    tls: MeshTls,
    server: Arc<ServerConfig>,
    snapshots: SnapshotCell<Snapshot>,
    on_demand: OnDemand,
    gateway: Option<(SocketAddr, SpiffeId)>,
    proxy: ProxySettings,
    seed: u64,
    stop: Stop,
}

/// What one worker starts with.
struct Seed {
    shared: Arc<Shared>,
    recorder: RecorderSeed,
    mesh: StdListener,
    outbound: Option<StdListener>,
    inbound: Option<StdListener>,
    tcp: Vec<(TcpForward, StdListener)>,
}

async fn run(id: WorkerId, seed: Seed) {
    let mut stop = seed.shared.stop.clone();
    if let Err(error) = serve(id, seed) {
        tracing::error!(%error, "a sidecar's worker cannot register its sockets");
        return;
    }
    stop.forced().await;
}

fn serve(id: WorkerId, seed: Seed) -> io::Result<()> {
    let shared = seed.shared;
    let worker = worker(id, &shared, seed.recorder);
    let locality = worker.pin().node.locality.clone();
    let router = InboundRouter::new(shared.workload.clone(), locality, &shared.own);
    let inbound = Rc::new(Inbound {
        worker: Rc::clone(&worker),
        router: Rc::new(router),
        tls: Arc::clone(&shared.server),
    });
    let listener = TcpListener::from_std(seed.mesh)?;
    let mesh = Rc::clone(&inbound);
    worker.tasks().spawn(accept_each(Rc::clone(&worker), listener, move |stream, address| {
        accept::serve_mesh(Rc::clone(&mesh), stream, address)
    }));
    if let Some(listener) = seed.inbound {
        let listener = TcpListener::from_std(listener)?;
        worker.tasks().spawn(accept_each(Rc::clone(&worker), listener, move |stream, address| {
            accept::serve_inbound(Rc::clone(&inbound), stream, address)
        }));
    }
    if let Some(listener) = seed.outbound {
        let listener = TcpListener::from_std(listener)?;
        let port = listener.local_addr()?.port();
        let router = Rc::new(OutboundRouter::new(shared.workload.namespace.clone(), port));
        let service = Service { router, tls: None };
        worker.tasks().spawn(isthmus_proxy::accept(Rc::clone(&worker), listener, service));
    }
    let identity = shared.tls.svid().load().map(|svid| svid.id().clone());
    for (forward, listener) in seed.tcp {
        let (listener, forward) = (TcpListener::from_std(listener)?, Rc::new(forward));
        let (owner, identity) = (Rc::clone(&worker), identity.clone());
        worker.tasks().spawn(accept_each(Rc::clone(&worker), listener, move |stream, address| {
            let (worker, forward) = (Rc::clone(&owner), Rc::clone(&forward));
            accept::serve_forward(worker, stream, address, forward, identity.clone())
        }));
    }
    Ok(())
}

fn worker(id: WorkerId, shared: &Shared, recorder: RecorderSeed) -> Rc<Worker> {
    let tasks = LocalTasks::default();
    let remote: Rc<dyn RemoteDialer> = match &shared.gateway {
        Some((address, peer)) => {
            Rc::new(GatewayDialer::new(*address, peer.clone(), shared.tls.clone()))
        }
        None => Rc::new(NoRemote),
    };
    let settings = ProxySettings {
        rules: Rules { encoded_slashes: true, connect: true },
        ..shared.proxy.clone().for_mesh()
    };
    Worker::start(WorkerParts {
        settings,
        recorder: recorder.with_respect_parent(true).into_recorder(),
        reader: shared.snapshots.reader(),
        connector: Box::new(MeshDialer::new(Some(shared.tls.clone()), remote, tasks.clone())),
        on_demand: Some(Box::new(Fetch(shared.on_demand.clone()))),
        stop: shared.stop.clone(),
        tasks,
        seed: shared.seed.wrapping_add(id.0 as u64),
    })
}

/// Fetches services through discovery.
struct Fetch(OnDemand);

impl isthmus_proxy::OnDemand for Fetch {
    fn want(&self, service: &ServiceKey) -> LocalFuture<()> {
        let (on_demand, service) = (self.0.clone(), service.clone());
        Box::pin(async move {
            let outcome = on_demand.want(&service).await;
            tracing::debug!(%service, ?outcome, "asked for a service");
        })
    }

    fn touch(&self, service: &ServiceKey) {
        self.0.touch(service);
    }
}
