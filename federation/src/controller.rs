//! The controller's shell: one task owns the index; everything else talks to it.
//!
//! The task waits for inputs, takes them in batches, lets time pass, plans when something
//! has changed, publishes when the plan differs, and gives sessions what they can take. It
//! makes no decision of its own.

mod begin;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use isthmus_certs::{Bundle, BundleStore, MeshTls, TlsError};
use isthmus_discovery::{NodeReport, PublisherHandle};
use isthmus_model::{ClusterId, Locality, TrustDomain};
use isthmus_runtime::{Drain, Stop, clock};
use tokio::net::TcpListener;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};

use self::begin::begin;
use crate::decided::Decided;
use crate::index::{Beginning, Index};
use crate::mcs::VipRange;
use crate::peer::client::{ALPN, PeerClient};
use crate::peer::dialer::PeerDialer;
use crate::peer::event::{EVENTS_QUEUED, Event};
use crate::peer::server;
use crate::plan::{Configuration, OwnCluster};
use crate::state::{SavedState, StateFile};
use crate::status::Status;

/// Who this controller is.
#[derive(Debug, Clone)]
pub struct ControllerOptions {
    /// This cluster.
    pub cluster: ClusterId,
    /// Its trust domain.
    pub trust_domain: TrustDomain,
    /// Where most of it runs.
    pub locality: Locality,
    /// The release, shown to peers.
    pub version: String,
    /// Where the state file is kept; must exist.
    pub state_dir: PathBuf,
    /// The range of ClusterSetIPs.
    pub vip_range: VipRange,
    /// The secret that endpoint ids are made with; `None` takes the one of the state file.
    /// A controller that runs now on this machine and now on that must be given it, or
    /// every peer sees other endpoints after a move.
    pub endpoint_secret: Option<[u8; 32]>,
    /// How long the first plan waits for linked clusters of which nothing was saved. Zero
    /// where the state outlives the process; else what they export would vanish for
    /// everybody until they are heard.
    pub settle: Duration,
    /// Where the own east-west gateway reaches this controller for its peers; `None` where
    /// that is the address of the listener.
    pub advertised: Option<SocketAddr>,
}

/// What the controller works with.
pub struct ControllerParts {
    /// The user's objects; `None` until all of them have been read once.
    pub configuration: watch::Receiver<Option<Arc<Configuration>>>,
    /// The bundle of the own authority.
    pub own_bundle: watch::Receiver<Arc<Bundle>>,
    /// The bundles of every trust domain; the controller becomes their only writer.
    pub bundles: BundleStore,
    /// The identity of the controller.
    pub tls: MeshTls,
    /// How peers' controllers are reached.
    pub dialer: Arc<dyn PeerDialer>,
    /// Where peers' controllers come in, through the gateway.
    pub listener: TcpListener,
    /// Where the result goes.
    pub publisher: PublisherHandle,
}

impl fmt::Debug for ControllerParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControllerParts").field("listener", &self.listener).finish_non_exhaustive()
    }
}

/// A controller that does not start.
#[derive(Debug, thiserror::Error)]
pub enum ControllerError {
    /// The listener has no address.
    #[error("the listener for peers has no address")]
    Listener(#[source] std::io::Error),
    /// There is no randomness for the secret of endpoint ids.
    #[error("the system gives no random bytes")]
    Random,
    /// The first state cannot be written, so a restart would not know its epoch.
    #[error("cannot write the federation state in {}", dir.display())]
    State {
        /// The directory.
        dir: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The TLS configuration cannot be made.
    #[error("cannot make the TLS configuration for peers")]
    Tls(#[source] TlsError),
}

/// The running controller; dropping it ends its sessions at once.
#[derive(Debug)]
pub struct Controller {
    status: watch::Receiver<Arc<Status>>,
    decided: watch::Receiver<Option<Arc<Decided>>>,
    drain: Drain,
    task: JoinSet<()>,
}

impl Controller {
    /// Starts a controller. Must be called inside a tokio runtime, which should not be one
    /// of the data plane.
    ///
    /// # Errors
    ///
    /// [`ControllerError`]: nothing has been started.
    pub fn start(
        options: ControllerOptions,
        parts: ControllerParts,
    ) -> Result<Self, ControllerError> {
        let (now, wall) = (clock::now(), clock::wall());
        let listen = parts.listener.local_addr().map_err(ControllerError::Listener)?;
        let tls = parts.tls.server_config(&[ALPN]).map_err(ControllerError::Tls)?;
        let file = StateFile::new(&options.state_dir);
        let (mut saved, saved_age) = begin(&file, wall)?;
        saved.secret = options.endpoint_secret.unwrap_or(saved.secret);
        // The epoch must be on disk before the first peer hears of it.
        file.save(&saved)
            .map_err(|source| ControllerError::State { dir: options.state_dir.clone(), source })?;
        let settle = options.settle;
        let (own, vip_range) = own_cluster(options, listen);
        let bundles = parts.bundles;
        let beginning = Beginning { own, vip_range, bundles, saved, saved_age, settle };
        let index = Index::new(now, beginning);
        let (events, inbox) = mpsc::channel(EVENTS_QUEUED);
        let status = watch::Sender::new(Arc::new(index.status(now)));
        let (reader, drain) = (status.subscribe(), Drain::new());
        let decided = watch::Sender::new(None);
        let decisions = decided.subscribe();
        let mut tasks = JoinSet::new();
        tasks.spawn(server::serve(parts.listener, tls, events.clone()));
        let owner = Owner {
            index,
            configuration: parts.configuration,
            own_bundle: parts.own_bundle,
            reports: parts.publisher.reports(),
            publisher: parts.publisher,
            tls: parts.tls,
            dialer: parts.dialer,
            events,
            inbox,
            status,
            decided,
            file,
            clients: BTreeMap::new(),
            tasks,
            saves: JoinSet::new(),
            replan_at: now,
            save_at: now,
            status_at: now,
        };
        let mut task = JoinSet::new();
        task.spawn(owner.run(drain.stop()));
        Ok(Self { status: reader, decided: decisions, drain, task })
    }

    /// The state of federation, refreshed every second and with each change.
    pub fn status(&self) -> watch::Receiver<Arc<Status>> {
        self.status.clone()
    }

    /// What was decided last, with each change of it; `None` before the first plan.
    pub fn decided(&self) -> watch::Receiver<Option<Arc<Decided>>> {
        self.decided.clone()
    }

    /// Saves the state and ends the sessions. Proxies keep what they have.
    pub async fn shutdown(mut self) {
        self.drain.run(SHUTDOWN_MAX).await;
        self.task.shutdown().await;
    }
}

/// The one owner of the index.
struct Owner {
    index: Index,
    configuration: watch::Receiver<Option<Arc<Configuration>>>,
    own_bundle: watch::Receiver<Arc<Bundle>>,
    reports: broadcast::Receiver<NodeReport>,
    publisher: PublisherHandle,
    tls: MeshTls,
    dialer: Arc<dyn PeerDialer>,
    events: mpsc::Sender<Event>,
    inbox: mpsc::Receiver<Event>,
    status: watch::Sender<Arc<Status>>,
    decided: watch::Sender<Option<Arc<Decided>>>,
    file: StateFile,
    clients: BTreeMap<ClusterId, AbortHandle>,
    /// The server and the clients.
    tasks: JoinSet<()>,
    /// The write of the state file, of which there is one at a time.
    saves: JoinSet<()>,
    replan_at: Instant,
    save_at: Instant,
    status_at: Instant,
}

impl Owner {
    async fn run(mut self, mut stop: Stop) {
        let guard = stop.guard();
        self.take_configuration();
        self.take_own_bundle();
        let mut batch = Vec::with_capacity(EVENTS_BATCH);
        loop {
            self.turn();
            let deadline = self.deadline();
            // Stopping and configuration before the flood of events; every arm is
            // cancel-safe.
            tokio::select! {
                biased;
                () = stop.draining() => break,
                () = changed(&mut self.configuration) => self.take_configuration(),
                () = changed(&mut self.own_bundle) => self.take_own_bundle(),
                report = report(&mut self.reports) => {
                    self.index.handle_report(clock::now(), report);
                }
                _ = self.inbox.recv_many(&mut batch, EVENTS_BATCH) => {
                    let (now, wall) = (clock::now(), clock::wall());
                    for event in batch.drain(..) {
                        self.index.handle_event(now, wall, event);
                    }
                }
                Some(_) = self.tasks.join_next() => {}
                Some(_) = self.saves.join_next() => {}
                () = tokio::time::sleep_until(deadline.into()) => {}
            }
        }
        while self.saves.join_next().await.is_some() {}
        self.save_now();
        drop(guard);
    }

    /// What follows from the inputs so far.
    fn turn(&mut self) {
        let now = clock::now();
        self.index.handle_timeout(now);
        if self.index.is_changed() && now >= self.replan_at {
            self.replan_at = now + REPLAN_INTERVAL;
            if let Some((generation, resources)) = self.index.replan(now) {
                tracing::debug!(%generation, resources = resources.len(), "publishing");
                if let Err(error) = self.publisher.publish(generation, resources) {
                    tracing::error!(%error, "the plan was not published");
                }
            }
            self.status_at = now;
        }
        self.index.flush(now);
        if now >= self.status_at {
            self.status_at = now + STATUS_INTERVAL;
            self.status.send_replace(Arc::new(self.index.status(now)));
            self.tell_decided();
        }
        if now >= self.save_at && self.saves.is_empty() && self.index.take_unsaved() {
            self.save_at = now + SAVE_INTERVAL;
            let (file, state) = (self.file.clone(), self.index.to_saved(now, clock::wall()));
            // A full disk must not stop replication; the next change tries again.
            self.saves.spawn_blocking(move || save(&file, &state));
        }
    }

    /// Tells what was decided, if it is not what was told before.
    fn tell_decided(&self) {
        let Some(next) = self.index.decided() else { return };
        self.decided.send_if_modified(|told| {
            // Both are kept as they are while they do not change.
            let same = told.as_ref().is_some_and(|told| {
                Arc::ptr_eq(&told.plan, &next.plan)
                    && Arc::ptr_eq(&told.configuration, &next.configuration)
                    && told.peers == next.peers
                    && told.refused_links == next.refused_links
            });
            if !same {
                *told = Some(Arc::new(next));
            }
            !same
        });
    }

    fn deadline(&self) -> Instant {
        let now = clock::now();
        let replan = self.index.is_changed().then_some(self.replan_at);
        let times = [Some(self.status_at), replan, self.index.next_timeout()];
        let next = times.into_iter().flatten().min().unwrap_or(now + STATUS_INTERVAL);
        // A deadline in the past would spin; so close to now nobody notices.
        next.max(now + TURN_INTERVAL)
    }

    fn take_configuration(&mut self) {
        let configuration = self.configuration.borrow_and_update().clone();
        let Some(configuration) = configuration else { return };
        self.index.set_configuration(clock::now(), clock::wall(), configuration);
        self.update_clients();
    }

    fn take_own_bundle(&mut self) {
        let bundle = Arc::clone(&self.own_bundle.borrow_and_update());
        self.index.set_own_bundle(clock::wall(), &bundle);
    }

    /// One client for each link; a link that is gone takes its client along.
    fn update_clients(&mut self) {
        let wanted = self.index.to_dial();
        self.clients.retain(|cluster, client| {
            let kept = wanted.contains_key(cluster) && !client.is_finished();
            if !kept {
                client.abort();
            }
            kept
        });
        for (cluster, controller) in wanted {
            if self.clients.contains_key(&cluster) {
                continue;
            }
            let client = PeerClient {
                cluster: cluster.clone(),
                controller,
                tls: self.tls.clone(),
                dialer: Arc::clone(&self.dialer),
                events: self.events.clone(),
            };
            self.clients.insert(cluster, self.tasks.spawn(client.run()));
        }
    }

    fn save_now(&mut self) {
        self.index.set_unsaved();
        let state = self.index.to_saved(clock::now(), clock::wall());
        save(&self.file, &state);
    }
}

fn save(file: &StateFile, state: &SavedState) {
    if let Err(error) = file.save(state) {
        tracing::error!(%error, "the federation state could not be written");
    }
}

fn own_cluster(options: ControllerOptions, listen: SocketAddr) -> (OwnCluster, VipRange) {
    let federation_listen = options.advertised.unwrap_or(listen);
    let own = OwnCluster {
        cluster: options.cluster,
        trust_domain: options.trust_domain,
        locality: options.locality,
        federation_listen,
        version: options.version,
    };
    (own, options.vip_range)
}

/// Resolves when the value has changed; never, when its sender is gone.
async fn changed<T>(receiver: &mut watch::Receiver<T>) {
    if receiver.changed().await.is_err() {
        std::future::pending().await
    }
}

/// The next report; never, when the publisher is gone.
async fn report(reports: &mut broadcast::Receiver<NodeReport>) -> NodeReport {
    loop {
        match reports.recv().await {
            Ok(report) => return report,
            // Each report is whole, so the next one of a node repairs what was lost.
            Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// Events taken at once.
const EVENTS_BATCH: usize = 64;
/// Changes that come within this time make one plan.
const REPLAN_INTERVAL: Duration = Duration::from_millis(50);
/// Between two refreshes of the status without a change.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// Between two writes of the state file.
const SAVE_INTERVAL: Duration = Duration::from_secs(10);
/// The shortest wait.
const TURN_INTERVAL: Duration = Duration::from_millis(1);
/// How long the last write may take.
const SHUTDOWN_MAX: Duration = Duration::from_secs(5);
