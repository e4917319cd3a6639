//! Services of this cluster with their endpoints.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use isthmus_model::endpoint::PortEndpoints;
use isthmus_model::{
    Endpoint, EndpointId, EndpointTarget, Endpoints, Health, Locality, MeshPort, Service,
    ServiceKey, ServicePort,
};

use crate::context::Context;
use crate::kind::{Kind, ObjectKey};
use crate::objects::{
    self, EndpointConditions, EndpointSlice, Objects, ServiceExport, ServiceType, SliceEndpoint,
};
use crate::translate::conditions::{
    ConditionPart, ConditionType, ObjectCondition, Problem, Report,
};

/// A Service of this cluster with its endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalService {
    /// The service, scope Cluster.
    pub service: Service,
    /// Its endpoints.
    pub endpoints: Endpoints,
}

/// Every Service of this cluster that can be routed to, with its endpoints.
///
/// A Service of type ExternalName is left out: what it names is not an endpoint of this
/// cluster, and following it would let the author of a Service reach any address. So is
/// one that stands for a ServiceImport: its address is that of the import.
pub fn local_services(objects: &Objects, context: &Context) -> BTreeMap<ServiceKey, LocalService> {
    selected(objects, context, |_| true)
}

/// Those of [`local_services`] that a ServiceExport names.
pub fn exported_services(
    objects: &Objects,
    context: &Context,
) -> BTreeMap<ServiceKey, LocalService> {
    let exports = objects.service_exports.values();
    let key = |export: &ServiceExport| {
        ServiceKey::cluster(export.key.namespace.clone(), export.service.clone())
    };
    let exported: BTreeSet<ServiceKey> = exports.map(key).collect();
    if exported.is_empty() {
        return BTreeMap::new();
    }
    selected(objects, context, |service| exported.contains(service))
}

fn selected(
    objects: &Objects,
    context: &Context,
    is_wanted: impl Fn(&ServiceKey) -> bool,
) -> BTreeMap<ServiceKey, LocalService> {
    let mut slices: BTreeMap<ServiceKey, Vec<&EndpointSlice>> = BTreeMap::new();
    for slice in objects.endpoint_slices.values() {
        if let Some(service) = &slice.service {
            let key = ServiceKey::cluster(slice.key.namespace.clone(), service.clone());
            if is_wanted(&key) {
                slices.entry(key).or_default().push(slice);
            }
        }
    }
    let mut found = BTreeMap::new();
    let services = objects.services.values().filter(|service| !service.is_derived());
    for service in services.filter(|service| is_wanted(&service.service)) {
        let (addresses, headless) = match &service.service_type {
            ServiceType::ClusterIp(addresses) => (addresses.clone(), false),
            ServiceType::ExternalName(_) => continue,
            ServiceType::Headless => (Vec::new(), true),
        };
        let key = service.service.clone();
        let own = slices.get(&key).map(Vec::as_slice).unwrap_or_default();
        let local = LocalService {
            endpoints: endpoints(service, own, context),
            service: Service {
                key: key.clone(),
                addresses,
                headless,
                ports: service.ports.clone(),
                clusters: Vec::new(),
            },
        };
        found.insert(key, local);
    }
    found
}

/// Conditions of Services that cannot be routed to.
pub(super) fn conditions(objects: &Objects, conditions: &mut Vec<ObjectCondition>) {
    for service in objects.services.values() {
        if let ServiceType::ExternalName(_) = &service.service_type {
            let mut report = Report::new(Kind::Service, &service.key, conditions);
            let message = "a Service of type ExternalName is not routed to";
            let problem = Problem::new("UnsupportedValue", message);
            report.outcome(&ConditionPart::Object, ConditionType::Accepted, Some(&problem));
        }
    }
}

fn endpoints(
    service: &objects::Service,
    slices: &[&EndpointSlice],
    context: &Context,
) -> Endpoints {
    let mut ports = Vec::with_capacity(service.ports.len());
    for port in by_number(&service.ports) {
        // Slices may repeat an endpoint while Kubernetes moves it between them.
        let mut found: BTreeMap<EndpointId, Endpoint> = BTreeMap::new();
        let name = port.name.as_ref().map(|name| name.as_str()).unwrap_or_default();
        for slice in slices {
            let same = |p: &&objects::SlicePort| p.name == name && p.transport == port.transport;
            let Some(number) = slice.ports.iter().find(same).and_then(|p| p.port) else { continue };
            for raw in &slice.endpoints {
                let Some(endpoint) = endpoint(raw, number, context) else { continue };
                let known = found.entry(endpoint.id.clone()).or_insert_with(|| endpoint.clone());
                if endpoint.health < known.health {
                    *known = endpoint;
                }
            }
        }
        let endpoints = found.into_values().collect();
        ports.push(PortEndpoints { port: port.number, transport: port.transport, endpoints });
    }
    Endpoints { service: service.service.clone(), ports }
}

/// The ports by number; where TCP and UDP share one, TCP goes first.
fn by_number(ports: &[ServicePort]) -> Vec<&ServicePort> {
    let mut ports: Vec<&ServicePort> = ports.iter().collect();
    ports.sort_by_key(|port| (port.number, port.transport));
    ports
}

/// Spec: EndpointSlice: the addresses of one endpoint are equal, "consumers … may only
/// use the first".
fn endpoint(raw: &SliceEndpoint, port: u16, context: &Context) -> Option<Endpoint> {
    let address = SocketAddr::new(*raw.addresses.first()?, port);
    let workload = context.workload_at(address);
    let near = workload.map(|workload| &workload.locality).filter(|l| !l.region.is_empty());
    let near = near.unwrap_or(&context.locality);
    let zone = raw.zone.as_deref().unwrap_or(&near.zone);
    Some(Endpoint {
        id: endpoint_id(address, &raw.target),
        target: EndpointTarget::Local { address, mesh: workload.map(|w| MeshPort(w.mesh)) },
        locality: Locality::new(&near.region, zone),
        weight: 1,
        health: health(raw.conditions),
        identity: workload.map(|workload| workload.identity(&context.trust_domain)),
        hostname: raw.hostname.clone(),
    })
}

/// Spec: EndpointConditions: `ready` is never true for terminating endpoints, except
/// where publishNotReadyAddresses is set; `serving` is `ready` without regard to that.
fn health(conditions: EndpointConditions) -> Health {
    if conditions.ready {
        Health::Ready
    } else if conditions.serving && conditions.terminating {
        Health::Draining
    } else {
        Health::NotReady
    }
}

/// The same endpoint has the same id in every process and over restarts. The id is not
/// secret; federation gives peers ids of its own.
fn endpoint_id(address: SocketAddr, target: &str) -> EndpointId {
    let text = format!("{address}/{target}");
    let hash = text
        .bytes()
        .fold(FNV_OFFSET, |hash, byte| (hash ^ u128::from(byte)).wrapping_mul(FNV_PRIME));
    EndpointId::new(&format!("{hash:032x}")).expect("32 hex digits are an endpoint id")
}

/// Whether a Service has an endpoint that takes requests.
pub(crate) fn has_ready_endpoint(local: &LocalService) -> bool {
    let mut all = local.endpoints.ports.iter().flat_map(|group| &group.endpoints);
    all.any(|endpoint| endpoint.health != Health::NotReady)
}

/// The object's key of a service of this cluster.
pub(super) fn object_key(service: &ServiceKey) -> Option<ObjectKey> {
    ObjectKey::new(service.namespace.as_str(), service.name.as_str()).ok()
}

/// FNV-1a with 128 bits.
const FNV_OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
const FNV_PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
