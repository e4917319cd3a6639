//! The immutable value that a data plane routes from.
//!
//! Built off the request path from the resources that discovery brought, and swapped in
//! whole: a request pins one snapshot and never sees half of a change.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::backend_tls::BackendTls;
use crate::decision::{RequestHead, Step, Trail};
use crate::endpoint::{Endpoints, Export, PortEndpoints};
use crate::gateway::{Certificate, Listener, ListenerFamily};
use crate::hosts::HostTable;
use crate::identity::TrustDomain;
use crate::locality::Assignment;
use crate::name::{ClusterId, Locality, ServiceKey};
use crate::peer::{Peer, TrustBundle};
use crate::policy::PeerAuthentication;
use crate::resource::{Resource, ResourceKey};
use crate::route::{HttpRoute, RouteParent, StreamRoute};
use crate::service::{Service, Transport};
use crate::table::{Matched, RouteTable};

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

/// One bound address of the ingress role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrontKey {
    /// The address; `None` is the address of the role.
    pub address: Option<IpAddr>,
    /// The bound port.
    pub port: u16,
    /// Whether the port is of UDP, which shares no number space with TCP.
    pub transport: FrontTransport,
}

/// The transport of a bound address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FrontTransport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// The listeners that share a bound address.
#[derive(Debug)]
pub struct Front {
    /// What is spoken there; all listeners agree.
    pub family: ListenerFamily,
    listeners: HostTable<ListenerEntry>,
    /// Every listener, in order of name.
    names: Vec<Arc<Listener>>,
}

/// One listener with the routes attached to it.
#[derive(Debug)]
pub struct ListenerEntry {
    /// The listener.
    pub listener: Arc<Listener>,
    /// Its HTTP and gRPC routes.
    pub routes: RouteTable,
    /// Its TCP, TLS or UDP routes, by hostname; the oldest of each.
    streams: HostTable<Arc<StreamRoute>>,
}

impl ListenerEntry {
    fn new(listener: &Arc<Listener>) -> Self {
        let listener = Arc::clone(listener);
        Self { listener, routes: RouteTable::default(), streams: HostTable::default() }
    }

    /// The route of a connection with this server name; TCP and UDP have the empty one.
    pub fn stream_route(&self, server_name: &str) -> Option<&Arc<StreamRoute>> {
        self.streams.best(server_name)
    }
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

impl Front {
    /// The listener for a host: the one with the most specific hostname.
    pub fn listener(&self, host: &str) -> Option<&ListenerEntry> {
        self.listeners.best(host)
    }

    /// Every listener, ordered by name.
    pub fn listeners(&self) -> &[Arc<Listener>] {
        &self.names
    }

    /// The listener and the rule for a request.
    pub fn route(&self, head: &RequestHead<'_>, trail: &mut Trail) -> Routed<'_> {
        let Some(entry) = self.listener(head.host) else {
            return Routed::NoListener;
        };
        trail.note(|| Step {
            stage: "listener",
            object: format!("Gateway listener {}", entry.listener.name),
            outcome: match &entry.listener.hostname {
                Some(pattern) => format!("hostname {pattern} covers {}", head.host),
                None => "has no hostname and takes every host".into(),
            },
        });
        match entry.routes.find(head, trail) {
            Some(matched) => Routed::Rule { listener: &entry.listener, matched },
            None => Routed::NoRule { listener: &entry.listener },
        }
    }
}

/// Where a request to a front goes.
#[derive(Debug, Clone, Copy)]
pub enum Routed<'s> {
    /// No listener takes the host.
    NoListener,
    /// The listener has no rule for the request.
    NoRule {
        /// The listener.
        listener: &'s Arc<Listener>,
    },
    /// This rule.
    Rule {
        /// The listener.
        listener: &'s Arc<Listener>,
        /// The rule.
        matched: &'s Matched,
    },
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

/// Fronts while they are being built.
struct Fronts {
    fronts: BTreeMap<FrontKey, Front>,
    /// Where each listener ended up.
    places: HashMap<String, Vec<FrontKey>>,
}

impl Fronts {
    /// Older listeners go first: a later one with the same hostname, or with another
    /// protocol on the same address, gets no place.
    fn build(mut listeners: Vec<Arc<Listener>>) -> Self {
        listeners.sort_by(|a, b| (a.created, &a.name).cmp(&(b.created, &b.name)));
        let mut fronts = Self { fronts: BTreeMap::new(), places: HashMap::new() };
        for listener in listeners {
            let port = listener.bind_port;
            let transport = match listener.protocol.family() {
                ListenerFamily::Udp => FrontTransport::Udp,
                ListenerFamily::Http | ListenerFamily::Tcp | ListenerFamily::Tls => {
                    FrontTransport::Tcp
                }
            };
            if listener.addresses.is_empty() {
                fronts.place(FrontKey { address: None, port, transport }, &listener);
            }
            for address in &listener.addresses {
                fronts.place(FrontKey { address: Some(*address), port, transport }, &listener);
            }
        }
        fronts
    }

    fn place(&mut self, key: FrontKey, listener: &Arc<Listener>) {
        let front = self.fronts.entry(key).or_insert_with(|| Front {
            family: listener.protocol.family(),
            listeners: HostTable::default(),
            names: Vec::new(),
        });
        if front.family != listener.protocol.family() {
            return;
        }
        let mut placed = false;
        front.listeners.slot(listener.hostname.as_ref(), || {
            placed = true;
            ListenerEntry::new(listener)
        });
        if placed {
            front.names.push(Arc::clone(listener));
            self.places.entry(listener.name.clone()).or_default().push(key);
        }
    }

    fn attach(&mut self, listener: &str, mut add: impl FnMut(&mut ListenerEntry)) {
        for key in self.places.get(listener).into_iter().flatten() {
            let Some(front) = self.fronts.get_mut(key) else { continue };
            let Some(found) = front.names.iter().find(|l| l.name == listener) else { continue };
            let hostname = found.hostname.clone();
            let entry = front.listeners.slot(hostname.as_ref(), || ListenerEntry::new(found));
            add(entry);
        }
    }

    /// Attaches a route where no older one is.
    fn attach_stream(&mut self, route: &Arc<StreamRoute>) {
        for parent in &route.parents {
            let RouteParent::Listener { listener, hostnames } = parent else { continue };
            self.attach(listener, |entry| {
                if hostnames.is_empty() {
                    entry.streams.slot(None, || Arc::clone(route));
                }
                for hostname in hostnames {
                    entry.streams.slot(Some(hostname), || Arc::clone(route));
                }
            });
        }
    }

    fn finish(mut self) -> BTreeMap<FrontKey, Front> {
        for front in self.fronts.values_mut() {
            front.listeners.for_each_mut(|entry| entry.routes.finish());
        }
        self.fronts
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method};

    use super::*;
    use crate::gateway::ListenerProtocol;
    use crate::name::Hostname;
    use crate::route::{HttpRouteKind, RouteMatch, Rule};

    fn node() -> NodeInfo {
        NodeInfo {
            cluster: ClusterId::new("c1").unwrap(),
            trust_domain: TrustDomain::new("c1.test").unwrap(),
            locality: Locality::default(),
        }
    }

    fn listener(name: &str, hostname: Option<&str>, created: i64) -> Listener {
        Listener {
            name: name.into(),
            addresses: vec![],
            port: 80,
            bind_port: 80,
            hostname: hostname.map(|text| Hostname::new(text).unwrap()),
            protocol: ListenerProtocol::Http,
            certificates: vec![],
            created,
            served_by: None,
            client_validation: None,
            backend_certificate: None,
        }
    }

    fn route(name: &str, listener: &str) -> HttpRoute {
        let rule = Rule {
            name: None,
            matches: vec![RouteMatch::default()],
            filters: vec![],
            backends: vec![],
            timeouts: Default::default(),
            retry: None,
        };
        let parent = RouteParent::Listener { listener: listener.into(), hostnames: vec![] };
        HttpRoute {
            kind: HttpRouteKind::Http,
            name: name.into(),
            created: 0,
            parents: vec![parent],
            rules: vec![rule],
        }
    }

    fn build(resources: Vec<Resource>) -> Snapshot {
        let map = resources.into_iter().map(|r| (r.key(), Arc::new(r))).collect();
        Snapshot::build(Generation(1), node(), &map)
    }

    fn routed(snapshot: &Snapshot, host: &str) -> Option<String> {
        let headers = HeaderMap::new();
        let head =
            RequestHead { method: &Method::GET, host, path: "/", query: None, headers: &headers };
        let front = snapshot.front(&FrontKey {
            address: None,
            port: 80,
            transport: FrontTransport::Tcp,
        })?;
        match front.route(&head, &mut Trail::off()) {
            Routed::Rule { matched, .. } => Some(matched.route.name.clone()),
            Routed::NoRule { listener } => Some(format!("none at {}", listener.name)),
            Routed::NoListener => None,
        }
    }

    #[test]
    fn a_request_is_served_only_by_the_most_specific_listener() {
        let snapshot = build(vec![
            Resource::Listener(listener("n/g/any", None, 0)),
            Resource::Listener(listener("n/g/wild", Some("*.test"), 0)),
            Resource::Listener(listener("n/g/exact", Some("a.test"), 0)),
            Resource::HttpRoute(route("n/any", "n/g/any")),
            Resource::HttpRoute(route("n/wild", "n/g/wild")),
        ]);
        assert_eq!(routed(&snapshot, "b.test").unwrap(), "n/wild");
        assert_eq!(routed(&snapshot, "a.test").unwrap(), "none at n/g/exact");
        assert_eq!(routed(&snapshot, "other").unwrap(), "n/any");
    }

    #[test]
    fn of_two_listeners_with_one_hostname_the_older_serves() {
        let snapshot = build(vec![
            Resource::Listener(listener("a/young/x", Some("a.test"), 9)),
            Resource::Listener(listener("b/old/x", Some("a.test"), 1)),
            Resource::HttpRoute(route("a/young", "a/young/x")),
            Resource::HttpRoute(route("b/old", "b/old/x")),
        ]);
        assert_eq!(routed(&snapshot, "a.test").unwrap(), "b/old");
        assert_eq!(routed(&snapshot, "b.test"), None);
    }
}
