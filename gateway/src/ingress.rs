//! The ingress role: workers that serve the listeners of Gateway objects.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use isthmus_certs::MeshTls;
use isthmus_model::snapshot::FrontKey;
use isthmus_model::{ListenerFamily, Snapshot, SpiffeId};
use isthmus_proxy::{
    GatewayDialer, MeshDialer, NoRemote, ProxySettings, RemoteDialer, Service, Worker, WorkerParts,
};
use isthmus_runtime::{Drain, DrainOutcome, LocalTasks, SnapshotCell, Stop, WorkerId, Workers};
use isthmus_telemetry::RecorderSeed;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};

use crate::datagrams::DatagramFront;
use crate::dialer::LinkDialer;
use crate::eastwest::LinkHandle;
pub use crate::fronts::FrontStatus;
use crate::fronts::{Command, FrontSocket, Fronts};
use crate::router::IngressRouter;
use crate::streams;
use crate::tls::TlsFront;

/// How the ingress reaches endpoints of other clusters.
#[derive(Debug, Clone)]
pub enum Remote {
    /// By a tunnel through an east-west gateway in another process.
    Gateway(SocketAddr, SpiffeId),
    /// By the links of this process.
    Links(LinkHandle),
    /// Not at all.
    None,
}

/// What an ingress is made from.
pub struct IngressOptions {
    /// The address of listeners whose Gateway names none.
    pub address: IpAddr,
    /// The identity shown to endpoints in the mesh, and whom it trusts.
    pub tls: Option<MeshTls>,
    /// Where listeners and routes come from.
    pub snapshots: SnapshotCell<Snapshot>,
    /// How remote endpoints are reached.
    pub remote: Remote,
    /// One recorder for each worker; their number decides the number of workers.
    pub recorders: Vec<RecorderSeed>,
    /// The limits.
    pub proxy: ProxySettings,
    /// Seed of random choices.
    pub seed: u64,
}

impl fmt::Debug for IngressOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IngressOptions").field("address", &self.address).finish_non_exhaustive()
    }
}

/// A running ingress.
#[derive(Debug)]
pub struct Ingress {
    workers: Workers,
    drain: Drain,
    status: watch::Receiver<Vec<FrontStatus>>,
    /// Owns the task that follows the snapshots.
    tasks: JoinSet<()>,
}

impl Ingress {
    /// Starts the workers and follows the snapshots. Must be called in a tokio runtime.
    ///
    /// # Errors
    ///
    /// The system refused a thread.
    pub fn start(options: IngressOptions) -> io::Result<Self> {
        let drain = Drain::new();
        let shared = Arc::new(Shared {
            tls: options.tls,
            snapshots: options.snapshots.clone(),
            remote: options.remote,
            proxy: options.proxy,
            seed: options.seed,
            stop: drain.stop(),
        });
        let (mut senders, mut seeds) = (Vec::new(), Vec::new());
        for recorder in options.recorders {
            let (sender, commands) = mpsc::channel(COMMANDS_MAX);
            senders.push(sender);
            seeds.push(Seed { shared: Arc::clone(&shared), recorder, commands });
        }
        let workers = Workers::start("ingress", seeds, run)?;
        let (sender, status) = watch::channel(Vec::new());
        let fronts = Fronts {
            snapshots: options.snapshots,
            default_address: options.address,
            workers: senders,
            status: sender,
            open: BTreeMap::new(),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(fronts.run(drain.stop()));
        Ok(Self { workers, drain, status, tasks })
    }

    /// The bound addresses, with a change notification.
    pub fn status(&self) -> watch::Receiver<Vec<FrontStatus>> {
        self.status.clone()
    }

    /// Stops accepting, lets what is in flight end up to `deadline`, and joins the workers.
    pub async fn drain(mut self, deadline: Duration) -> DrainOutcome {
        let outcome = self.drain.run(deadline).await;
        self.tasks.shutdown().await;
        let workers = self.workers;
        let _ = tokio::task::spawn_blocking(move || workers.join()).await;
        outcome
    }
}

struct Shared {
    tls: Option<MeshTls>,
    snapshots: SnapshotCell<Snapshot>,
    remote: Remote,
    proxy: ProxySettings,
    seed: u64,
    stop: Stop,
}

struct Seed {
    shared: Arc<Shared>,
    recorder: RecorderSeed,
    commands: mpsc::Receiver<Command>,
}

async fn run(id: WorkerId, mut seed: Seed) {
    let shared = seed.shared;
    let worker = worker(id, &shared, seed.recorder);
    let mut open: HashMap<FrontKey, AbortHandle> = HashMap::new();
    let mut stop = shared.stop.clone();
    loop {
        let command = tokio::select! {
            biased; // After the drain begins commands do not matter.
            () = stop.draining() => break,
            command = seed.commands.recv() => command,
        };
        match command {
            None => break,
            Some(Command::Close(key)) => {
                // Only the accept loop ends; its connections are tasks of their own.
                if let Some(accepting) = open.remove(&key) {
                    accepting.abort();
                }
            }
            Some(Command::Open { key, family, port, socket }) => {
                if let Some(serving) = serve(&worker, key, (family, port), socket) {
                    open.insert(key, serving);
                }
            }
        }
    }
    stop.forced().await;
}

/// Serves a bound address by what is spoken there.
fn serve(
    worker: &Rc<Worker>,
    key: FrontKey,
    (family, port): (ListenerFamily, u16),
    socket: FrontSocket,
) -> Option<AbortHandle> {
    let owner = Rc::clone(worker);
    let listener = match socket {
        FrontSocket::Tcp(listener) => TcpListener::from_std(listener).ok()?,
        FrontSocket::Udp(socket) => {
            let front = DatagramFront::new(owner, key, UdpSocket::from_std(socket).ok()?);
            return Some(worker.tasks().spawn(front.run()));
        }
    };
    let accepting = match family {
        ListenerFamily::Http => {
            let service = Service { router: Rc::new(IngressRouter::new(key, port)), tls: None };
            worker.tasks().spawn(isthmus_proxy::accept(owner, listener, service))
        }
        ListenerFamily::Tls => {
            let front = Rc::new(TlsFront::new(Rc::clone(worker), key, port));
            let serve = move |stream, address| Rc::clone(&front).serve(stream, address);
            worker.tasks().spawn(isthmus_proxy::accept_each(owner, listener, serve))
        }
        ListenerFamily::Tcp => {
            let relaying = Rc::clone(worker);
            let serve =
                move |stream, address| streams::serve(Rc::clone(&relaying), key, stream, address);
            worker.tasks().spawn(isthmus_proxy::accept_each(owner, listener, serve))
        }
        // Datagrams have sockets of their own.
        ListenerFamily::Udp => return None,
    };
    Some(accepting)
}

fn worker(id: WorkerId, shared: &Shared, recorder: RecorderSeed) -> Rc<Worker> {
    let tasks = LocalTasks::default();
    let remote: Rc<dyn RemoteDialer> = match (&shared.remote, &shared.tls) {
        (Remote::Links(links), _) => Rc::new(LinkDialer::new(links.clone())),
        (Remote::Gateway(address, peer), Some(tls)) => {
            Rc::new(GatewayDialer::new(*address, peer.clone(), tls.clone()))
        }
        (Remote::Gateway(..), None) | (Remote::None, _) => Rc::new(NoRemote),
    };
    Worker::start(WorkerParts {
        settings: shared.proxy.clone(),
        recorder: recorder.into_recorder(),
        reader: shared.snapshots.reader(),
        connector: Box::new(MeshDialer::new(shared.tls.clone(), remote, tasks.clone())),
        on_demand: None,
        stop: shared.stop.clone(),
        tasks,
        seed: shared.seed.wrapping_add(id.0 as u64),
    })
}

/// Commands that may wait for one worker.
const COMMANDS_MAX: usize = 256;
