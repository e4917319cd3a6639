//! What each peer gets to see, and what the gateway lets it reach.
//!
//! Both come from one walk over the exports, so a peer is never told of an endpoint that
//! the gateway would refuse, nor let at one that it was not told of.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use isthmus_model::endpoint::{Export, PortEndpoints};
use isthmus_model::{
    ClusterId, Endpoint, EndpointTarget, Endpoints, Resource, Service, ServiceKey, Transport,
};

use super::inputs::{EASTWEST_ACCOUNT, ExportInvalid, Inputs, OwnExport, system_identity};
use crate::mcs::Condition;
use crate::proto::admit::ENDPOINTS_PER_PORT_MAX;
use crate::proto::grant::is_reserved;
use crate::proto::{
    ClusterProperties, EndpointSummary, Entry, EntryKey, ExportedService, GatewayInfo, ServiceName,
    SummaryEndpoint,
};

/// What follows from the exports.
pub(crate) struct Exported {
    pub(crate) resources: Vec<Resource>,
    pub(crate) publications: BTreeMap<ClusterId, BTreeMap<EntryKey, Arc<Entry>>>,
    pub(crate) conditions: BTreeMap<ServiceName, Vec<Condition>>,
}

/// Plans publications, allow-list and conditions.
pub(crate) fn plan_exports(inputs: &Inputs<'_>) -> Exported {
    let common = common_entries(inputs);
    let publications = inputs.links.keys().map(|peer| (peer.clone(), common.clone())).collect();
    let mut exported =
        Exported { resources: Vec::new(), publications, conditions: BTreeMap::new() };
    for (name, export) in inputs.exports {
        let conditions = match valid_export(name, export) {
            Ok(found) => {
                let offered = offer(inputs, name, &found);
                let peers = offered.peers.len();
                for (peer, entries) in offered.peers {
                    exported.publications.entry(peer).or_default().extend(entries);
                }
                exported.resources.extend(offered.resource);
                vec![Condition::valid(), Condition::export_ready(peers)]
            }
            Err(ExportInvalid::ServiceType | ExportInvalid::Reserved) => {
                vec![Condition::invalid_service_type(), Condition::export_failed()]
            }
            Err(ExportInvalid::NoService) => {
                vec![Condition::no_service(), Condition::export_failed()]
            }
        };
        exported.conditions.insert(name.clone(), conditions);
    }
    exported
}

/// A valid export, taken apart.
pub(crate) struct Found<'a> {
    pub(crate) entry: ExportedService,
    pub(crate) service: &'a Service,
    pub(crate) endpoints: &'a Endpoints,
}

/// The export as other clusters see it, before any rule.
pub(crate) fn valid_export<'a>(
    name: &ServiceName,
    export: &'a OwnExport,
) -> Result<Found<'a>, ExportInvalid> {
    if is_reserved(name) {
        return Err(ExportInvalid::Reserved);
    }
    match export {
        OwnExport::Invalid(reason) => Err(*reason),
        OwnExport::Valid { created, service, endpoints, traffic, metadata } => Ok(Found {
            entry: ExportedService {
                name: name.clone(),
                created: *created,
                headless: service.headless,
                ports: service.ports.clone(),
                traffic: traffic.clone(),
                metadata: metadata.clone(),
            },
            service,
            endpoints,
        }),
    }
}

struct Offered {
    peers: BTreeMap<ClusterId, BTreeMap<EntryKey, Arc<Entry>>>,
    resource: Option<Resource>,
}

fn offer(inputs: &Inputs<'_>, name: &ServiceName, found: &Found<'_>) -> Offered {
    let numbers: BTreeSet<u16> = found.service.ports.iter().map(|port| port.number).collect();
    let published: Vec<Published> =
        numbers.iter().map(|port| publish_port(inputs, name, *port, found.endpoints)).collect();
    let mut offered = Offered { peers: BTreeMap::new(), resource: None };
    let mut denied = BTreeSet::new();
    for (peer, link) in inputs.links {
        let granted = |port: u16| link.export.allow_port(name, port);
        let any = numbers.is_empty() || numbers.iter().any(|port| granted(*port));
        if !link.export.allow_service(name) || !any {
            continue;
        }
        let mut service = found.entry.clone();
        service.ports.retain(|port| granted(port.number));
        let mut entries = vec![Arc::new(Entry::Service(service))];
        for port in &published {
            if granted(port.reachable.port) {
                entries.push(Arc::clone(&port.summary));
            } else {
                denied.insert((peer.clone(), port.reachable.port));
            }
        }
        let entries = entries.into_iter().map(|entry| (entry.key(), entry)).collect();
        offered.peers.insert(peer.clone(), entries);
    }
    if !offered.peers.is_empty() {
        offered.resource = Some(Resource::Export(Export {
            service: ServiceKey::clusterset(name.namespace.clone(), name.name.clone()),
            peers: offered.peers.keys().cloned().collect(),
            ports: published.into_iter().map(|port| port.reachable).collect(),
            denied,
        }));
    }
    offered
}

/// One port: what peers are told, and what the gateway makes of it.
struct Published {
    summary: Arc<Entry>,
    reachable: PortEndpoints,
}

fn publish_port(
    inputs: &Inputs<'_>,
    name: &ServiceName,
    port: u16,
    endpoints: &Endpoints,
) -> Published {
    let group = endpoints.ports.iter().find(|group| group.port == port);
    let gateway = system_identity(&inputs.own.trust_domain, EASTWEST_ACCOUNT);
    let mut reachable: Vec<Endpoint> = group
        .into_iter()
        .flat_map(|group| &group.endpoints)
        .take(ENDPOINTS_PER_PORT_MAX)
        .map(|endpoint| Endpoint {
            id: inputs.secret.endpoint_id(name, port, &endpoint.id),
            ..endpoint.clone()
        })
        .collect();
    reachable.sort_by(|a, b| a.id.cmp(&b.id));
    let summarise = |endpoint: &Endpoint| SummaryEndpoint {
        id: endpoint.id.clone(),
        locality: endpoint.locality.clone(),
        weight: endpoint.weight.max(1),
        health: endpoint.health,
        // The gateway stands in for an endpoint without sidecar, and says so.
        identity: endpoint.identity.clone().unwrap_or_else(|| gateway.clone()),
        app_port: match &endpoint.target {
            EndpointTarget::Local { address, .. } => address.port(),
            EndpointTarget::Remote { port, .. } => *port,
        },
        hostname: endpoint.hostname.clone(),
    };
    let summary = EndpointSummary {
        service: name.clone(),
        port,
        endpoints: reachable.iter().map(summarise).collect(),
    };
    Published {
        summary: Arc::new(Entry::Endpoints(summary)),
        reachable: PortEndpoints { port, transport: Transport::Tcp, endpoints: reachable },
    }
}

/// What every linked peer gets, whatever its rules.
fn common_entries(inputs: &Inputs<'_>) -> BTreeMap<EntryKey, Arc<Entry>> {
    let own = inputs.own;
    let gateway = GatewayInfo {
        identity: system_identity(&own.trust_domain, EASTWEST_ACCOUNT),
        version: own.version.clone(),
    };
    let properties =
        ClusterProperties { locality: own.locality.clone(), properties: inputs.properties.clone() };
    let bundle = inputs.own_bundle.cloned().map(Entry::Bundle);
    [Some(Entry::Gateway(gateway)), Some(Entry::Properties(properties)), bundle]
        .into_iter()
        .flatten()
        .map(|entry| (entry.key(), Arc::new(entry)))
        .collect()
}
