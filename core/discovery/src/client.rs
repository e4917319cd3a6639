//! The proxy's shell: one task owns the subscriber, the stream, and the state file.
//!
//! It starts from the state file, so the snapshot is there at once even if no controller
//! ever is; it reconnects for ever with growing, jittered pauses; and whatever happens to
//! the stream, the last good state goes on serving. A renewed certificate is shown on a new
//! stream, which takes over without a gap (`streams`). Snapshots are built in this task, away
//! from the request path, and a delta is acknowledged only once its snapshot is in place:
//! while one is built, further changes collapse at the controller.

mod on_demand;

pub(crate) mod port;

mod streams;

mod task;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use isthmus_model::{Generation, NodeInfo, Snapshot, SpiffeId};
use isthmus_runtime::{SnapshotCell, clock};
use rustls_pki_types::ServerName;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

pub use self::on_demand::{OnDemand, Touch, Wanted};
use self::on_demand::{Scope, Usage};
use self::task::ClientTask;
use crate::hub::PublisherHandle;
use crate::message::{Epoch, LinkReport, Rejection};
use crate::node::{NodeIdentity, NodeRole, WorkloadName};
use crate::server::IdentifyPeer;
use crate::state_file::StateFile;
use crate::subscriber::NamesSettings;

/// What a client needs.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// The name of this node, for status.
    pub node_name: String,
    /// The role of this process.
    pub role: NodeRole,
    /// The workload of a sidecar; over gRPC the certificate decides.
    pub workload: Option<WorkloadName>,
    /// What snapshots are built for.
    pub node: NodeInfo,
    /// How the controller is reached.
    pub transport: Transport,
    /// Where the last good state is kept; `None` keeps none.
    pub state_file: Option<PathBuf>,
    /// Times and limits.
    pub limits: ClientLimits,
}

/// How the controller is reached.
#[derive(Debug, Clone)]
pub enum Transport {
    /// Over mutual TLS.
    Grpc(GrpcTransport),
    /// In this process.
    InProcess(PublisherHandle),
}

/// A controller behind mutual TLS.
#[derive(Clone)]
pub struct GrpcTransport {
    /// `host:port`; the name is resolved for each attempt.
    pub address: String,
    /// Presents this node's certificate and verifies the controller's; ALPN is set here.
    pub tls: Arc<rustls::ClientConfig>,
    /// What is put into SNI and given to the verifier.
    pub server_name: ServerName<'static>,
    /// Who the controller must be: any other identity is refused even if its certificate
    /// is valid.
    pub controller: SpiffeId,
    /// Reads the identity of the verified controller.
    pub identify: IdentifyPeer,
    /// Changes when `tls` presents another certificate than before, which a new stream
    /// then shows to the controller.
    pub renewed: watch::Receiver<u64>,
}

impl fmt::Debug for GrpcTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrpcTransport")
            .field("address", &self.address)
            .field("controller", &self.controller)
            .finish_non_exhaustive()
    }
}

/// Times and limits of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientLimits {
    /// How long a service that is not called is kept. Default: 10 min.
    pub idle: Duration,
    /// How long a name that does not exist is remembered. Default: 5 s.
    pub absent: Duration,
    /// Services asked for at a time. Default: 4096, at most 16384.
    pub names_max: usize,
    /// How long [`OnDemand::want`] waits. Default: 2 s.
    pub want_timeout: Duration,
    /// The longest pause between two attempts to connect. Default: 3 s.
    pub reconnect_max: Duration,
    /// How long changes are collected before the state file is written. Default: 1 s.
    pub save_delay: Duration,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(600),
            absent: Duration::from_secs(5),
            names_max: 4096,
            want_timeout: Duration::from_secs(2),
            reconnect_max: Duration::from_secs(3),
            save_delay: Duration::from_secs(1),
        }
    }
}

/// A running client; dropping it ends its stream without saving what is unsaved.
#[derive(Debug)]
pub struct DiscoveryClient {
    snapshots: SnapshotCell<Snapshot>,
    on_demand: OnDemand,
    status: watch::Receiver<Condition>,
    links: watch::Sender<Vec<LinkReport>>,
    stop: watch::Sender<bool>,
    task: JoinSet<()>,
}

/// How a client is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientStatus {
    /// Whether the stream is open and the controller has said what is current.
    pub connected: bool,
    /// Whether the state in use is still the one from the state file.
    pub from_disk: bool,
    /// The epoch of the state in use.
    pub epoch: Option<Epoch>,
    /// The generation of the state in use; `None` before the first state.
    pub generation: Option<Generation>,
    /// How long ago the state was last known to be current: 0 while connected, and `None`
    /// before the first state. The metric `config_age_seconds`.
    pub age: Option<Duration>,
    /// Services asked for.
    pub names: usize,
    /// What went wrong last, until a stream works again.
    pub last_error: Option<String>,
    /// What is wrong with the state file, until it is written again.
    pub state_file_error: Option<String>,
    /// The resources of the last delta that are not in use.
    pub rejections: Vec<Rejection>,
}

/// What the task says of itself; the age is computed when it is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Condition {
    connected: bool,
    from_disk: bool,
    epoch: Option<Epoch>,
    generation: Option<Generation>,
    age: Age,
    names: usize,
    last_error: Option<String>,
    state_file_error: Option<String>,
    rejections: Vec<Rejection>,
}

/// How old the state in use is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Age {
    /// Known to be current.
    Current,
    /// There is no state.
    #[default]
    None,
    /// Current `offset` before this moment.
    Since { moment: Instant, offset: Duration },
}

impl DiscoveryClient {
    /// Starts a client. Reads the state file before it returns, so the first snapshot is
    /// in place then.
    ///
    /// Must be called inside a tokio runtime, which should not be one of the data plane.
    pub fn start(options: ClientOptions) -> Self {
        let file = options
            .state_file
            .as_ref()
            .map(|path| StateFile::new(path, &options.node, options.role));
        let (wants, inbox) = mpsc::channel(WANTS_QUEUED);
        let (links, reported) = watch::channel(Vec::new());
        let (stop, stopped) = watch::channel(false);
        let usage = Usage::default();
        let seed = task::Seed { file, inbox, reported, stopped, usage: usage.clone() };
        let scope = if options.role.is_on_demand() { Scope::Asked } else { Scope::Everything };
        let want_timeout = options.limits.want_timeout;
        let (client, status, snapshots) = ClientTask::new(options, seed);
        let on_demand = OnDemand::new(scope, usage, wants, want_timeout);
        let mut task = JoinSet::new();
        task.spawn(client.run());
        Self { snapshots, on_demand, status, links, stop, task }
    }

    /// The snapshots; empty until there is a state.
    pub fn snapshots(&self) -> SnapshotCell<Snapshot> {
        self.snapshots.clone()
    }

    /// The handle by which the request path asks for services.
    pub fn on_demand(&self) -> OnDemand {
        self.on_demand.clone()
    }

    /// Tells the controller what the links look like; the latest report counts, and is
    /// repeated after a reconnect.
    pub fn report(&self, links: Vec<LinkReport>) {
        self.links.send_replace(links);
    }

    /// How the client is doing.
    pub fn status(&self) -> ClientStatus {
        let condition = self.status.borrow().clone();
        let age = match condition.age {
            Age::Current => Some(Duration::ZERO),
            Age::None => None,
            Age::Since { moment, offset } => {
                Some(clock::now().saturating_duration_since(moment) + offset)
            }
        };
        let Condition { connected, from_disk, epoch, generation, names, .. } = condition;
        let Condition { last_error, state_file_error, rejections, .. } = condition;
        ClientStatus {
            connected,
            from_disk,
            epoch,
            generation,
            age,
            names,
            last_error,
            state_file_error,
            rejections,
        }
    }

    /// Wakes when the status has changed; several changes may come as one.
    ///
    /// # Cancel safety
    ///
    /// May be dropped and called again.
    pub async fn wait_for(&self, condition: impl Fn(&ClientStatus) -> bool) {
        let mut changes = self.status.clone();
        while !condition(&self.status()) {
            if changes.changed().await.is_err() {
                // The task is gone, and the status will not change any more.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Writes what is unsaved and ends the stream.
    pub async fn shutdown(mut self) {
        self.stop.send_replace(true);
        while self.task.join_next().await.is_some() {}
    }
}

impl ClientOptions {
    fn identity(&self) -> NodeIdentity {
        let (name, workload) = (self.node_name.clone(), self.workload.clone());
        NodeIdentity { name, role: self.role, workload, identity: None }
    }
}

impl ClientLimits {
    fn names(&self) -> NamesSettings {
        let count_max = self.names_max.min(crate::publisher::subscription::NAMES_MAX);
        NamesSettings { idle: self.idle, absent: self.absent, count_max }
    }
}

/// Callers that wait for the task to take their wish; further ones are told to time out.
const WANTS_QUEUED: usize = 1024;
