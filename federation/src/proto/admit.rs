//! Which entries of a peer are let in.
//!
//! A peer may be hostile. It may speak only for itself: identities and bundle of its own
//! trust domain, services that the import rules grant, and no more of them than the
//! quotas allow. One bad entry is refused alone, and counted by its reason.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use isthmus_model::{ClusterId, TrustDomain};

use super::entry::{
    BundleDocument, ClusterProperties, EndpointSummary, Entry, EntryKey, ExportedService,
    GatewayInfo,
};
use super::grant::Grants;

/// Who the peer is, and what it may bring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerRules {
    /// The cluster that the channel authenticates.
    pub cluster: ClusterId,
    /// Its trust domain.
    pub trust_domain: TrustDomain,
    /// What it may bring.
    pub import: Grants,
}

/// Why an entry of a peer is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Refused {
    /// An identity or bundle is of another trust domain.
    #[error("it names an identity of another trust domain")]
    ForeignIdentity,
    /// A value is out of its range.
    #[error("a value is out of range")]
    Invalid,
    /// No import rule covers the service.
    #[error("no import rule grants it")]
    NotGranted,
    /// The peer has brought too much.
    #[error("the quota of the peer is used up")]
    Quota,
    /// The kind is not known to this release.
    #[error("its kind is not known")]
    UnknownKind,
}

impl Refused {
    /// The metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::ForeignIdentity => "foreign_identity",
            Self::Invalid => "invalid",
            Self::NotGranted => "not_granted",
            Self::Quota => "quota",
            Self::UnknownKind => "unknown_kind",
        }
    }
}

/// How many entries were refused, by reason, since the peer was configured.
pub type RefusedCounts = BTreeMap<Refused, u64>;

impl PeerRules {
    /// The entry as far as it may be used; quotas are looked at when it is stored.
    ///
    /// Ports of a service that are not granted are left out.
    ///
    /// # Errors
    ///
    /// [`Refused`]: the first rule that it breaks.
    pub fn admit(&self, entry: &Arc<Entry>) -> Result<Arc<Entry>, Refused> {
        match entry.as_ref() {
            Entry::Bundle(bundle) => admit_bundle(bundle)?,
            Entry::Endpoints(summary) => self.admit_endpoints(summary)?,
            Entry::Gateway(gateway) => self.admit_gateway(gateway)?,
            Entry::Properties(properties) => admit_properties(properties)?,
            Entry::Service(service) => return self.admit_service(entry, service),
        }
        Ok(Arc::clone(entry))
    }

    fn admit_service(
        &self,
        entry: &Arc<Entry>,
        service: &ExportedService,
    ) -> Result<Arc<Entry>, Refused> {
        if !self.import.allow_service(&service.name) {
            return Err(Refused::NotGranted);
        }
        let times = 0..=CREATED_MAX;
        if !times.contains(&service.created) || service.ports.len() > PORTS_MAX {
            return Err(Refused::Invalid);
        }
        let mut names = BTreeSet::new();
        let mut numbers = BTreeSet::new();
        for port in &service.ports {
            let long = port.app_protocol.as_ref().is_some_and(|text| text.len() > TEXT_MAX);
            let twice = !names.insert(&port.name) || !numbers.insert((port.transport, port.number));
            if port.number == 0 || long || twice {
                return Err(Refused::Invalid);
            }
        }
        let traffic = &service.traffic;
        let texts = [&traffic.internal_traffic_policy, &traffic.traffic_distribution];
        if texts.into_iter().flatten().any(|text| text.len() > TEXT_MAX) {
            return Err(Refused::Invalid);
        }
        let families = traffic.ip_families.len();
        if families > IP_FAMILIES_MAX || !service.metadata.is_bounded() {
            return Err(Refused::Invalid);
        }
        let mut granted = service.clone();
        granted.ports.retain(|port| self.import.allow_port(&service.name, port.number));
        match (granted.ports.len(), service.ports.len()) {
            (kept, all) if kept == all => Ok(Arc::clone(entry)),
            (0, _) => Err(Refused::NotGranted),
            _ => Ok(Arc::new(Entry::Service(granted))),
        }
    }

    fn admit_endpoints(&self, summary: &EndpointSummary) -> Result<(), Refused> {
        if !self.import.allow_port(&summary.service, summary.port) {
            return Err(Refused::NotGranted);
        }
        if summary.port == 0 || summary.endpoints.len() > ENDPOINTS_PER_PORT_MAX {
            return Err(Refused::Invalid);
        }
        let mut ids = BTreeSet::new();
        for endpoint in &summary.endpoints {
            if endpoint.identity.trust_domain() != &self.trust_domain {
                return Err(Refused::ForeignIdentity);
            }
            let locality = &endpoint.locality;
            let long = locality.region.len() > TEXT_MAX || locality.zone.len() > TEXT_MAX;
            if endpoint.weight == 0 || endpoint.app_port == 0 || long || !ids.insert(&endpoint.id) {
                return Err(Refused::Invalid);
            }
        }
        Ok(())
    }

    fn admit_gateway(&self, gateway: &GatewayInfo) -> Result<(), Refused> {
        if gateway.identity.trust_domain() != &self.trust_domain {
            return Err(Refused::ForeignIdentity);
        }
        if gateway.version.len() > TEXT_MAX { Err(Refused::Invalid) } else { Ok(()) }
    }
}

fn admit_bundle(bundle: &BundleDocument) -> Result<(), Refused> {
    // Its content is judged by the bundle store, for the peer's own trust domain only.
    if bundle.jwks.is_empty() || bundle.jwks.len() > BUNDLE_BYTES_MAX {
        return Err(Refused::Invalid);
    }
    Ok(())
}

fn admit_properties(properties: &ClusterProperties) -> Result<(), Refused> {
    let locality = &properties.locality;
    let texts = properties.properties.iter().flat_map(|(key, value)| [key.len(), value.len()]);
    let mut lengths = texts.chain([locality.region.len(), locality.zone.len()]);
    if properties.properties.len() > PROPERTIES_MAX || lengths.any(|length| length > TEXT_MAX) {
        return Err(Refused::Invalid);
    }
    Ok(())
}

/// How much one peer may bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quotas {
    /// Services.
    pub services_max: usize,
    /// Endpoints over all ports of all services.
    pub endpoints_max: usize,
}

impl Default for Quotas {
    fn default() -> Self {
        Self { services_max: 5_000, endpoints_max: 50_000 }
    }
}

/// Entries of a peer that were let in, counted so that they stay within the quotas.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Admitted {
    entries: BTreeMap<EntryKey, Arc<Entry>>,
    services: usize,
    summaries: usize,
    endpoints: usize,
}

impl Admitted {
    /// Stores an entry; returns whether anything changed.
    ///
    /// # Errors
    ///
    /// [`Refused::Quota`]; what was stored before stays.
    pub fn set(&mut self, entry: Arc<Entry>, quotas: &Quotas) -> Result<bool, Refused> {
        let key = entry.key();
        let old = self.entries.get(&key);
        if old == Some(&entry) {
            return Ok(false);
        }
        let (service, summary, endpoints) = weigh(&entry);
        let (old_service, old_summary, old_endpoints) = old.map_or((0, 0, 0), |old| weigh(old));
        let services = self.services + service - old_service;
        let summaries = self.summaries + summary - old_summary;
        let total = self.endpoints + endpoints - old_endpoints;
        // A port without endpoints takes memory too, so summaries count as endpoints do.
        if services > quotas.services_max
            || summaries > quotas.endpoints_max
            || total > quotas.endpoints_max
        {
            return Err(Refused::Quota);
        }
        (self.services, self.summaries, self.endpoints) = (services, summaries, total);
        self.entries.insert(key, entry);
        Ok(true)
    }

    /// Removes an entry; returns whether it was there.
    pub fn remove(&mut self, key: &EntryKey) -> bool {
        let Some(entry) = self.entries.remove(key) else { return false };
        let (service, summary, endpoints) = weigh(&entry);
        self.services -= service;
        self.summaries -= summary;
        self.endpoints -= endpoints;
        true
    }

    /// The entries.
    pub fn entries(&self) -> &BTreeMap<EntryKey, Arc<Entry>> {
        &self.entries
    }

    /// How many services there are.
    pub fn service_count(&self) -> usize {
        self.services
    }

    /// How many endpoints there are.
    pub fn endpoint_count(&self) -> usize {
        self.endpoints
    }
}

fn weigh(entry: &Entry) -> (usize, usize, usize) {
    match entry {
        Entry::Endpoints(summary) => (0, 1, summary.endpoints.len()),
        Entry::Service(_) => (1, 0, 0),
        Entry::Bundle(_) | Entry::Gateway(_) | Entry::Properties(_) => (0, 0, 0),
    }
}

/// Ports of one service.
pub const PORTS_MAX: usize = 100;
/// Endpoints behind one port.
pub const ENDPOINTS_PER_PORT_MAX: usize = 10_000;
/// Properties of one cluster.
pub const PROPERTIES_MAX: usize = 64;
/// Bytes of a bundle document; the bundle store has the same limit.
pub const BUNDLE_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of any other text of a peer.
pub const TEXT_MAX: usize = 256;
/// The last second of the year 9999.
const CREATED_MAX: i64 = 253_402_300_799;
/// Spec: Kubernetes: a Service has at most two families.
const IP_FAMILIES_MAX: usize = 2;
