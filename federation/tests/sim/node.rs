//! One simulated cluster: what it exports, and its side of each link.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use isthmus_config::{AccessRule, NamePattern};
use isthmus_federation::mcs::{Import, merge};
use isthmus_federation::proto::{
    EndpointSummary, Entry, EntryKey, ExportedMetadata, ExportedService, ExportedTraffic, Exporter,
    ExporterSettings, Grants, Importer, ImporterSettings, PeerRules, SavedPeer, ServiceName,
    SummaryEndpoint, start_epoch,
};
use isthmus_model::{
    AppProtocol, ClusterId, EndpointId, Health, Label, Locality, ServicePort, SpiffeId, Transport,
    TrustDomain,
};

use crate::random::Random;

pub(crate) const SERVICES: u64 = 12;
/// Every cluster may export everything; the hostile one is granted only this namespace.
pub(crate) const GRANTED_TO_HOSTILE: &str = "open";

pub(crate) struct Node {
    pub(crate) index: usize,
    /// The last epoch, unless it was lost.
    pub(crate) epoch: Option<u64>,
    /// How far the clock of this cluster is ahead.
    pub(crate) skew_seconds: u64,
    pub(crate) entries: BTreeMap<EntryKey, Arc<Entry>>,
    pub(crate) peers: BTreeMap<usize, PeerSide>,
    pub(crate) down_until: Option<u64>,
    pub(crate) saved: Option<Vec<(usize, SavedPeer)>>,
}

/// Both directions of a link, as one of its ends sees it.
#[derive(Debug)]
pub(crate) struct PeerSide {
    pub(crate) exporter: Exporter,
    pub(crate) importer: Importer,
    /// The session in which this side reads, and the one in which it writes.
    pub(crate) reading: Option<u64>,
    pub(crate) writing: Option<u64>,
}

pub(crate) fn cluster(index: usize) -> ClusterId {
    ClusterId::new(&format!("c{index}")).unwrap()
}

pub(crate) fn domain(index: usize) -> TrustDomain {
    TrustDomain::new(&format!("c{index}.test")).unwrap()
}

pub(crate) fn service_name(namespace: &str, n: u64) -> ServiceName {
    ServiceName::new(Label::new(namespace).unwrap(), Label::new(&format!("s{n}")).unwrap())
}

/// Small bounds, so that the limits are met.
pub(crate) fn exporter_settings() -> ExporterSettings {
    ExporterSettings { chunk_entries_max: 3, tombstones_max: 4, ..ExporterSettings::default() }
}

pub(crate) fn rules(peer: usize, hostile: bool) -> PeerRules {
    let import = if hostile {
        let namespaces = vec![NamePattern::Name(Label::new(GRANTED_TO_HOSTILE).unwrap())];
        let rule = AccessRule { namespaces, names: vec![NamePattern::Any], ports: vec![] };
        Grants::new(vec![rule])
    } else {
        Grants::everything()
    };
    PeerRules { cluster: cluster(peer), trust_domain: domain(peer), import }
}

impl Node {
    pub(crate) fn new(index: usize) -> Self {
        Self {
            index,
            epoch: None,
            skew_seconds: 1_000,
            entries: BTreeMap::new(),
            peers: BTreeMap::new(),
            down_until: None,
            saved: None,
        }
    }

    /// Starts with what was saved, if anything was.
    pub(crate) fn start(
        &mut self,
        now: Instant,
        seconds: u64,
        random: u64,
        others: &[(usize, bool)],
    ) {
        let mut saved: BTreeMap<usize, SavedPeer> =
            self.saved.take().unwrap_or_default().into_iter().collect();
        let epoch = start_epoch(self.epoch, self.skew_seconds + seconds, random);
        self.epoch = Some(epoch);
        self.peers.clear();
        for (peer, hostile) in others {
            let rules = rules(*peer, *hostile);
            let settings = ImporterSettings::default();
            let importer = match saved.remove(peer) {
                Some(saved) => Importer::restore(now, rules, settings, saved, None),
                None => Importer::new(rules, settings),
            };
            let mut exporter = Exporter::new(cluster(self.index), epoch, exporter_settings());
            exporter.set_entries(self.entries.clone());
            let side = PeerSide { exporter, importer, reading: None, writing: None };
            self.peers.insert(*peer, side);
        }
    }

    pub(crate) fn stop(&mut self, random: &mut Random, until: u64, keep_state: bool) {
        let saved = self.peers.iter().map(|(peer, side)| (*peer, side.importer.to_saved()));
        self.saved = keep_state.then(|| saved.collect());
        if !keep_state {
            // A writer that forgot its epoch goes by its clock, which may be set back.
            self.epoch = None;
            self.skew_seconds = random.below(2_000);
        }
        self.peers.clear();
        self.down_until = Some(until);
    }

    pub(crate) fn mutate(&mut self, random: &mut Random) {
        let namespace = if random.chance(20) { GRANTED_TO_HOSTILE } else { "shop" };
        let name = service_name(namespace, random.below(SERVICES));
        let service = EntryKey::Service(name.clone());
        if self.entries.contains_key(&service) && random.chance(40) {
            self.entries.retain(|key, _| key.service() != Some(&name));
        } else {
            let created = i64::try_from(random.below(5)).unwrap();
            let entries =
                [service_entry(random, &name, created), self.endpoints_entry(random, &name)];
            for entry in entries {
                self.entries.insert(entry.key(), Arc::new(entry));
            }
        }
        for side in self.peers.values_mut() {
            side.exporter.set_entries(self.entries.clone());
        }
    }

    fn endpoints_entry(&self, random: &mut Random, name: &ServiceName) -> Entry {
        let endpoint = |n: u64| SummaryEndpoint {
            id: EndpointId::new(&format!("e{n}")).unwrap(),
            locality: Locality::default(),
            weight: 1,
            health: Health::Ready,
            identity: SpiffeId::parse(&format!("spiffe://{}/ns/a/sa/b", domain(self.index)))
                .unwrap(),
            app_port: 8080,
            hostname: None,
        };
        let endpoints = (0..random.below(4)).map(endpoint).collect();
        Entry::Endpoints(EndpointSummary { service: name.clone(), port: 80, endpoints })
    }

    /// The merged imports as this cluster sees them; `without` leaves a cluster out.
    pub(crate) fn imports(&self, without: Option<usize>) -> BTreeMap<ServiceName, Import> {
        let mut exports: BTreeMap<ServiceName, BTreeMap<ClusterId, &ExportedService>> =
            BTreeMap::new();
        let peers = self.peers.iter().map(|(peer, side)| (*peer, side.importer.entries()));
        for (index, entries) in peers.chain([(self.index, &self.entries)]) {
            if without == Some(index) {
                continue;
            }
            for entry in entries.values() {
                if let Entry::Service(service) = entry.as_ref() {
                    let of = exports.entry(service.name.clone()).or_default();
                    of.insert(cluster(index), service);
                }
            }
        }
        let merged = exports.into_iter().filter_map(|(name, of)| Some((name, merge(&of)?)));
        merged.collect()
    }
}

pub(crate) fn service_entry(random: &mut Random, name: &ServiceName, created: i64) -> Entry {
    let number = 80 + u16::try_from(random.below(2)).unwrap();
    let port = ServicePort {
        name: Some(Label::new("http").unwrap()),
        number,
        transport: Transport::Tcp,
        app: AppProtocol::Http,
        app_protocol: None,
    };
    Entry::Service(ExportedService {
        name: name.clone(),
        created,
        headless: random.chance(20),
        ports: vec![port],
        traffic: ExportedTraffic::default(),
        metadata: ExportedMetadata::default(),
    })
}
