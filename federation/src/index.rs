//! Everything that the controller knows, with one owner.
//!
//! The index takes inputs (configuration, events of sessions, reports of gateways, time)
//! and marks itself as changed; [`Index::replan`] then decides what follows. It never
//! waits: what a session cannot take now, it gets later.

mod bundle;
mod session;
mod settle;
mod view;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use isthmus_certs::BundleStore;
use isthmus_config::Translator;
use isthmus_discovery::{NodeReport, NodeRole};
use isthmus_model::{ClusterId, Generation, LinkState, Resource, ResourceKey, SpiffeId};
use tokio::sync::mpsc;

use crate::mcs::{VipPool, VipRange};
use crate::peer::event::SessionId;
use crate::plan::inputs::{CONTROLLER_ACCOUNT, system_identity};
use crate::plan::{
    Configuration, Configured, EndpointSecret, Inputs, LinkTable, LinkTableLimits, OwnCluster,
    PeerView, Plan, configured, plan,
};
use crate::proto::{
    BundleDocument, Exporter, ExporterSettings, Frame, Importer, ImporterSettings, PeerRules,
    Request, ServiceName,
};
use crate::state::{FILE_VERSION, SavedSide, SavedState};

/// What an index begins with.
#[derive(Debug)]
pub(crate) struct Beginning {
    pub(crate) own: OwnCluster,
    pub(crate) vip_range: VipRange,
    pub(crate) bundles: BundleStore,
    /// What was saved; its epoch and secret are those to use now.
    pub(crate) saved: SavedState,
    /// How long ago it was saved.
    pub(crate) saved_age: Duration,
    /// How long the first plan waits for linked clusters of which nothing is known.
    pub(crate) settle: Duration,
}

/// Everything that the controller knows.
#[derive(Debug)]
pub(crate) struct Index {
    own: OwnCluster,
    configuration: Option<Arc<Configuration>>,
    configured: Configured,
    /// What one translation of the configuration shares with the next.
    translator: Translator,
    peers: BTreeMap<ClusterId, Peer>,
    sessions: BTreeMap<SessionId, ClusterId>,
    session_count: u64,
    links: LinkTable,
    vips: VipPool,
    /// The ports of imports for pods without a sidecar, as of the last plan.
    unmeshed: BTreeMap<(ServiceName, u16), u16>,
    secret_bytes: [u8; 32],
    secret: EndpointSecret,
    epoch: u64,
    bundles: BundleStore,
    own_bundle: Option<BundleDocument>,
    /// Peers of a former run that are not linked yet.
    restorable: BTreeMap<ClusterId, SavedSide>,
    restored_lease: Option<Duration>,
    plan: Option<Arc<Plan>>,
    generation: Generation,
    changed: bool,
    /// Whether the exporters have what follows from the configuration.
    is_offered: bool,
    unsaved: bool,
    settle: Duration,
    /// Until when the first plan waits at most.
    settle_until: Option<Instant>,
}

/// Both directions of one link.
#[derive(Debug)]
struct Peer {
    importer: Importer,
    exporter: Exporter,
    controller: SpiffeId,
    /// The session in which this cluster reads.
    reading: Option<(SessionId, mpsc::Sender<Request>)>,
    /// The session in which the peer reads.
    writing: Option<(SessionId, mpsc::Sender<Frame>)>,
    /// The bundle documents that were tried last: of the session, and of the link.
    tried: [Option<Arc<str>>; 2],
    last_error: Option<String>,
}

/// What is to be published.
pub(crate) type Publication = (Generation, BTreeMap<ResourceKey, Arc<Resource>>);

impl Index {
    /// An index that knows nothing but what was saved.
    pub(crate) fn new(now: Instant, beginning: Beginning) -> Self {
        let Beginning { own, vip_range, bundles, saved, saved_age, settle } = beginning;
        let fresh = saved_age <= RESTORE_AGE_MAX;
        let links = if fresh { saved.links } else { BTreeMap::new() };
        Self {
            own,
            configuration: None,
            configured: Configured::default(),
            translator: Translator::default(),
            peers: BTreeMap::new(),
            sessions: BTreeMap::new(),
            session_count: 0,
            links: LinkTable::new(now, LinkTableLimits::default(), links),
            vips: VipPool::new(vip_range, saved.vips),
            unmeshed: BTreeMap::new(),
            secret_bytes: saved.secret,
            secret: EndpointSecret::new(&saved.secret),
            epoch: saved.epoch,
            bundles,
            own_bundle: None,
            restorable: saved.peers,
            restored_lease: fresh.then_some(RESTORED_LEASE),
            plan: None,
            generation: Generation(0),
            changed: false,
            is_offered: false,
            unsaved: true,
            settle,
            settle_until: None,
        }
    }

    /// The user's objects have changed.
    pub(crate) fn set_configuration(
        &mut self,
        now: Instant,
        wall: SystemTime,
        configuration: Arc<Configuration>,
    ) {
        self.configured = configured(&configuration, &self.own);
        if self.configuration.is_none() && !self.configured.links.is_empty() {
            self.settle_until = Some(now + self.settle);
        }
        self.configuration = Some(configuration);
        (self.changed, self.is_offered) = (true, false);
        self.update_peers(now);
        self.take_link_bundles(wall);
    }

    /// A gateway reports what its links look like.
    pub(crate) fn handle_report(&mut self, now: Instant, report: NodeReport) {
        if report.role != NodeRole::EastWest {
            return;
        }
        let state = |link: isthmus_discovery::LinkReport| {
            let state = LinkState { transport: link.transport, rtt_micros: link.rtt_micros };
            (link.cluster, state)
        };
        let links = if report.connected { report.links } else { Vec::new() };
        let known = &self.configured.links;
        let links = links.into_iter().map(state).filter(|(peer, _)| known.contains_key(peer));
        self.changed |= self.links.handle_report(now, report.node, links.collect());
    }

    /// Time has passed.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.changed |= self.links.handle_timeout(now);
        self.settle_until = self.settle_until.filter(|until| now < *until);
        let mut silent = Vec::new();
        for (cluster, peer) in &mut self.peers {
            peer.importer.handle_timeout(now);
            if peer.importer.poll_close(now).is_some() {
                silent.extend(peer.reading.as_ref().map(|(session, _)| *session));
                peer.last_error = Some("the peer is silent".to_owned());
            }
            if peer.exporter.is_silent(now) {
                silent.extend(peer.writing.as_ref().map(|(session, _)| *session));
            }
            if peer.importer.take_changed() {
                tracing::debug!(peer = %cluster, "the state of a peer changed");
                (self.changed, self.unsaved) = (true, true);
            }
        }
        for session in silent {
            self.close(session);
        }
    }

    /// Decides what follows, if anything has changed; what is to be published now.
    ///
    /// Nothing is published before there is configuration: an empty state would make every
    /// proxy drop its own.
    pub(crate) fn replan(&mut self, now: Instant) -> Option<Publication> {
        let configuration = Arc::clone(self.configuration.as_ref()?);
        if !self.is_changed() || !std::mem::take(&mut self.changed) {
            return None;
        }
        let mut translator = std::mem::take(&mut self.translator);
        let next = self.make_plan(now, &configuration, &mut translator);
        self.translator = translator;
        self.offer(&next);
        if self.is_settling() {
            // Linked clusters are told what this one exports, and nobody else anything.
            self.changed = true;
            return None;
        }
        if next.federated.vips != self.vips {
            self.vips = next.federated.vips.clone();
            self.unsaved = true;
        }
        self.unmeshed.clone_from(&next.federated.unmeshed);
        // An equal plan stays the same value, so nobody is woken for it.
        let former = self.plan.take();
        let plan = match &former {
            Some(former) if **former == next => Arc::clone(former),
            Some(_) | None => Arc::new(next),
        };
        self.plan = Some(Arc::clone(&plan));
        if former.is_some_and(|former| former.resources == plan.resources) {
            return None;
        }
        self.generation = Generation(self.generation.0 + 1);
        Some((self.generation, plan.resources.clone()))
    }

    /// Whether a plan is due.
    pub(crate) fn is_changed(&self) -> bool {
        let is_due = !self.is_offered || !self.is_settling();
        self.changed && self.configuration.is_some() && is_due
    }

    /// Whether something is worth saving since this was asked last.
    pub(crate) fn take_unsaved(&mut self) -> bool {
        std::mem::take(&mut self.unsaved)
    }

    /// Something must be saved again, since it could not be.
    pub(crate) fn set_unsaved(&mut self) {
        self.unsaved = true;
    }

    /// When [`Self::handle_timeout`] is due.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let peers = self.peers.values();
        let peers =
            peers.flat_map(|p| [p.importer.next_timeout(), p.exporter.next_timeout()]).flatten();
        peers.chain(self.links.next_timeout()).chain(self.settle_until).min()
    }

    /// The peers to dial, and who their controllers must be.
    pub(crate) fn to_dial(&self) -> BTreeMap<ClusterId, SpiffeId> {
        let pair =
            |(cluster, peer): (&ClusterId, &Peer)| (cluster.clone(), peer.controller.clone());
        self.peers.iter().map(pair).collect()
    }

    /// What to save.
    pub(crate) fn to_saved(&self, now: Instant, wall: SystemTime) -> SavedState {
        let side = |(cluster, peer): (&ClusterId, &Peer)| {
            let lease_valid = peer.importer.lease().is_valid(now);
            let state = peer.importer.to_saved();
            (cluster.clone(), SavedSide { state, lease_valid })
        };
        let peers = self.peers.iter().map(side);
        let since = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        SavedState {
            version: FILE_VERSION,
            epoch: self.epoch,
            secret: self.secret_bytes,
            saved_at: since.as_secs(),
            vips: self.vips.given().iter().map(|(name, ip)| (name.clone(), *ip)).collect(),
            links: self.links.states().clone(),
            peers: self.restorable.clone().into_iter().chain(peers).collect(),
        }
    }

    fn make_plan(
        &self,
        now: Instant,
        configuration: &Configuration,
        translator: &mut Translator,
    ) -> Plan {
        let mut peers = BTreeMap::new();
        for (cluster, peer) in &self.peers {
            let lease_valid = peer.importer.lease().is_valid(now);
            let (entries, link) = (peer.importer.entries(), self.link_state(cluster, peer));
            peers.insert(cluster.clone(), PeerView { entries, lease_valid, link });
        }
        let bundles = self.bundle_documents();
        plan(
            configuration,
            &Inputs {
                own: &self.own,
                exports: &self.configured.exports,
                namespaces: &self.configured.namespaces,
                properties: &self.configured.properties,
                links: &self.configured.links,
                peers: &peers,
                own_bundle: self.own_bundle.as_ref(),
                bundles: &bundles,
                secret: &self.secret,
                vips: &self.vips,
                clusterset_ips: &configuration.context.clusterset_ips,
                unmeshed: configuration.context.unmeshed.as_ref(),
                unmeshed_ports: &self.unmeshed,
            },
            translator,
        )
    }

    /// Peers come, change their rules, and go with their links.
    fn update_peers(&mut self, now: Instant) {
        let gone: Vec<ClusterId> = self
            .peers
            .iter()
            .filter(|(cluster, peer)| {
                let link = self.configured.links.get(*cluster);
                link.is_none_or(|link| link.trust_domain != peer.importer.rules().trust_domain)
            })
            .map(|(cluster, _)| cluster.clone())
            .collect();
        for cluster in gone {
            self.remove_peer(&cluster);
        }
        for (cluster, link) in &self.configured.links {
            let rules = PeerRules {
                cluster: cluster.clone(),
                trust_domain: link.trust_domain.clone(),
                import: link.import.clone(),
            };
            if let Some(peer) = self.peers.get_mut(cluster) {
                peer.importer.set_rules(now, rules);
                continue;
            }
            let settings = ImporterSettings::default();
            let controller = system_identity(&link.trust_domain, CONTROLLER_ACCOUNT);
            let importer = match self.restorable.remove(cluster) {
                Some(saved) => {
                    let lease = self.restored_lease.filter(|_| saved.lease_valid);
                    Importer::restore(now, rules, settings, saved.state, lease)
                }
                None => Importer::new(rules, settings),
            };
            let own = self.own.cluster.clone();
            let exporter = Exporter::new(own, self.epoch, ExporterSettings::default());
            let peer = Peer {
                importer,
                exporter,
                controller,
                reading: None,
                writing: None,
                tried: [None, None],
                last_error: None,
            };
            self.peers.insert(cluster.clone(), peer);
        }
        // A link that is gone now begins anew when it comes back.
        self.restorable.clear();
    }

    fn remove_peer(&mut self, cluster: &ClusterId) {
        let Some(peer) = self.peers.remove(cluster) else { return };
        // The senders go with the peer, which ends its sessions.
        self.sessions.retain(|_, of| of != cluster);
        self.bundles.remove(&peer.importer.rules().trust_domain);
        (self.changed, self.unsaved) = (true, true);
        tracing::info!(peer = %cluster, "a link was removed");
    }
}

/// A saved state that is older says nothing about who is up now.
const RESTORE_AGE_MAX: Duration = Duration::from_secs(5 * 60);
/// How long a peer's word holds after a restart without being heard.
const RESTORED_LEASE: Duration = Duration::from_secs(20);
