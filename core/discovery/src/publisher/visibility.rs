//! What a node may see: the one place that decides it.
//!
//! Keys go to gateways that serve listeners only, the allow-list of exports to east-west
//! gateways only, policies of a namespace to the sidecars of that namespace only. A sidecar
//! further sees the services that it asked for, the routes attached to them, and the
//! services that those routes lead to, mirrors included, since a request that matches such
//! a route goes to their endpoints.
//!
//! # Gateways
//!
//! A listener names the workload that serves it. A node of the role Ingress sees the
//! listeners that name exactly its own proven identity; what hangs on them follows:
//! certificates that they name, routes attached to them, services and TLS policies that
//! those routes lead to. So the token of one Gateway's pod opens no Secret of another. The
//! ingress of the cluster also serves the listeners that name nobody, and sees every
//! service, whether a route leads there yet or not.
//!
//! # Cost
//!
//! What a sidecar or a Gateway's node sees is followed through the state's
//! [`Index`](super::index::Index) and costs as much as it is; only the few nodes that see
//! whole kinds pay for all of them.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Slot;
use std::sync::Arc;

use isthmus_model::name::SYSTEM_NAMESPACE;
use isthmus_model::route::{Filter, HttpRoute};
use isthmus_model::{
    Backend, BackendTarget, Listener, Resource, ResourceKey, ResourceKind, Service, ServiceKey,
    StreamRoute,
};

use super::state::{Entry, State};
use crate::authorise::INGRESS_ACCOUNT;
use crate::node::{NodeIdentity, NodeRole, WorkloadName};

/// The resources that a node should hold.
pub(crate) type Visible<'s> = BTreeMap<&'s ResourceKey, &'s Arc<Entry>>;

/// Everything of the state that the node should hold, given the services it asked for.
pub(crate) fn visible<'s, 'n>(
    node: &NodeIdentity,
    state: &'s State,
    names: impl Iterator<Item = &'n ServiceKey>,
) -> Visible<'s> {
    let mut reach = Reach { state, role: node.role, visible: BTreeMap::new() };
    for kind in node.role.kinds() {
        let all = state.of_kind(*kind);
        match share(node, *kind) {
            Share::All => reach.visible.extend(all.map(pair)),
            Share::Headless => {
                reach.visible.extend(all.filter(|entry| is_headless(state, entry)).map(pair));
            }
            Share::Policies => {
                reach.visible.extend(all.filter(|entry| is_policy_of(node, entry)).map(pair));
            }
            Share::Reached => {}
        }
    }
    match node.role {
        NodeRole::Dns | NodeRole::EastWest => {}
        NodeRole::Ingress => reach.add_served(node),
        NodeRole::Sidecar => names.for_each(|name| reach.add_called(name)),
    }
    reach.visible
}

/// How much of a kind a node sees.
enum Share {
    /// All of it.
    All,
    /// Of endpoints: those of headless services, whose addresses are answers of the DNS.
    Headless,
    /// Of policies: those that hold for the node.
    Policies,
    /// What its listeners or the names that it asked for lead to.
    Reached,
}

fn share(node: &NodeIdentity, kind: ResourceKind) -> Share {
    use ResourceKind as K;
    match (kind, node.role) {
        (K::Endpoints, NodeRole::Dns) => Share::Headless,
        (K::BackendTls | K::Endpoints | K::Service, NodeRole::Ingress) if !serves_cluster(node) => {
            Share::Reached
        }
        (K::Endpoints | K::Service, NodeRole::Sidecar)
        | (
            K::Certificate
            | K::GrpcRoute
            | K::HttpRoute
            | K::Listener
            | K::TcpRoute
            | K::TlsRoute
            | K::UdpRoute,
            _,
        ) => Share::Reached,
        (K::PeerAuthentication, NodeRole::Sidecar) => Share::Policies,
        (
            K::BackendTls
            | K::Endpoints
            | K::Export
            | K::Peer
            | K::PeerAuthentication
            | K::Service
            | K::TrustBundle,
            _,
        ) => Share::All,
    }
}

/// Whether the node is the ingress of the cluster, which serves what names no server.
fn serves_cluster(node: &NodeIdentity) -> bool {
    match (&node.identity, &node.workload) {
        (Some(identity), _) => identity.namespace_and_account() == Some(CLUSTER_INGRESS),
        (None, Some(workload)) => is_called(workload, CLUSTER_INGRESS),
        (None, None) => true,
    }
}

fn is_called(workload: &WorkloadName, name: (&str, &str)) -> bool {
    (workload.namespace.as_str(), workload.account.as_str()) == name
}

fn is_policy_of(node: &NodeIdentity, entry: &Entry) -> bool {
    let Resource::PeerAuthentication(policy) = entry.resource.as_ref() else { return false };
    node.workload.as_ref().is_none_or(|workload| {
        policy.namespace == workload.namespace
            || ROOT_NAMESPACES.contains(&policy.namespace.as_str())
    })
}

fn is_headless(state: &State, entry: &Entry) -> bool {
    let Resource::Endpoints(endpoints) = entry.resource.as_ref() else { return false };
    let headless = |service: &Arc<Entry>| {
        matches!(service.resource.as_ref(), Resource::Service(Service { headless: true, .. }))
    };
    state.service(&endpoints.service).is_some_and(headless)
}

fn pair(entry: &Arc<Entry>) -> (&ResourceKey, &Arc<Entry>) {
    (&entry.key, entry)
}

/// Follows references from what a node serves or calls.
struct Reach<'s> {
    state: &'s State,
    role: NodeRole,
    visible: Visible<'s>,
}

impl<'s> Reach<'s> {
    /// Adds the listeners that the node serves, with what hangs on them.
    fn add_served(&mut self, node: &NodeIdentity) {
        let index = self.state.index();
        if serves_cluster(node) {
            self.add_listeners(index.listeners_of(None));
        }
        if let Some(identity) = &node.identity {
            self.add_listeners(index.listeners_of(Some(identity)));
            return;
        }
        // Inside the controller's process there is no certificate and no impostor: the name
        // says enough, of whatever trust domain the controller made the listeners.
        let own = node.workload.as_ref();
        for (server, listeners) in index.servers() {
            let named = server.namespace_and_account().is_some_and(|name| match own {
                Some(workload) => is_called(workload, name),
                None => name == CLUSTER_INGRESS,
            });
            if named {
                self.add_listeners(listeners);
            }
        }
    }

    fn add_listeners(&mut self, listeners: &'s [Arc<Entry>]) {
        for entry in listeners {
            self.add(entry);
            let Resource::Listener(listener) = entry.resource.as_ref() else { continue };
            let Listener { name, certificates, backend_certificate, .. } = listener;
            for certificate in certificates.iter().chain(backend_certificate) {
                let (kind, name) = (ResourceKind::Certificate, certificate.clone());
                if let Some(certificate) = self.state.entry(&ResourceKey { kind, name }) {
                    self.add(certificate);
                }
            }
            self.add_routes(self.state.index().routes_at(name));
        }
    }

    /// Adds a service with its endpoints, its routes, and what those routes lead to.
    fn add_called(&mut self, name: &ServiceKey) {
        self.add_service(name);
        self.add_routes(self.state.index().routes_of(name));
    }

    fn add_routes(&mut self, routes: &'s [Arc<Entry>]) {
        for entry in routes {
            // A route that came by another parent has brought its services.
            if self.add(entry) {
                targets(&entry.resource, |service| self.add_service(service));
            }
        }
    }

    fn add_service(&mut self, name: &ServiceKey) {
        let Some(service) = self.state.service(name) else {
            self.add_all(self.state.endpoints(name));
            return;
        };
        // A service that is there brought its endpoints and policies along.
        if self.add(service) {
            self.add_all(self.state.endpoints(name));
            if self.role.kinds().contains(&ResourceKind::BackendTls) {
                self.add_all(self.state.backend_tls(name));
            }
        }
    }

    fn add_all(&mut self, entries: impl IntoIterator<Item = &'s Arc<Entry>>) {
        self.visible.extend(entries.into_iter().map(pair));
    }

    /// Says whether the entry was not there before.
    fn add(&mut self, entry: &'s Arc<Entry>) -> bool {
        match self.visible.entry(&entry.key) {
            Slot::Occupied(_) => false,
            Slot::Vacant(slot) => {
                slot.insert(entry);
                true
            }
        }
    }
}

/// Calls `take` for each service that a route's traffic, or a copy of it, can go to.
fn targets(route: &Resource, mut take: impl FnMut(&ServiceKey)) {
    let (rules, backends): (_, &[Backend]) = match route {
        Resource::HttpRoute(HttpRoute { rules, .. }) => (rules.as_slice(), &[]),
        Resource::StreamRoute(StreamRoute { backends, .. }) => (&[][..], backends),
        Resource::BackendTls(_)
        | Resource::Certificate(_)
        | Resource::Endpoints(_)
        | Resource::Export(_)
        | Resource::Listener(_)
        | Resource::Peer(_)
        | Resource::PeerAuthentication(_)
        | Resource::Service(_)
        | Resource::TrustBundle(_) => return,
    };
    let backends = rules.iter().flat_map(|rule| &rule.backends).chain(backends);
    for backend in backends.clone() {
        take_target(&backend.target, &mut take);
    }
    let filters = rules.iter().flat_map(|rule| &rule.filters);
    for filter in filters.chain(backends.flat_map(|backend| &backend.filters)) {
        if let Filter::Mirror(mirror) = filter {
            take_target(&mirror.target, &mut take);
        }
    }
}

fn take_target(target: &BackendTarget, take: &mut impl FnMut(&ServiceKey)) {
    match target {
        BackendTarget::Invalid { .. } => {}
        BackendTarget::Service { service, .. } => take(service),
    }
}

/// The ingress that serves what names no server: namespace and service account.
const CLUSTER_INGRESS: (&str, &str) = (SYSTEM_NAMESPACE, INGRESS_ACCOUNT);

/// Policies of these namespaces hold for the whole mesh.
const ROOT_NAMESPACES: [&str; 2] = [SYSTEM_NAMESPACE, "istio-system"];

#[cfg(test)]
mod tests;
