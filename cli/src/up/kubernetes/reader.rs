//! Watched objects to configuration.
//!
//! The owner of the index. Nothing is given on before every kind has been listed once;
//! after that each state gives a [`World`] for the writer, and a configuration for the
//! controller when the objects or what is known besides them have changed.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::UNIX_EPOCH;

use isthmus_config::context::{ClusterSetIps, Unmeshed};
use isthmus_config::{ConfigError, Context, Index, IngressContext};
use isthmus_federation::Configuration;
use isthmus_kubernetes::observed::{ManagedKind, Observed};
use isthmus_kubernetes::{Client, NodeState, Source, State, mcs, provision};
use isthmus_model::{Locality, SpiffeId};
use isthmus_runtime::{Stop, clock};
use serde_json::Value;
use tokio::sync::watch;

use crate::settings::{KubernetesSettings, Settings};
use crate::up::control::Errors;
use crate::up::kubernetes::World;

/// Owns the index of a cluster's objects.
pub(crate) struct Reader {
    settings: Arc<Settings>,
    eastwest: SpiffeId,
    index: Index,
    errors: Errors,
    configuration: watch::Sender<Option<Arc<Configuration>>>,
    world: watch::Sender<Option<Arc<World>>>,
}

/// What a reader gives.
pub(crate) struct Readings {
    /// For the controller.
    pub(crate) configuration: watch::Receiver<Option<Arc<Configuration>>>,
    /// For the writer.
    pub(crate) world: watch::Receiver<Option<Arc<World>>>,
}

impl Reader {
    /// A reader and what it will give.
    pub(crate) fn new(
        settings: &Arc<Settings>,
        eastwest: SpiffeId,
        errors: &Errors,
    ) -> (Self, Readings) {
        let (configuration, for_controller) = watch::channel(None);
        let (world, for_writer) = watch::channel(None);
        let reader = Self {
            settings: Arc::clone(settings),
            eastwest,
            index: Index::default(),
            errors: Arc::clone(errors),
            configuration,
            world,
        };
        (reader, Readings { configuration: for_controller, world: for_writer })
    }

    /// Watches until the process drains.
    pub(crate) async fn run(mut self, client: Client, own: KubernetesSettings, mut stop: Stop) {
        let mut source = Source::watch(&client, &own.selection());
        let mut observed = Observed::watch(&client, &ManagedKind::ALL);
        let (mut state, mut managed): (Option<State>, Option<Vec<Arc<Value>>>) = (None, None);
        let mut waiting = tokio::time::interval(WAITING_INTERVAL);
        loop {
            tokio::select! {
                () = stop.draining() => return,
                next = source.next() => match next {
                    Some(next) => state = Some(next),
                    None => return,
                },
                next = observed.next() => match next {
                    Some(next) => managed = Some(next),
                    None => return,
                },
                _ = waiting.tick() => {
                    if state.is_none() {
                        report_pending(&source);
                    }
                    continue;
                }
            }
            if let (Some(state), Some(managed)) = (&state, &managed) {
                self.take(state, managed);
            }
        }
    }

    fn take(&mut self, state: &State, managed: &[Arc<Value>]) {
        let now = clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        let outcome = self.index.apply(&state.documents, now);
        self.note(&outcome.errors);
        let objects = self.index.objects();
        let ours = || managed.iter().map(Arc::as_ref);
        let mut context = self.settings.context();
        context.locality = cluster_locality(&self.settings, &state.nodes);
        context.ingress = IngressContext {
            port_map: BTreeMap::new(),
            served_by: provision::served_by(objects, &self.settings.trust_domain),
        };
        context.clusterset_ips = ClusterSetIps::Given(mcs::clusterset_ips(ours()));
        context.unmeshed = Some(Unmeshed {
            server: self.eastwest.clone(),
            ports: UNMESHED_PORTS,
            given: mcs::given_ports(ours()),
        });
        if outcome.changed || self.is_news(&context) {
            tracing::debug!(objects = objects.len(), "objects read");
            let objects = Arc::clone(objects);
            self.configuration.send_replace(Some(Arc::new(Configuration { objects, context })));
        }
        let world = World::new(state, managed.to_vec(), outcome.errors);
        self.world.send_replace(Some(Arc::new(world)));
    }

    fn is_news(&self, context: &Context) -> bool {
        self.configuration.borrow().as_ref().is_none_or(|before| before.context != *context)
    }

    /// Logs errors that were not there before.
    fn note(&self, errors: &[ConfigError]) {
        let mut known = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        for error in errors.iter().filter(|error| !known.contains(error)) {
            tracing::warn!("{error}");
        }
        *known = errors.to_vec();
    }
}

fn report_pending(source: &Source) {
    for pending in source.pending().into_iter().filter(|pending| pending.error.is_some()) {
        tracing::warn!(
            kind = pending.kind,
            error = pending.error,
            "nothing is configured before this kind has been listed"
        );
    }
}

/// What the settings say; where they say nothing, the region of the first node that has
/// one.
fn cluster_locality(settings: &Settings, nodes: &[NodeState]) -> Locality {
    if !settings.region.is_empty() {
        return Locality::new(&settings.region, &settings.zone);
    }
    let region = nodes.iter().map(|node| node.region.as_str()).find(|region| !region.is_empty());
    Locality::new(region.unwrap_or_default(), &settings.zone)
}

/// How often it is said what the first state waits for.
const WAITING_INTERVAL: std::time::Duration = std::time::Duration::from_secs(10);
/// The ports on which the east-west gateway serves un-meshed pods.
const UNMESHED_PORTS: std::ops::RangeInclusive<u16> = 20_000..=29_999;
