//! Where routes attach.

use isthmus_model::route::RouteParent;

use super::*;

#[test]
fn a_route_that_is_refused_says_at_which_step() {
    let base = with_route("  rules: [{backendRefs: [{name: web, port: 80}]}]");
    let check = |from: &str, to: &str, want: &str| {
        let translation = run(&base.replace(from, to));
        has(&translation, want);
        assert!(routes(&translation).is_empty());
    };
    let parents = "[{name: edge, namespace: infra}]";
    check(parents, "[{name: nope}]", "Accepted is false: NoMatchingParent: Gateway shop/nope");
    check(
        parents,
        "[{name: edge, namespace: infra, sectionName: x}]",
        "NoMatchingParent: no listener has this name",
    );
    check(
        parents,
        "[{name: edge, namespace: infra, port: 81}]",
        "NoMatchingParent: no listener has this name",
    );
    check("from: All", "from: Same", "NotAllowedByListeners");
    check("from: All}", "from: All}, kinds: [{kind: GRPCRoute}]", "NotAllowedByListeners");
    check(
        "from: All",
        "from: Selector, selector: {matchLabels: {team: a}}",
        "NotAllowedByListeners",
    );
    let hosts = |text: &str| {
        text.replace("protocol: HTTP,", "protocol: HTTP, hostname: '*.a.example',")
            .replace("  rules:", "  hostnames: [b.example]\n  rules:")
    };
    let translation = run(&hosts(&base));
    has(&translation, "NoMatchingListenerHostname");
    // A namespace has its name as a label, also without a Namespace object.
    let by_name = "from: Selector, selector: {matchExpressions: [{key: kubernetes.io/metadata.name, operator: In, values: [shop]}]}";
    assert_eq!(routes(&run(&base.replace("from: All", by_name))).len(), 1);
    let foreign = base.replace("isthmus.io/gateway-controller", "example.com/other");
    let translation = run(&foreign);
    assert!(translation.conditions.is_empty() && routes(&translation).is_empty());
}

#[test]
fn a_consumer_route_is_refused() {
    let text = with_route("  rules: [{backendRefs: [{name: web, port: 80}]}]").replace(
        "[{name: edge, namespace: infra}]",
        "[{group: '', kind: Service, name: api, namespace: backend}]",
    );
    has(&run(&text), "NotAllowedByListeners: Service backend/api is in another namespace");
}

#[test]
fn hostnames_are_those_that_route_and_listener_share() {
    let text = with_route("  hostnames: ['*.example', a.shop.example, other.test]\n  rules: [{backendRefs: [{name: web, port: 80}]}]")
        .replace("protocol: HTTP,", "protocol: HTTP, hostname: '*.shop.example',");
    let translation = run(&text);
    let RouteParent::Listener { hostnames, .. } = &routes(&translation)[0].parents[0] else {
        panic!()
    };
    let hostnames: Vec<_> = hostnames.iter().map(ToString::to_string).collect();
    assert_eq!(hostnames, ["*.shop.example", "a.shop.example"]);
}
