//! Merged services: one ServiceImport for all clusters that export it.
//!
//! Own exports count like those of peers. A peer whose lease has expired still counts: its
//! endpoints are out of selection by its [`isthmus_model::Peer`], but its exports are not
//! gone, so names and addresses do not change when a peer is away.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use isthmus_config::ClusterSetIps;
use isthmus_model::endpoint::PortEndpoints;
use isthmus_model::{
    ClusterId, Endpoint, EndpointTarget, Endpoints, Resource, Service, ServiceKey, Transport,
};

use super::ImportStatus;
use super::export::valid_export;
use super::inputs::{Inputs, OwnExport};
use crate::mcs::{Condition, Conflict, Import, VipPool, merge};
use crate::proto::{Entry, EntryKey, ExportedService, ServiceName};

/// What follows from everybody's exports.
pub(crate) struct Imported {
    pub(crate) resources: Vec<Resource>,
    pub(crate) services: BTreeMap<ServiceKey, Service>,
    pub(crate) status: BTreeMap<ServiceName, ImportStatus>,
    /// For every merged service, also where no import exists here.
    pub(crate) conflicts: BTreeMap<ServiceName, Option<Conflict>>,
    pub(crate) vips: VipPool,
}

/// Plans the imports.
pub(crate) fn plan_imports(inputs: &Inputs<'_>) -> Imported {
    let own = own_entries(inputs);
    let merged = merge_all(inputs, &own);
    let mut vips = inputs.vips.clone();
    // Addresses of imports that are gone are free before new ones are given.
    vips.retain(|name| {
        *inputs.clusterset_ips == ClusterSetIps::Pool
            && merged.get(name).is_some_and(|import| !import.headless)
            && inputs.namespaces.contains(&name.namespace)
    });
    let mut imported = Imported {
        resources: Vec::new(),
        services: BTreeMap::new(),
        status: BTreeMap::new(),
        conflicts: BTreeMap::new(),
        vips,
    };
    for (name, import) in merged {
        if inputs.namespaces.contains(&name.namespace) {
            imported.add(inputs, &name, &import);
        }
        imported.conflicts.insert(name, import.conflict);
    }
    imported
}

impl Imported {
    fn add(&mut self, inputs: &Inputs<'_>, name: &ServiceName, import: &Import) {
        let (addresses, missing) = match inputs.clusterset_ips {
            _ if import.headless => (Vec::new(), None),
            ClusterSetIps::Pool => {
                let address = self.vips.address(name);
                (Vec::from_iter(address), address.is_none().then(Condition::import_pending))
            }
            ClusterSetIps::Given(given) => {
                let key = ServiceKey::clusterset(name.namespace.clone(), name.name.clone());
                let given = given.get(&key).cloned().unwrap_or_default();
                let missing = given.is_empty().then(Condition::import_waiting);
                (given, missing)
            }
        };
        let service = service(name, import, addresses);
        let conditions = vec![missing.unwrap_or_else(Condition::import_ready)];
        self.status.insert(
            name.clone(),
            ImportStatus {
                clusters: import.clusters.clone(),
                winner: import.winner.clone(),
                conditions,
                conflict: import.conflict.as_ref().map(Conflict::message),
                ports: import.ports.clone(),
                traffic: import.traffic.clone(),
                metadata: import.metadata.clone(),
            },
        );
        let ports = port_endpoints(inputs, name, import);
        self.resources.push(Resource::Endpoints(Endpoints { service: service.key.clone(), ports }));
        self.resources.push(Resource::Service(service.clone()));
        self.services.insert(service.key.clone(), service);
    }
}

fn own_entries(inputs: &Inputs<'_>) -> BTreeMap<ServiceName, ExportedService> {
    let valid = |(name, export): (&ServiceName, &OwnExport)| {
        valid_export(name, export).ok().map(|found| (name.clone(), found.entry))
    };
    inputs.exports.iter().filter_map(valid).collect()
}

fn merge_all(
    inputs: &Inputs<'_>,
    own: &BTreeMap<ServiceName, ExportedService>,
) -> BTreeMap<ServiceName, Import> {
    let mut exports: BTreeMap<&ServiceName, BTreeMap<ClusterId, &ExportedService>> =
        BTreeMap::new();
    for (name, service) in own {
        exports.entry(name).or_default().insert(inputs.own.cluster.clone(), service);
    }
    for (peer, view) in linked(inputs) {
        for entry in view.entries.values() {
            if let Entry::Service(service) = entry.as_ref() {
                exports.entry(&service.name).or_default().insert(peer.clone(), service);
            }
        }
    }
    let merged = exports.into_iter().filter_map(|(name, exports)| {
        let import = merge(&exports)?;
        Some((name.clone(), import))
    });
    merged.collect()
}

/// The views of peers that are linked now.
fn linked<'a>(
    inputs: &Inputs<'a>,
) -> impl Iterator<Item = (&'a ClusterId, &'a super::inputs::PeerView<'a>)> {
    let links = inputs.links;
    inputs.peers.iter().filter(move |(peer, _)| links.contains_key(*peer))
}

fn service(name: &ServiceName, import: &Import, addresses: Vec<IpAddr>) -> Service {
    Service {
        key: ServiceKey::clusterset(name.namespace.clone(), name.name.clone()),
        addresses,
        headless: import.headless,
        ports: import.ports.iter().map(|port| port.port.clone()).collect(),
        clusters: import.clusters.clone(),
    }
}

fn port_endpoints(inputs: &Inputs<'_>, name: &ServiceName, import: &Import) -> Vec<PortEndpoints> {
    // Endpoints are by number; where TCP and UDP share one, TCP says who exposes it.
    let mut exposers: BTreeMap<u16, (Transport, &BTreeSet<ClusterId>)> = BTreeMap::new();
    for port in &import.ports {
        let new = (port.port.transport, &port.clusters);
        let kept = exposers.entry(port.port.number).or_insert(new);
        if port.port.transport == Transport::Tcp {
            *kept = new;
        }
    }
    let group = |(port, (_, clusters)): (u16, (Transport, &BTreeSet<ClusterId>))| {
        let mut endpoints: Vec<Endpoint> =
            clusters.iter().flat_map(|cluster| endpoints(inputs, cluster, name, port)).collect();
        endpoints.sort_by(|a, b| (&a.id, a.remote_cluster()).cmp(&(&b.id, b.remote_cluster())));
        PortEndpoints { port, transport: Transport::Tcp, endpoints }
    };
    exposers.into_iter().map(group).collect()
}

fn endpoints(
    inputs: &Inputs<'_>,
    cluster: &ClusterId,
    name: &ServiceName,
    port: u16,
) -> Vec<Endpoint> {
    if *cluster == inputs.own.cluster {
        let Some(OwnExport::Valid { endpoints, .. }) = inputs.exports.get(name) else {
            return Vec::new();
        };
        let group = endpoints.ports.iter().find(|group| group.port == port);
        return group.map(|group| group.endpoints.clone()).unwrap_or_default();
    }
    let key = EntryKey::Endpoints(name.clone(), port);
    let entry = inputs.peers.get(cluster).and_then(|view| view.entries.get(&key));
    match entry.map(Arc::as_ref) {
        Some(Entry::Endpoints(summary)) => {
            summary.endpoints.iter().map(|endpoint| remote(cluster, endpoint)).collect()
        }
        Some(Entry::Bundle(_) | Entry::Gateway(_) | Entry::Properties(_) | Entry::Service(_))
        | None => Vec::new(),
    }
}

fn remote(cluster: &ClusterId, endpoint: &crate::proto::SummaryEndpoint) -> Endpoint {
    Endpoint {
        id: endpoint.id.clone(),
        target: EndpointTarget::Remote { cluster: cluster.clone(), port: endpoint.app_port },
        locality: endpoint.locality.clone(),
        weight: endpoint.weight,
        health: endpoint.health,
        identity: Some(endpoint.identity.clone()),
        hostname: endpoint.hostname.clone(),
    }
}
