//! What a node may see: the one place that decides it.
//!
//! Keys go to ingress gateways only, the allow-list of exports to east-west gateways only,
//! policies of a namespace to the sidecars of that namespace only. A sidecar further sees
//! the services that it asked for, the routes attached to them, and the services that
//! those routes lead to, since a request that matches such a route goes to their
//! endpoints.

use std::collections::BTreeMap;
use std::sync::Arc;

use isthmus_model::name::SYSTEM_NAMESPACE;
use isthmus_model::route::RouteParent;
use isthmus_model::{BackendTarget, Resource, ResourceKey, Service, ServiceKey};

use super::state::{Entry, State};
use crate::node::{NodeIdentity, NodeRole};

/// The resources that a node should hold.
pub(crate) type Visible<'s> = BTreeMap<&'s ResourceKey, &'s Arc<Entry>>;

/// Everything of the state that the node should hold, given the services it asked for.
pub(crate) fn visible<'s, 'n>(
    node: &NodeIdentity,
    state: &'s State,
    names: impl Iterator<Item = &'n ServiceKey>,
) -> Visible<'s> {
    let mut visible = BTreeMap::new();
    for kind in node.role.kinds() {
        for entry in state.of_kind(*kind) {
            if is_always_visible(node, state, entry) {
                visible.insert(&entry.key, entry);
            }
        }
    }
    if node.role.is_on_demand() {
        names.for_each(|name| add_service(&mut visible, state, name));
    }
    visible
}

fn is_always_visible(node: &NodeIdentity, state: &State, entry: &Entry) -> bool {
    let on_demand = node.role.is_on_demand();
    match entry.resource.as_ref() {
        Resource::BackendTls(_)
        | Resource::Certificate(_)
        | Resource::Listener(_)
        | Resource::StreamRoute(_) => node.role == NodeRole::Ingress,
        Resource::Export(_) => node.role == NodeRole::EastWest,
        Resource::Endpoints(endpoints) if node.role == NodeRole::Dns => {
            state.service(&endpoints.service).is_some_and(|service| is_headless(service))
        }
        Resource::Endpoints(_) | Resource::Service(_) => !on_demand,
        Resource::HttpRoute(route) => {
            let at_listener = |parent: &RouteParent| matches!(parent, RouteParent::Listener { .. });
            !on_demand && route.parents.iter().any(at_listener)
        }
        Resource::PeerAuthentication(policy) => match &node.workload {
            Some(workload) if on_demand => {
                policy.namespace == workload.namespace
                    || ROOT_NAMESPACES.contains(&policy.namespace.as_str())
            }
            Some(_) | None => true,
        },
        Resource::Peer(_) | Resource::TrustBundle(_) => true,
    }
}

fn is_headless(entry: &Entry) -> bool {
    matches!(entry.resource.as_ref(), Resource::Service(Service { headless: true, .. }))
}

/// Adds a service with its endpoints, its routes, and what those routes lead to.
fn add_service<'s>(visible: &mut Visible<'s>, state: &'s State, name: &ServiceKey) {
    add_pair(visible, state, name);
    for entry in state.routes_of(name) {
        visible.insert(&entry.key, entry);
        let Resource::HttpRoute(route) = entry.resource.as_ref() else { continue };
        for backend in route.rules.iter().flat_map(|rule| &rule.backends) {
            if let BackendTarget::Service { service, .. } = &backend.target {
                add_pair(visible, state, service);
            }
        }
    }
}

fn add_pair<'s>(visible: &mut Visible<'s>, state: &'s State, name: &ServiceKey) {
    let pair = [state.service(name), state.endpoints(name)];
    visible.extend(pair.into_iter().flatten().map(|entry| (&entry.key, entry)));
}

/// Policies of these namespaces hold for the whole mesh.
const ROOT_NAMESPACES: [&str; 2] = [SYSTEM_NAMESPACE, "istio-system"];

#[cfg(test)]
mod tests {
    use isthmus_model::Generation;

    use super::*;
    use crate::message::Epoch;
    use crate::testing::{key, node, resources, world};

    fn seen(role: NodeRole, names: &[&str]) -> Vec<String> {
        let (state, rejections) = State::next(None, Epoch(1), Generation(1), &resources(world()));
        assert!(rejections.is_empty());
        let names: Vec<_> = names.iter().map(|name| key(name)).collect();
        let visible = visible(&node("n", role), &state, names.iter());
        visible.keys().map(|key| key.to_string()).collect()
    }

    fn short(full: &[String]) -> Vec<String> {
        let short = |name: &String| name.replace(".shop.svc.cluster.local", "");
        let mut names: Vec<_> = full.iter().map(short).collect();
        // '-' sorts before '.', so the full names have another order.
        names.sort();
        names
    }

    #[test]
    fn each_role_sees_its_own_kinds() {
        let ingress = short(&seen(NodeRole::Ingress, &[]));
        assert_eq!(
            ingress,
            [
                "Certificate shop/tls",
                "Endpoints cart",
                "Endpoints cart-v2",
                "Endpoints db",
                "HTTPRoute shop/edge",
                "Listener shop/gw/https",
                "Peer east",
                "Service cart",
                "Service cart-v2",
                "Service db",
                "TrustBundle east.test",
            ]
        );
        let eastwest = short(&seen(NodeRole::EastWest, &[]));
        assert_eq!(
            eastwest,
            [
                "Endpoints cart",
                "Endpoints cart-v2",
                "Endpoints db",
                "Export cart.shop.svc.clusterset.local",
                "Peer east",
                "PeerAuthentication isthmus-system/mesh",
                "PeerAuthentication other/strict",
                "PeerAuthentication shop/strict",
                "Service cart",
                "Service cart-v2",
                "Service db",
                "TrustBundle east.test",
            ]
        );
        let dns = short(&seen(NodeRole::Dns, &[]));
        let want = ["Endpoints db", "Peer east", "Service cart", "Service cart-v2", "Service db"];
        assert_eq!(dns, want);
    }

    #[test]
    fn a_sidecar_sees_what_it_asked_for_and_never_a_key_or_an_export() {
        let always = [
            "Peer east",
            "PeerAuthentication isthmus-system/mesh",
            "PeerAuthentication shop/strict",
            "TrustBundle east.test",
        ];
        assert_eq!(seen(NodeRole::Sidecar, &[]), always);
        let cart = short(&seen(NodeRole::Sidecar, &["cart", "nowhere"]));
        let asked = ["Endpoints cart", "Endpoints cart-v2", "HTTPRoute shop/split"];
        assert_eq!(cart[..3], asked);
        let names = ["cart", "cart-v2", "db", "tls", "nowhere"];
        for seen in seen(NodeRole::Sidecar, &names) {
            assert!(!seen.starts_with("Certificate") && !seen.starts_with("Export"), "{seen}");
            assert!(!seen.starts_with("Listener"), "{seen}");
        }
    }
}
