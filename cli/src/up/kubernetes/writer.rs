//! What was decided, and the world, to writes.
//!
//! Each turn looks at one moment: plans are pure, and carrying them out decides nothing.
//! What fails is tried again with a pause; what was done is seen by the watch, and a plan
//! that finds nothing to do writes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use isthmus_certs::Bundle;
use isthmus_federation::Decided;
use isthmus_kubernetes::apply::{Plan, PlanError, plan, plan_status};
use isthmus_kubernetes::link::{self, Invitation};
use isthmus_kubernetes::mcs::{self, McsInputs};
use isthmus_kubernetes::provision::{self, ProvisionInputs, ProvisionSettings};
use isthmus_kubernetes::status::{self, StatusInputs, Statuses};
use isthmus_kubernetes::{
    Client, Executor, Failure, Leadership, ObjectId, Report, StatusPlanner, events,
};
use isthmus_model::name::SYSTEM_NAMESPACE;
use isthmus_runtime::{Stop, clock};
use serde_json::Value;
use tokio::sync::watch;

use crate::settings::Settings;
use crate::up::kubernetes::{World, host_name};

/// What a writer follows.
pub(crate) struct WriterInputs {
    /// What the controller decided.
    pub(crate) decided: watch::Receiver<Option<Arc<Decided>>>,
    /// What the server has.
    pub(crate) world: watch::Receiver<Option<Arc<World>>>,
    /// The bundle of the own authority.
    pub(crate) bundle: watch::Receiver<Arc<Bundle>>,
}

/// Writes what follows, while this process leads.
pub(crate) struct Writer {
    settings: Arc<Settings>,
    executor: Executor,
    leadership: Leadership,
    recorder: events::Recorder,
    inputs: WriterInputs,
    statuses: Statuses,
    status_planner: StatusPlanner,
    /// Failures that were logged, so that each is logged once.
    known: BTreeMap<String, String>,
}

impl Writer {
    /// A writer; nothing is written before [`Writer::run`].
    pub(crate) fn new(
        settings: Arc<Settings>,
        client: Client,
        leadership: Leadership,
        inputs: WriterInputs,
    ) -> Self {
        Self {
            settings,
            executor: Executor::new(client.clone()),
            leadership,
            recorder: events::Recorder::new(client, &host_name()),
            inputs,
            statuses: Statuses::default(),
            status_planner: StatusPlanner::new(status::OWN_CONDITIONS),
            known: BTreeMap::new(),
        }
    }

    /// Writes until the process drains.
    pub(crate) async fn run(mut self, mut stop: Stop) {
        let mut pause = RETRY_MIN;
        let mut retry = None;
        loop {
            tokio::select! {
                () = stop.draining() => return,
                is_open = self.changed() => if !is_open { return },
                () = clock::sleep_until(retry) => {}
            }
            // What comes within a moment makes one turn, and so does what comes while the
            // Lease cannot be renewed.
            let may_write = async {
                tokio::time::sleep(TURN_INTERVAL).await;
                self.leadership.elected().await;
            };
            tokio::select! {
                () = stop.draining() => return,
                () = may_write => {}
            }
            let outcome = tokio::select! {
                () = stop.draining() => return,
                outcome = self.turn() => outcome,
            };
            retry = None;
            if let Some(report) = outcome.filter(has_failed) {
                retry = Some(clock::now() + pause);
                // What was withheld is no failure, and waits no longer for having been one.
                if !report.failures.is_empty() {
                    pause = (pause * 2).min(RETRY_MAX);
                }
            } else {
                pause = RETRY_MIN;
            }
        }
    }

    /// Waits for a change; says whether there can be another.
    async fn changed(&mut self) -> bool {
        let WriterInputs { decided, world, bundle } = &mut self.inputs;
        tokio::select! {
            outcome = decided.changed() => outcome.is_ok(),
            outcome = world.changed() => outcome.is_ok(),
            outcome = bundle.changed() => outcome.is_ok(),
        }
    }

    async fn turn(&mut self) -> Option<Report> {
        let decided = self.inputs.decided.borrow_and_update().clone()?;
        let world = self.inputs.world.borrow_and_update().clone()?;
        let bundle = self.inputs.bundle.borrow_and_update().clone();
        if !self.leadership.is_leader() {
            return None;
        }
        let plan = match self.plan(&decided, &world, &bundle) {
            Ok(plan) => plan,
            Err(error) => {
                tracing::error!(%error, "nothing is written: an object cannot be planned with");
                return None;
            }
        };
        if plan.actions.is_empty() {
            return None;
        }
        let drafts = events::of_plan(&plan, world.told(&plan).iter().map(Arc::as_ref));
        let leadership = self.leadership.clone();
        let report = self.executor.execute(&plan, || leadership.is_leader()).await;
        tracing::debug!(
            applied = report.applied,
            deleted = report.deleted,
            withheld = report.withheld.len(),
            failed = report.failures.len(),
            "written"
        );
        self.note(&report.failures);
        // What was not written is planned again, and is worth an event only then.
        let failed = report.failures.iter().map(|failure| &failure.id);
        let unwritten: BTreeSet<&ObjectId> = failed.chain(&report.withheld).collect();
        let drafts = drafts.into_iter().filter(|draft| !unwritten.contains(&draft.id)).collect();
        self.recorder.record(drafts).await;
        Some(report)
    }

    /// Logs failures that are not known yet.
    fn note(&mut self, failures: &[Failure]) {
        let mut current = BTreeMap::new();
        for failure in failures {
            let object = failure.id.to_string();
            if self.known.get(&object) != Some(&failure.message) {
                tracing::warn!(%object, error = failure.message, "not written; trying again");
            }
            current.insert(object, failure.message.clone());
        }
        self.known = current;
    }

    /// Everything that is to be written. Pure but for the clock of transitions: what is kept
    /// of the turn before changes only what it costs.
    fn plan(
        &mut self,
        decided: &Decided,
        world: &World,
        bundle: &Bundle,
    ) -> Result<Plan, PlanError> {
        let objects = &decided.configuration.objects;
        let documents: Vec<&Value> = world.documents.iter().map(Arc::as_ref).collect();
        let managed: Vec<&Value> = world.managed.iter().map(Arc::as_ref).collect();
        let provisioned = provision::desired(&ProvisionInputs {
            objects,
            uids: &provision::uids(documents.iter().copied()),
            settings: &self.provision_settings(world, bundle),
            observed: &managed,
            pods: &world.pods,
            nodes: &world.nodes,
        });
        let mcs = mcs::desired(&McsInputs {
            decided,
            pods: &world.pods,
            nodes: &world.nodes,
            observed: &managed,
            documents: &documents,
        });
        let mut desired = provisioned.objects;
        desired.extend(mcs.objects);
        desired.extend(self.invitation(world, bundle));
        let mut whole = plan(&desired, managed.iter().copied())?;

        let statuses = self.statuses.turn(&StatusInputs {
            objects,
            conditions: &decided.plan.conditions,
            listeners: &decided.plan.listeners,
            gateways: &decided.plan.gateways,
            places: &provisioned.places,
            observed: &world.routing,
            rejected: &world.rejected,
            bundle_version: world.bundle_version.as_deref(),
        });
        let observed = documents.iter().chain(&managed).copied();
        let now = isthmus_kubernetes::rfc3339(clock::wall());
        // Each with its own conditions: what is ours on one kind is another's elsewhere.
        for written in [
            self.status_planner.plan(&statuses, &now)?,
            plan_status(&mcs.statuses, observed, mcs::OWN_CONDITIONS, &now)?,
        ] {
            whole.unchanged += written.unchanged;
            whole.actions.extend(written.actions);
        }
        Ok(whole)
    }

    fn provision_settings(&self, world: &World, bundle: &Bundle) -> ProvisionSettings {
        let settings = &self.settings;
        let own = settings.kubernetes.clone().unwrap_or_default();
        let eastwest = world.document("Service", SYSTEM_NAMESPACE, EASTWEST_SERVICE);
        let eastwest = eastwest.and_then(|service| service.pointer("/spec/clusterIP")?.as_str());
        let eastwest: Option<IpAddr> = eastwest.and_then(|ip| ip.parse().ok());
        ProvisionSettings {
            image: own.gateway_image,
            image_pull_policy: own.gateway_image_pull_policy,
            // Gateways bind every address of the families that this process binds.
            bind: own.token_authority.ip(),
            cluster: settings.cluster.clone(),
            clusterset: settings.clusterset.clone(),
            trust_domain: settings.trust_domain.clone(),
            region: settings.region.clone(),
            zone: settings.zone.clone(),
            authority: own.authority,
            discovery: own.discovery,
            eastwest: eastwest.map(|ip| SocketAddr::new(ip, EASTWEST_PORT).to_string()),
            roots_pem: bundle.to_pem(),
            otlp: settings.telemetry.otlp.clone(),
            log_filter: settings.log.filter.clone(),
        }
    }

    /// What other clusters need for a link to this one.
    fn invitation(&self, world: &World, bundle: &Bundle) -> Option<Value> {
        let service = world.document("Service", SYSTEM_NAMESPACE, LINK_SERVICE)?;
        let invitation = Invitation {
            cluster: self.settings.cluster.clone(),
            clusterset: self.settings.clusterset.clone(),
            trust_domain: self.settings.trust_domain.clone(),
            addresses: link::addresses(service),
            bundle: String::from_utf8_lossy(&bundle.to_jwks()).into_owned(),
        };
        Some(invitation.to_config_map())
    }
}

/// Whether another try may help.
fn has_failed(report: &Report) -> bool {
    !report.withheld.is_empty() || !report.failures.is_empty()
}

const EASTWEST_SERVICE: &str = "isthmus-eastwest";
const EASTWEST_PORT: u16 = 15008;
const LINK_SERVICE: &str = "isthmus-eastwest-link";
/// How long changes are gathered before a turn.
const TURN_INTERVAL: Duration = Duration::from_millis(20);
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);
