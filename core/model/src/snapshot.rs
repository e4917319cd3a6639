//! The immutable value that a data plane routes from.
//!
//! Built off the request path from the resources that discovery brought, and swapped in
//! whole: a request pins one snapshot and never sees half of a change.

mod front;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::backend_tls::BackendTls;
use crate::decision::{RequestHead, Trail};
use crate::endpoint::{Endpoints, Export, PortEndpoints};
use crate::gateway::{Certificate, Listener};
use crate::identity::TrustDomain;
use crate::locality::Assignment;
use crate::name::{ClusterId, Locality, ServiceKey};
use crate::peer::{Peer, TrustBundle};
use crate::policy::PeerAuthentication;
use crate::resource::{Resource, ResourceKey};
use crate::route::{HttpRoute, RouteParent, StreamRoute};
use crate::service::{Service, Transport};
use crate::table::{Matched, RouteTable};

use self::front::Fronts;
pub use self::front::{Front, FrontKey, FrontTransport, ListenerEntry, Routed};

/// Counts the states of a controller; a later state has a higher number.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Generation(pub u64);

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What a process of the data plane is and where it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeInfo {
    /// The cluster.
    pub cluster: ClusterId,
    /// The cluster's trust domain.
    pub trust_domain: TrustDomain,
    /// Where this process runs.
    pub locality: Locality,
}

/// Everything that a data plane knows, at one generation.
#[derive(Debug)]
pub struct Snapshot {
    /// Which state this is.
    pub generation: Generation,
    /// Who looks at it.
    pub node: NodeInfo,
    fronts: BTreeMap<FrontKey, Front>,
    services: HashMap<ServiceKey, ServiceEntry>,
    service_order: BTreeSet<ServiceKey>,
    service_routes: HashMap<(ServiceKey, Option<u16>), RouteTable>,
    routes: Vec<Arc<HttpRoute>>,
    certificates: BTreeMap<String, Arc<Certificate>>,
    backend_tls: HashMap<(ServiceKey, Option<u16>), Arc<BackendTls>>,
    exports: HashMap<ServiceKey, Arc<Export>>,
    peers: BTreeMap<ClusterId, Arc<Peer>>,
    policies: Vec<PeerAuthentication>,
    bundles: BTreeMap<TrustDomain, Arc<TrustBundle>>,
}

/// One service with the endpoints of its ports.
#[derive(Debug, Clone)]
pub struct ServiceEntry {
    /// The service.
    pub service: Arc<Service>,
    assignments: Vec<Arc<Assignment>>,
    /// Those of UDP ports.
    datagrams: Vec<Arc<Assignment>>,
}

impl ServiceEntry {
    /// The endpoints behind a TCP port number.
    pub fn assignment(&self, port: u16) -> Option<&Arc<Assignment>> {
        self.assignments.iter().find(|assignment| assignment.port == port)
    }

    /// The endpoints behind a UDP port number.
    pub fn datagram_assignment(&self, port: u16) -> Option<&Arc<Assignment>> {
        self.datagrams.iter().find(|assignment| assignment.port == port)
    }
}

impl Snapshot {
    /// A snapshot without any resource: what a process has before its first state.
    pub fn empty(node: NodeInfo) -> Self {
        Self::build(Generation(0), node, &BTreeMap::new())
    }

    /// Compiles resources.
    pub fn build(
        generation: Generation,
        node: NodeInfo,
        resources: &BTreeMap<ResourceKey, Arc<Resource>>,
    ) -> Self {
        let mut sorted = Sorted::collect(resources);
        let peers = sorted.peers;
        let mut services = HashMap::with_capacity(sorted.services.len());
        let service_order = sorted.services.iter().map(|service| service.key.clone()).collect();
        for service in sorted.services {
            let endpoints = sorted.endpoints.get(&service.key).copied();
            let entry = service_entry(service, endpoints, &node.locality, &peers);
            services.insert(entry.service.key.clone(), entry);
        }
        let mut fronts = Fronts::build(sorted.listeners);
        let mut service_routes: HashMap<_, RouteTable> = HashMap::new();
        for (index, route) in (0u32..).zip(&sorted.routes) {
            for parent in &route.parents {
                match parent {
                    RouteParent::Listener { listener, hostnames } => {
                        fronts.attach(listener, |entry| {
                            entry.routes.add(route, index, hostnames);
                        });
                    }
                    RouteParent::Service { service, port } => service_routes
                        .entry((service.clone(), *port))
                        .or_default()
                        .add(route, index, &[]),
                }
            }
        }
        service_routes.values_mut().for_each(RouteTable::finish);
        sorted.stream_routes.sort_by(|a, b| (a.created, &a.name).cmp(&(b.created, &b.name)));
        for route in &sorted.stream_routes {
            fronts.attach_stream(route);
        }
        Self {
            generation,
            node,
            fronts: fronts.finish(),
            services,
            service_order,
            service_routes,
            routes: sorted.routes,
            certificates: sorted.certificates,
            backend_tls: sorted.backend_tls,
            exports: sorted.exports,
            peers,
            policies: sorted.policies,
            bundles: sorted.bundles,
        }
    }

    /// The bound addresses of the ingress role.
    pub fn fronts(&self) -> impl Iterator<Item = (&FrontKey, &Front)> {
        self.fronts.iter()
    }

    /// The listeners of one bound address.
    pub fn front(&self, key: &FrontKey) -> Option<&Front> {
        self.fronts.get(key)
    }

    /// A service by name.
    pub fn service(&self, key: &ServiceKey) -> Option<&ServiceEntry> {
        self.services.get(key)
    }

    /// Every service, ordered by name.
    pub fn services(&self) -> Vec<&ServiceEntry> {
        self.service_order.iter().filter_map(|key| self.services.get(key)).collect()
    }

    /// The endpoints behind a port of a service.
    pub fn assignment(&self, service: &ServiceKey, port: u16) -> Option<&Arc<Assignment>> {
        self.services.get(service)?.assignment(port)
    }

    /// The rule of the routes attached to a service, most specific attachment first.
    ///
    /// Spec: GEP-1426 (GAMMA): a parentRef with a port goes before one without.
    pub fn service_rule(
        &self,
        service: &ServiceKey,
        port: u16,
        head: &RequestHead<'_>,
        trail: &mut Trail,
    ) -> ServiceRule<'_> {
        if self.service_routes.is_empty() {
            return ServiceRule::NoRoutes;
        }
        let with_port = self.service_routes.get(&(service.clone(), Some(port)));
        let without = self.service_routes.get(&(service.clone(), None));
        let mut attached = false;
        for table in [with_port, without].into_iter().flatten() {
            attached = true;
            if let Some(matched) = table.find(head, trail) {
                return ServiceRule::Matched(matched);
            }
        }
        if attached { ServiceRule::NoMatch } else { ServiceRule::NoRoutes }
    }

    /// The name of the route at a place, as [`Matched::route_index`] gives it.
    pub fn route_name(&self, index: u32) -> Option<&str> {
        self.routes.get(index as usize).map(|route| route.name.as_str())
    }

    /// A certificate by the name that listeners use.
    pub fn certificate(&self, name: &str) -> Option<&Arc<Certificate>> {
        self.certificates.get(name)
    }

    /// How gateways speak TLS to a port of a service; `None` is no TLS of ours.
    pub fn backend_tls(&self, service: &ServiceKey, port: u16) -> Option<&Arc<BackendTls>> {
        if self.backend_tls.is_empty() {
            return None;
        }
        let of = |port| self.backend_tls.get(&(service.clone(), port));
        of(Some(port)).or_else(|| of(None))
    }

    /// What peers may reach of a service.
    pub fn export(&self, service: &ServiceKey) -> Option<&Arc<Export>> {
        self.exports.get(service)
    }

    /// The linked clusters, ordered by id.
    pub fn peers(&self) -> &BTreeMap<ClusterId, Arc<Peer>> {
        &self.peers
    }

    /// The PeerAuthentication objects.
    pub fn policies(&self) -> &[PeerAuthentication] {
        &self.policies
    }

    /// The trust bundles, ordered by trust domain.
    pub fn bundles(&self) -> &BTreeMap<TrustDomain, Arc<TrustBundle>> {
        &self.bundles
    }
}

/// What the routes attached to a service say of a request.
#[derive(Debug, Clone, Copy)]
pub enum ServiceRule<'s> {
    /// This rule.
    Matched(&'s Matched),
    /// Routes are attached and none matches: the request is refused with 404.
    ///
    /// Spec: GEP-1426: "all requests not matched … must be rejected".
    NoMatch,
    /// No route is attached: the request goes to the service itself.
    NoRoutes,
}

/// Resources by kind.
#[derive(Default)]
struct Sorted<'r> {
    listeners: Vec<Arc<Listener>>,
    routes: Vec<Arc<HttpRoute>>,
    stream_routes: Vec<Arc<StreamRoute>>,
    backend_tls: HashMap<(ServiceKey, Option<u16>), Arc<BackendTls>>,
    services: Vec<&'r Service>,
    endpoints: BTreeMap<ServiceKey, &'r Endpoints>,
    certificates: BTreeMap<String, Arc<Certificate>>,
    exports: HashMap<ServiceKey, Arc<Export>>,
    peers: BTreeMap<ClusterId, Arc<Peer>>,
    policies: Vec<PeerAuthentication>,
    bundles: BTreeMap<TrustDomain, Arc<TrustBundle>>,
}

impl<'r> Sorted<'r> {
    fn collect(resources: &'r BTreeMap<ResourceKey, Arc<Resource>>) -> Self {
        let mut sorted = Self::default();
        for resource in resources.values() {
            match resource.as_ref() {
                Resource::BackendTls(v) => {
                    let key = (v.service.clone(), v.port);
                    sorted.backend_tls.insert(key, Arc::new(v.clone()));
                }
                Resource::Certificate(v) => {
                    sorted.certificates.insert(v.name.clone(), Arc::new(v.clone()));
                }
                Resource::Endpoints(v) => {
                    sorted.endpoints.insert(v.service.clone(), v);
                }
                Resource::Export(v) => {
                    sorted.exports.insert(v.service.clone(), Arc::new(v.clone()));
                }
                Resource::HttpRoute(v) => sorted.routes.push(Arc::new(v.clone())),
                Resource::Listener(v) => sorted.listeners.push(Arc::new(v.clone())),
                Resource::Peer(v) => {
                    sorted.peers.insert(v.cluster.clone(), Arc::new(v.clone()));
                }
                Resource::PeerAuthentication(v) => sorted.policies.push(v.clone()),
                Resource::Service(v) => sorted.services.push(v),
                Resource::StreamRoute(v) => sorted.stream_routes.push(Arc::new(v.clone())),
                Resource::TrustBundle(v) => {
                    sorted.bundles.insert(v.trust_domain.clone(), Arc::new(v.clone()));
                }
            }
        }
        sorted
    }
}

fn service_entry(
    service: &Service,
    endpoints: Option<&Endpoints>,
    locality: &Locality,
    peers: &BTreeMap<ClusterId, Arc<Peer>>,
) -> ServiceEntry {
    let of = |transport| {
        let ports = service.ports.iter().filter(move |port| port.transport == transport);
        let assignment = |port: &crate::service::ServicePort| {
            let same = |g: &&PortEndpoints| g.port == port.number && g.transport == transport;
            let group = endpoints.and_then(|e| e.ports.iter().find(same));
            Arc::new(Assignment::build(&service.key, port, group, locality, peers))
        };
        ports.map(assignment).collect()
    };
    ServiceEntry {
        assignments: of(Transport::Tcp),
        datagrams: of(Transport::Udp),
        service: Arc::new(service.clone()),
    }
}

#[cfg(test)]
mod tests;
