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
    let front =
        snapshot.front(&FrontKey { address: None, port: 80, transport: FrontTransport::Tcp })?;
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
