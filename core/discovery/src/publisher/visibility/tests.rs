//! Who sees what of small worlds.

use isthmus_model::{Generation, SpiffeId};

use super::*;
use crate::message::Epoch;
use crate::testing::{
    at_listener, at_service, backend_tls, certificate, endpoints, gateways, grpc_route, key, label,
    listener, node, resources, route, service, world,
};

fn seen(role: NodeRole, names: &[&str]) -> Vec<String> {
    seen_of(&node("n", role), world(), names)
}

fn seen_of(node: &NodeIdentity, all: Vec<Resource>, names: &[&str]) -> Vec<String> {
    let (state, rejections) = State::next(None, Epoch(1), Generation(1), &resources(all));
    assert!(rejections.is_empty());
    let names: Vec<_> = names.iter().map(|name| key(name)).collect();
    let visible = visible(node, &state, names.iter());
    visible.keys().map(|key| key.to_string()).collect()
}

/// What a proven workload sees as an ingress.
fn served(id: &str, all: Vec<Resource>) -> Vec<String> {
    let identity = SpiffeId::parse(&format!("spiffe://{id}")).ok();
    assert!(identity.is_some());
    short(&seen_of(&NodeIdentity { identity, ..node("n", NodeRole::Ingress) }, all, &[]))
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

#[test]
fn a_gateway_sees_its_own_listeners_and_what_hangs_on_them() {
    let shop = [
        "BackendTLS cart",
        "BackendTLS cart:443",
        "Certificate shop/edge",
        "Endpoints audit",
        "Endpoints cart",
        "Endpoints db",
        "Endpoints shadow",
        "GRPCRoute shop/rpc",
        "Listener shop/edge/main",
        "Service audit",
        "Service cart",
        "Service db",
        "Service shadow",
        "TCPRoute shop/tcp",
        "TrustBundle east.test",
    ];
    assert_eq!(served("c1.test/ns/shop/sa/edge", gateways()), shop);
    let bank = [
        "BackendTLS vault:443",
        "Certificate bank/client",
        "Certificate bank/vault",
        "Endpoints vault",
        "HTTPRoute bank/web",
        "Listener bank/vault/main",
        "Service vault",
        "TLSRoute bank/tls",
        "TrustBundle east.test",
        "UDPRoute bank/udp",
    ];
    assert_eq!(served("c1.test/ns/bank/sa/vault", gateways()), bank);
}

#[test]
fn whoever_serves_no_listener_sees_peers_and_bundles_alone() {
    let all = || gateways().into_iter().chain(world()).collect::<Vec<_>>();
    for id in [
        "c1.test/ns/shop/sa/web",
        "c1.test/ns/shop/sa/edge-2",
        "c1.test/ns/edge/sa/shop",
        "c1.test/ns/shop/sa/isthmus-ingress",
        "c1.test/ns/isthmus-system/sa/edge",
        "c1.test/ns/isthmus-system/sa/isthmus-eastwest",
        "c2.test/ns/shop/sa/edge",
    ] {
        assert_eq!(served(id, all()), ["Peer east", "TrustBundle east.test"], "{id}");
    }
}

#[test]
fn the_ingress_of_the_cluster_sees_no_key_of_a_gateway_with_its_own_server() {
    let own = "isthmus-system/isthmus-ingress";
    let mut all: Vec<_> = gateways().into_iter().chain(world()).collect();
    all.extend([listener("shop/own/main", Some(own), "shop/own"), certificate("shop/own")]);
    let cluster = served("c1.test/ns/isthmus-system/sa/isthmus-ingress", all.clone());
    let keys = |seen: &[String]| {
        let kinds = ["Certificate", "GRPCRoute", "HTTPRoute", "Listener", "TCPRoute"];
        let wanted = |name: &&String| kinds.iter().any(|kind| name.starts_with(kind));
        seen.iter().filter(wanted).cloned().collect::<Vec<_>>()
    };
    let want = [
        "Certificate shop/own",
        "Certificate shop/tls",
        "HTTPRoute shop/edge",
        "Listener shop/gw/https",
        "Listener shop/own/main",
    ];
    assert_eq!(keys(&cluster), want);
    let services = |seen: &[String]| seen.iter().filter(|n| n.starts_with("Service")).count();
    assert_eq!(services(&cluster), 6);
    // The same part inside the controller's process has no certificate to prove.
    assert_eq!(short(&seen_of(&node("n", NodeRole::Ingress), all, &[])), cluster);
}

#[test]
fn the_gateway_between_clusters_serves_the_listeners_that_name_it() {
    let account = "isthmus-system/isthmus-eastwest";
    let all = || {
        let mut all = gateways();
        all.push(listener("mesh/cart", Some(account), "none"));
        all.push(route("shop/away", at_listener("mesh/cart"), "cart-v2"));
        all
    };
    let want = [
        "BackendTLS cart-v2",
        "Endpoints cart-v2",
        "HTTPRoute shop/away",
        "Listener mesh/cart",
        "Service cart-v2",
        "TrustBundle east.test",
    ];
    assert_eq!(served("c1.test/ns/isthmus-system/sa/isthmus-eastwest", all()), want);
    let workload =
        WorkloadName { namespace: label("isthmus-system"), account: label("isthmus-eastwest") };
    let node = NodeIdentity { workload: Some(workload), ..node("n", NodeRole::Ingress) };
    assert_eq!(short(&seen_of(&node, all(), &[])), want);
}

#[test]
fn a_listener_of_another_trust_domain_is_served_by_nobody_here() {
    let foreign = SpiffeId::parse("spiffe://c2.test/ns/shop/sa/edge").unwrap();
    let mut all = gateways();
    for resource in &mut all {
        if let Resource::Listener(listener) = resource {
            listener.served_by = Some(foreign.clone());
        }
    }
    let seen = served("c1.test/ns/shop/sa/edge", all);
    assert_eq!(seen, ["TrustBundle east.test"]);
}

#[test]
fn the_tls_policies_of_a_service_are_not_those_of_one_that_begins_like_it() {
    let mut all = gateways();
    all.extend([backend_tls("cart", Some(8443)), backend_tls("ca", None)]);
    let (state, _) = State::next(None, Epoch(1), Generation(1), &resources(all));
    let names: Vec<_> =
        state.backend_tls(&key("cart")).map(|entry| entry.key.name.clone()).collect();
    let host = key("cart").host();
    assert_eq!(names, [host.clone(), format!("{host}:443"), format!("{host}:8443")]);
}

#[test]
fn a_sidecar_gets_grpc_routes_and_what_mirrors_lead_to_but_no_streams() {
    let mut all = gateways();
    all.push(grpc_route("shop/split", at_service("cart"), "cart-v2", ["shadow", "audit"]));
    all.push(service("away", "10.0.0.7"));
    all.push(endpoints("away"));
    let seen = short(&seen_of(&node("n", NodeRole::Sidecar), all, &["cart"]));
    let want = [
        "Endpoints audit",
        "Endpoints cart",
        "Endpoints cart-v2",
        "Endpoints shadow",
        "GRPCRoute shop/split",
        "Service audit",
        "Service cart",
        "Service cart-v2",
        "Service shadow",
        "TrustBundle east.test",
    ];
    assert_eq!(seen, want);
}
