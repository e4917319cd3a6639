//! What one worker thread has: snapshot reader, balancers, connections, recorder.
//!
//! Built on the worker's own thread and shared there by `Rc`; nothing in it is touched by
//! another thread.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use isthmus_model::{Assignment, ServiceKey, Snapshot};
use isthmus_runtime::{LocalTasks, Pin, PinnedReader, Stop, clock};
use isthmus_telemetry::{AccessRecord, Recorder};

use crate::balancer::{Balancer, Balancers, Picked};
use crate::connect::{Connector, LocalFuture};
use crate::mirror::Mirrors;
use crate::outlier::Outcome;
use crate::rng::Rng;
use crate::settings::ProxySettings;
use crate::watch::Watch;

/// Fetches services that a snapshot does not have yet.
pub trait OnDemand {
    /// Resolves when the service has come, is known to be absent, or a limit has passed.
    fn want(&self, service: &ServiceKey) -> LocalFuture<()>;

    /// Notes that a service is used, so that it is kept.
    fn touch(&self, service: &ServiceKey);
}

/// What a worker is made from.
pub struct WorkerParts {
    /// The limits.
    pub settings: ProxySettings,
    /// Metrics, access records and spans.
    pub recorder: Recorder,
    /// Where requests are routed from.
    pub reader: PinnedReader<Snapshot>,
    /// How endpoints are reached.
    pub connector: Box<dyn Connector>,
    /// How unknown services are fetched; `None` where the snapshot has all.
    pub on_demand: Option<Box<dyn OnDemand>>,
    /// When to end.
    pub stop: Stop,
    /// The owner of this worker's tasks.
    pub tasks: LocalTasks,
    /// Seed of the worker's random choices.
    pub seed: u64,
}

impl fmt::Debug for WorkerParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerParts").finish_non_exhaustive()
    }
}

/// The state of one worker.
pub struct Worker {
    pub(crate) settings: ProxySettings,
    pub(crate) recorder: Recorder,
    pub(crate) connector: Box<dyn Connector>,
    pub(crate) tasks: LocalTasks,
    pub(crate) stop: Stop,
    pub(crate) mirrors: Mirrors,
    on_demand: Option<Box<dyn OnDemand>>,
    reader: RefCell<PinnedReader<Snapshot>>,
    balancers: RefCell<Balancers>,
    rng: RefCell<Rng>,
    watches: RefCell<Vec<Weak<Watch>>>,
    scratch: Rc<RefCell<Box<[u8]>>>,
    ticks: Cell<u32>,
    connections: Cell<usize>,
}

impl Worker {
    /// Makes the worker and starts its housekeeping.
    pub fn start(parts: WorkerParts) -> Rc<Self> {
        let worker = Rc::new(Self {
            settings: parts.settings,
            recorder: parts.recorder,
            connector: parts.connector,
            tasks: parts.tasks,
            stop: parts.stop,
            mirrors: Mirrors::default(),
            on_demand: parts.on_demand,
            reader: RefCell::new(parts.reader),
            balancers: RefCell::default(),
            rng: RefCell::new(Rng::new(parts.seed)),
            watches: RefCell::default(),
            scratch: Rc::new(RefCell::new(vec![0; SCRATCH_BYTES].into_boxed_slice())),
            ticks: Cell::new(0),
            connections: Cell::new(0),
        });
        let recorder = worker.recorder.clone();
        worker.tasks.spawn(recorder.flush_periodically());
        worker.tasks.spawn(housekeeping(Rc::downgrade(&worker)));
        worker
    }

    /// Pins the current snapshot.
    pub fn pin(&self) -> Pin<Snapshot> {
        self.reader.borrow_mut().pin()
    }

    /// The owner of this worker's tasks.
    pub fn tasks(&self) -> &LocalTasks {
        &self.tasks
    }

    /// When to end.
    pub fn stop(&self) -> &Stop {
        &self.stop
    }

    /// The limits.
    pub fn settings(&self) -> &ProxySettings {
        &self.settings
    }

    /// A random number, uniform over all values; not for secrets.
    pub fn random(&self) -> u32 {
        self.rng.borrow_mut().next_u32()
    }

    /// Waits for a service that the snapshot does not have, where services are fetched.
    pub async fn want(&self, service: &ServiceKey) {
        if let Some(on_demand) = &self.on_demand {
            on_demand.want(service).await;
        }
    }

    pub(crate) fn touch(&self, service: &ServiceKey) {
        if let Some(on_demand) = &self.on_demand {
            on_demand.touch(service);
        }
    }

    /// Records something that is no request of [`crate::server`].
    pub fn record(&self, record: &AccessRecord<'_>) {
        self.recorder.record(record);
    }

    /// The recorder of this worker.
    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    pub(crate) fn balancer(&self, assignment: &Arc<Assignment>) -> Rc<Balancer> {
        self.balancers.borrow_mut().get(assignment)
    }

    pub(crate) fn pick(
        &self,
        balancer: &Rc<Balancer>,
        tried: &crate::balancer::Tried,
    ) -> Option<Picked> {
        let outlier = &self.settings.outlier;
        balancer.pick(clock::now(), &mut self.rng.borrow_mut(), tried, outlier)
    }

    /// Whether an endpoint is left that the request has not tried.
    pub(crate) fn has_more(&self, balancer: &Rc<Balancer>, tried: &crate::balancer::Tried) -> bool {
        self.pick(balancer, tried).is_some()
    }

    pub(crate) fn note_outcome(&self, picked: &Picked, outcome: Outcome) {
        if picked.state().record(clock::now(), outcome, &self.settings.outlier) {
            let endpoint = picked.endpoint();
            let service = &picked.assignment().service;
            tracing::debug!(%service, endpoint = %endpoint.id, ?outcome, "endpoint ejected");
        }
    }

    /// A place for a connection that is not HTTP, or `None` above the limit of connections.
    pub fn admit(self: &Rc<Self>) -> Option<Place> {
        self.watch().map(|watch| Place { _watch: watch })
    }

    /// A watch for a new connection, or `None` above the limit of connections.
    pub(crate) fn watch(self: &Rc<Self>) -> Option<Rc<Watch>> {
        if self.connections.get() >= self.settings.connections_max {
            return None;
        }
        self.connections.set(self.connections.get() + 1);
        let watch = Rc::new(Watch::new(Rc::downgrade(self), self.ticks.get()));
        self.watches.borrow_mut().push(Rc::downgrade(&watch));
        Some(watch)
    }

    pub(crate) fn connection_ended(&self) {
        self.connections.set(self.connections.get().saturating_sub(1));
    }

    pub(crate) fn ticks(&self) -> u32 {
        self.ticks.get()
    }

    pub(crate) fn scratch(&self) -> Rc<RefCell<Box<[u8]>>> {
        Rc::clone(&self.scratch)
    }

    /// One second has passed.
    fn tick(&self) {
        let now = self.ticks.get().wrapping_add(1);
        self.ticks.set(now);
        self.mirrors.report();
        self.watches.borrow_mut().retain(|watch| match watch.upgrade() {
            Some(watch) => {
                watch.check(now, &self.settings);
                true
            }
            None => false,
        });
        let mut balancers = self.balancers.borrow_mut();
        balancers.close_idle(clock::now(), self.settings.upstream_idle_timeout);
        if now.is_multiple_of(SWEEP_TICKS) {
            balancers.sweep(&self.pin());
        }
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("connections", &self.connections)
            .field("mirrors_dropped", &self.mirrors.dropped())
            .finish_non_exhaustive()
    }
}

/// A place among the connections of a worker, free again when it is dropped.
#[derive(Debug)]
pub struct Place {
    _watch: Rc<Watch>,
}

/// One timer for all connections of the worker, instead of one for each.
async fn housekeeping(worker: Weak<Worker>) {
    let mut interval = tokio::time::interval(TICK);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        interval.tick().await;
        let Some(worker) = worker.upgrade() else { return };
        worker.tick();
    }
}

/// The resolution of connection timeouts.
pub(crate) const TICK: Duration = Duration::from_secs(1);
/// Ticks between sweeps of unused balancers.
const SWEEP_TICKS: u32 = 60;
/// Bytes read from a connection at once; one buffer for all connections of a worker.
const SCRATCH_BYTES: usize = 64 * 1024;
