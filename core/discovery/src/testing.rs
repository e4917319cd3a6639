//! Values for tests: a small world of resources.

use std::collections::BTreeMap;
use std::sync::Arc;

use isthmus_model::endpoint::Export;
use isthmus_model::route::{Filter, Mirror, RouteMatch, RouteParent};
use isthmus_model::{
    Backend, BackendRoots, BackendTarget, BackendTls, Certificate, ClusterId, Endpoints,
    Generation, HttpRoute, HttpRouteKind, Label, LinkState, Listener, ListenerProtocol, Locality,
    MtlsMode, NodeInfo, Peer, PeerAuthentication, Resource, ResourceKey, Rule, Service, ServiceKey,
    SpiffeId, StreamRoute, StreamRouteKind, TrustBundle, TrustDomain,
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
    NodeIdentity { name: name.into(), role, workload, identity: None }
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

pub(crate) fn at_listener(name: &str) -> RouteParent {
    RouteParent::Listener { listener: name.into(), hostnames: vec![] }
}

pub(crate) fn at_service(name: &str) -> RouteParent {
    RouteParent::Service { service: key(name), port: None }
}

fn target(service: &str) -> BackendTarget {
    BackendTarget::Service { service: key(service), port: 80 }
}

fn mirror(service: &str) -> Filter {
    Filter::Mirror(Mirror { target: target(service), fraction: (1, 1) })
}

/// A GRPCRoute with a mirror of its rule and one of its backend.
pub(crate) fn grpc_route(
    name: &str,
    parent: RouteParent,
    backend: &str,
    mirrors: [&str; 2],
) -> Resource {
    let Resource::HttpRoute(mut grpc) = route(name, parent, backend) else { unreachable!() };
    grpc.kind = HttpRouteKind::Grpc;
    grpc.rules[0].filters.push(mirror(mirrors[0]));
    grpc.rules[0].backends[0].filters.push(mirror(mirrors[1]));
    Resource::HttpRoute(grpc)
}

pub(crate) fn stream_route(
    kind: StreamRouteKind,
    name: &str,
    listener: &str,
    backend: &str,
) -> Resource {
    let backends = vec![Backend { target: target(backend), weight: 1, filters: vec![] }];
    let parents = vec![at_listener(listener)];
    Resource::StreamRoute(StreamRoute { kind, name: name.into(), created: 0, parents, backends })
}

pub(crate) fn backend_tls(service: &str, port: Option<u16>) -> Resource {
    Resource::BackendTls(BackendTls {
        policy: format!("shop/{service}"),
        service: key(service),
        port,
        hostname: "backend.test".into(),
        names: vec![],
        roots: BackendRoots::System,
    })
}

/// A listener with a certificate, served by an account (`namespace/name`) of `c1.test`.
pub(crate) fn listener(name: &str, server: Option<&str>, certificate: &str) -> Resource {
    let served_by = server.map(|server| {
        let (namespace, account) = server.split_once('/').unwrap();
        let domain = TrustDomain::new("c1.test").unwrap();
        SpiffeId::workload(&domain, &label(namespace), &label(account))
    });
    Resource::Listener(Listener {
        name: name.into(),
        addresses: vec![],
        port: 443,
        bind_port: 443,
        hostname: None,
        protocol: ListenerProtocol::Https,
        certificates: vec![certificate.into()],
        created: 0,
        served_by,
        client_validation: None,
        backend_certificate: None,
    })
}

pub(crate) fn route(name: &str, parent: RouteParent, backend: &str) -> Resource {
    let target = target(backend);
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
    vec![
        service("cart", "10.0.0.1"),
        service("cart-v2", "10.0.0.2"),
        Resource::Service(db),
        endpoints("cart"),
        endpoints("cart-v2"),
        endpoints("db"),
        route("shop/edge", at_listener("shop/gw/https"), "cart"),
        route("shop/split", at_service("cart"), "cart-v2"),
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
        listener("shop/gw/https", None, "shop/tls"),
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

/// Two Gateways with servers of their own, a service for each and one for none.
///
/// `shop/edge` has a GRPCRoute to `cart` with mirrors, and a TCPRoute; `bank/vault` shows a
/// certificate to its backends and has a route of each other kind to `vault`.
pub(crate) fn gateways() -> Vec<Resource> {
    let mut vault = listener("bank/vault/main", Some("bank/vault"), "bank/vault");
    if let Resource::Listener(listener) = &mut vault {
        listener.backend_certificate = Some("bank/client".into());
    }
    let mut all = vec![
        vault,
        listener("shop/edge/main", Some("shop/edge"), "shop/edge"),
        certificate("bank/client"),
        certificate("bank/vault"),
        certificate("shop/edge"),
        grpc_route("shop/rpc", at_listener("shop/edge/main"), "cart", ["shadow", "audit"]),
        stream_route(StreamRouteKind::Tcp, "shop/tcp", "shop/edge/main", "db"),
        stream_route(StreamRouteKind::Tls, "bank/tls", "bank/vault/main", "vault"),
        stream_route(StreamRouteKind::Udp, "bank/udp", "bank/vault/main", "vault"),
        route("bank/web", at_listener("bank/vault/main"), "vault"),
        backend_tls("cart", None),
        backend_tls("cart", Some(443)),
        backend_tls("cart-v2", None),
        backend_tls("vault", Some(443)),
        bundle("east.test", 1),
    ];
    for name in ["audit", "cart", "cart-v2", "db", "shadow", "vault"] {
        all.extend([service(name, "10.0.0.1"), endpoints(name)]);
    }
    all
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
