//! Services of this cluster with their endpoints.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use isthmus_model::endpoint::PortEndpoints;
use isthmus_model::{
    Endpoint, EndpointId, EndpointTarget, Endpoints, Health, Locality, MeshPort, Resource, Service,
    ServiceKey, ServicePort, TrustDomain,
};

use crate::context::{Context, Workload};
use crate::kind::{Kind, ObjectKey};
use crate::objects::{
    self, EndpointConditions, EndpointSlice, Objects, ServiceExport, ServiceType, SliceEndpoint,
};
use crate::translate::conditions::{
    ConditionPart, ConditionType, ObjectCondition, Problem, Report,
};
use crate::translate::kept::Kept;
use crate::translate::{Named, Translation};

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
    let exports = objects.service_exports.values().map(AsRef::as_ref);
    let key = |export: &ServiceExport| {
        ServiceKey::cluster(export.key.namespace.clone(), export.service.clone())
    };
    let exported: BTreeSet<ServiceKey> = exports.map(key).collect();
    if exported.is_empty() {
        return BTreeMap::new();
    }
    selected(objects, context, |service| exported.contains(service))
}

/// The Services of one state after the other, as resources.
#[derive(Debug, Default)]
pub(super) struct Services {
    kept: Kept<objects::Service, ServiceOutcome>,
    /// Those of the outcomes, in order of their keys.
    resources: Vec<Named>,
    before: Option<Before>,
}

/// What the outcomes were made from besides each Service and its slices.
#[derive(Debug)]
struct Before {
    objects: Objects,
    trust_domain: TrustDomain,
    locality: Locality,
    workloads: Vec<Workload>,
}

/// What came of one Service.
#[derive(Debug)]
struct ServiceOutcome {
    slices: Vec<Arc<EndpointSlice>>,
    /// The service and its endpoints; `None` when it cannot be routed to.
    resources: Option<[Named; 2]>,
}

impl Services {
    /// Adds the Services and their endpoints.
    pub(super) fn translate(
        &mut self,
        objects: &Objects,
        context: &Context,
        out: &mut Translation,
    ) {
        let places = self.before.as_ref().filter(|before| before.has_places(context));
        let is_same = |kind| places.is_some_and(|before| before.objects.is_same(objects, kind));
        if !is_same(Kind::Service) || !is_same(Kind::EndpointSlice) {
            let has_places = places.is_some();
            let slices = slices(objects, |_| true);
            let own = |key: &ServiceKey| slices.get(key).map(Vec::as_slice).unwrap_or_default();
            let is_current = |service: &objects::Service, outcome: &ServiceOutcome| {
                let now = own(&service.service);
                let pairs = || outcome.slices.iter().zip(now);
                has_places
                    && outcome.slices.len() == now.len()
                    && pairs().all(|(before, now)| Arc::ptr_eq(before, now))
            };
            self.kept.turn(&objects.services, is_current, |service, before| {
                let slices = own(&service.service);
                let local = (!service.is_derived()).then(|| local(service, slices, context));
                let [before_service, before_endpoints] =
                    match before.and_then(|before| before.resources) {
                        Some(before) => before.map(Some),
                        None => [None, None],
                    };
                let resources = local.flatten().map(|local| {
                    let service = Named::from(Resource::Service(local.service));
                    let endpoints = Named::from(Resource::Endpoints(local.endpoints));
                    [service.or_same(before_service), endpoints.or_same(before_endpoints)]
                });
                let slices = slices.iter().map(|slice| Arc::clone(slice)).collect();
                ServiceOutcome { slices, resources }
            });
            let resources = self.kept.outcomes().filter_map(|outcome| outcome.resources.clone());
            self.resources = resources.flatten().collect();
            self.resources.sort_by(|a, b| a.key.cmp(&b.key));
            if !has_places {
                self.before = Some(Before::new(objects, context));
            }
        }
        if let Some(before) = &mut self.before {
            before.objects = objects.clone();
        }
        out.resources.extend_from_slice(&self.resources);
    }
}

impl Before {
    fn new(objects: &Objects, context: &Context) -> Self {
        Self {
            objects: objects.clone(),
            trust_domain: context.trust_domain.clone(),
            locality: context.locality.clone(),
            workloads: context.workloads.clone(),
        }
    }

    /// Whether endpoints are at the same places with the same identities.
    fn has_places(&self, context: &Context) -> bool {
        self.trust_domain == context.trust_domain
            && self.locality == context.locality
            && self.workloads == context.workloads
    }
}

fn selected(
    objects: &Objects,
    context: &Context,
    is_wanted: impl Fn(&ServiceKey) -> bool,
) -> BTreeMap<ServiceKey, LocalService> {
    let slices = slices(objects, &is_wanted);
    let mut found = BTreeMap::new();
    let services = objects.services.values().filter(|service| !service.is_derived());
    for service in services.filter(|service| is_wanted(&service.service)) {
        let own = slices.get(&service.service).map(Vec::as_slice).unwrap_or_default();
        if let Some(local) = local(service, own, context) {
            found.insert(service.service.clone(), local);
        }
    }
    found
}

/// The slices of Services, by Service.
fn slices(
    objects: &Objects,
    is_wanted: impl Fn(&ServiceKey) -> bool,
) -> BTreeMap<ServiceKey, Vec<&Arc<EndpointSlice>>> {
    let mut slices: BTreeMap<ServiceKey, Vec<&Arc<EndpointSlice>>> = BTreeMap::new();
    for slice in objects.endpoint_slices.values() {
        if let Some(service) = &slice.service {
            let key = ServiceKey::cluster(slice.key.namespace.clone(), service.clone());
            if is_wanted(&key) {
                slices.entry(key).or_default().push(slice);
            }
        }
    }
    slices
}

/// A Service with its endpoints; `None` when it cannot be routed to.
fn local(
    service: &objects::Service,
    slices: &[&Arc<EndpointSlice>],
    context: &Context,
) -> Option<LocalService> {
    let (addresses, headless) = match &service.service_type {
        ServiceType::ClusterIp(addresses) => (addresses.clone(), false),
        ServiceType::ExternalName(_) => return None,
        ServiceType::Headless => (Vec::new(), true),
    };
    Some(LocalService {
        endpoints: endpoints(service, slices, context),
        service: Service {
            key: service.service.clone(),
            addresses,
            headless,
            ports: service.ports.clone(),
            clusters: Vec::new(),
        },
    })
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
    slices: &[&Arc<EndpointSlice>],
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
