//! Values for tests: a small world of resources.

use std::collections::BTreeMap;
use std::sync::Arc;

use isthmus_model::endpoint::Export;
use isthmus_model::route::{RouteMatch, RouteParent};
use isthmus_model::{
    Backend, BackendTarget, Certificate, ClusterId, Endpoints, Generation, HttpRoute, Label,
    LinkState, Listener, ListenerProtocol, Locality, MtlsMode, NodeInfo, Peer, PeerAuthentication,
    Resource, ResourceKey, Rule, Service, ServiceKey, SpiffeId, TrustBundle, TrustDomain,
};

use crate::message::{Epoch, Hello, Position, Version};
use crate::node::{NodeIdentity, NodeRole, WorkloadName};
use crate::subscriber::{Held, Saved};

pub(crate) fn label(text: &str) -> Label {
    Label::new(text).unwrap()
}

pub(crate) fn key(name: &str) -> ServiceKey {
    ServiceKey::cluster(label("shop"), label(name))
}

pub(crate) fn node(name: &str, role: NodeRole) -> NodeIdentity {
    let workload = (role == NodeRole::Sidecar)
        .then(|| WorkloadName { namespace: label("shop"), account: label("web") });
    NodeIdentity { name: name.into(), role, workload }
}

pub(crate) fn node_info() -> NodeInfo {
    NodeInfo {
        cluster: ClusterId::new("c1").unwrap(),
        trust_domain: TrustDomain::new("c1.test").unwrap(),
        locality: Locality::default(),
    }
}

pub(crate) fn hello(node: &NodeIdentity) -> Hello {
    Hello { node: node.clone(), position: None, held: BTreeMap::new(), names: Vec::new() }
}

pub(crate) fn resources(
    all: impl IntoIterator<Item = Resource>,
) -> BTreeMap<ResourceKey, Arc<Resource>> {
    all.into_iter().map(|resource| (resource.key(), Arc::new(resource))).collect()
}

pub(crate) fn service(name: &str, address: &str) -> Resource {
    Resource::Service(Service {
        key: key(name),
        addresses: vec![address.parse().unwrap()],
        headless: false,
        ports: vec![],
        clusters: vec![],
    })
}

pub(crate) fn endpoints(name: &str) -> Resource {
    Resource::Endpoints(Endpoints { service: key(name), ports: vec![] })
}

pub(crate) fn bundle(domain: &str, sequence: u64) -> Resource {
    let trust_domain = TrustDomain::new(domain).unwrap();
    Resource::TrustBundle(TrustBundle { trust_domain, jwks: "{}".into(), sequence })
}

pub(crate) fn certificate(name: &str) -> Resource {
    let (chain_pem, key_pem) = ("chain".into(), "secret".into());
    Resource::Certificate(Certificate { name: name.into(), chain_pem, key_pem })
}

fn route(name: &str, parent: RouteParent, backend: &str) -> Resource {
    let target = BackendTarget::Service { service: key(backend), port: 80 };
    let rule = Rule {
        name: None,
        matches: vec![RouteMatch::default()],
        filters: vec![],
        backends: vec![Backend { target, weight: 1, filters: vec![] }],
        timeouts: Default::default(),
        retry: None,
    };
    let (parents, rules) = (vec![parent], vec![rule]);
    Resource::HttpRoute(HttpRoute {
        kind: Default::default(),
        name: name.into(),
        created: 0,
        parents,
        rules,
    })
}

fn policy(namespace: &str, name: &str) -> Resource {
    Resource::PeerAuthentication(PeerAuthentication {
        name: format!("{namespace}/{name}"),
        namespace: label(namespace),
        selector: BTreeMap::new(),
        mode: Some(MtlsMode::Strict),
        ports: BTreeMap::new(),
        created: 0,
    })
}

/// One resource of each kind and more: a service split by a route, a headless one.
pub(crate) fn world() -> Vec<Resource> {
    let east = TrustDomain::new("east.test").unwrap();
    let Resource::Service(mut db) = service("db", "10.0.0.3") else { unreachable!() };
    (db.headless, db.addresses) = (true, vec![]);
    let at_listener = RouteParent::Listener { listener: "shop/gw/https".into(), hostnames: vec![] };
    let at_service = RouteParent::Service { service: key("cart"), port: None };
    vec![
        service("cart", "10.0.0.1"),
        service("cart-v2", "10.0.0.2"),
        Resource::Service(db),
        endpoints("cart"),
        endpoints("cart-v2"),
        endpoints("db"),
        route("shop/edge", at_listener, "cart"),
        route("shop/split", at_service, "cart-v2"),
        policy("shop", "strict"),
        policy("other", "strict"),
        policy("isthmus-system", "mesh"),
        certificate("shop/tls"),
        bundle("east.test", 1),
        Resource::Export(Export {
            service: ServiceKey::clusterset(label("shop"), label("cart")),
            peers: [ClusterId::new("east").unwrap()].into(),
            ports: vec![],
            denied: Default::default(),
        }),
        Resource::Listener(Listener {
            name: "shop/gw/https".into(),
            addresses: vec![],
            port: 443,
            bind_port: 443,
            hostname: None,
            protocol: ListenerProtocol::Https,
            certificates: vec!["shop/tls".into()],
            created: 0,
            served_by: None,
            client_validation: None,
            backend_certificate: None,
        }),
        Resource::Peer(Peer {
            cluster: ClusterId::new("east").unwrap(),
            gateway: SpiffeId::parse("spiffe://east.test/ns/isthmus-system/sa/isthmus-eastwest")
                .unwrap(),
            trust_domain: east,
            addresses: vec![],
            dial: true,
            locality: Locality::default(),
            link: LinkState::default(),
            lease_valid: true,
        }),
    ]
}

/// A small state as it is saved.
pub(crate) fn saved() -> Saved {
    let all = [service("cart", "10.0.0.1"), certificate("shop/tls")];
    let held = resources(all).into_iter().map(|(key, resource)| {
        let version = Version::of(&serde_json::to_vec(&resource).unwrap());
        (key, Held { version, resource })
    });
    let position = Position { epoch: Epoch(u64::MAX), generation: Generation(7) };
    Saved { position, names: Vec::new(), held: held.collect() }
}
