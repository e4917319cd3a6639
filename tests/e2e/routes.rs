//! HTTPRoutes, as the Gateway API has them.

use std::collections::BTreeMap;

use crate::client::Call;
use crate::wait::eventually;
use crate::world::{App, Cluster, Running, World};

const HOST: &str = "shop.test";

fn get(cluster: &Running, path: &str) -> Call {
    cluster.get(path).host(HOST)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_most_specific_match_wins_whatever_the_order_of_the_rules() {
    let rules = "
        - {matches: [{path: {type: PathPrefix, value: /}}], backendRefs: [{name: root, port: 80}]}
        - {matches: [{path: {type: PathPrefix, value: /a}}], backendRefs: [{name: prefix, port: 80}]}
        - {matches: [{path: {type: PathPrefix, value: /a}, headers: [{name: x-env, value: canary}]}], backendRefs: [{name: header, port: 80}]}
        - {matches: [{path: {type: PathPrefix, value: /a}, queryParams: [{name: v, value: \"2\"}]}], backendRefs: [{name: query, port: 80}]}
        - {matches: [{path: {type: PathPrefix, value: /a}, method: DELETE}], backendRefs: [{name: method, port: 80}]}
        - {matches: [{path: {type: Exact, value: /a/b}}], backendRefs: [{name: exact, port: 80}]}";
    let services = ["root", "prefix", "header", "query", "method", "exact"];
    let cluster = Cluster::named("east").gateway().route("shop", HOST, rules);
    let cluster = services.into_iter().fold(cluster, |cluster, name| cluster.app(App::http(name)));
    let world = World::of(cluster).await;
    let cluster = world.only();
    let table: [(Call, &str); 10] = [
        (get(cluster, "/"), "root"),
        (get(cluster, "/ab"), "root"),
        (get(cluster, "/a"), "prefix"),
        (get(cluster, "/a/c"), "prefix"),
        (get(cluster, "/a/c").header("x-env", "canary"), "header"),
        (get(cluster, "/a/c").header("X-Env", "canary"), "header"),
        (get(cluster, "/a/c?v=2"), "query"),
        (get(cluster, "/a/c?v=2").method("DELETE"), "method"),
        (get(cluster, "/a/b").header("x-env", "canary"), "exact"),
        (get(cluster, "/x/../a/b"), "exact"),
    ];
    for (call, service) in table {
        assert_eq!(call.send().await.service(), service);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_divide_requests_between_backends() {
    let rules = "- {backendRefs: [{name: v1, port: 80, weight: 3}, {name: v2, port: 80, weight: 1}, {name: v3, port: 80, weight: 0}]}";
    let cluster = Cluster::named("east").gateway().route("shop", HOST, rules);
    let cluster = cluster.app(App::http("v1")).app(App::http("v2")).app(App::http("v3"));
    let world = World::of(cluster).await;
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..400 {
        *counts.entry(get(world.only(), "/").send().await.service()).or_default() += 1;
    }
    // 300 and 100 are expected; these are more than five standard deviations away.
    assert!((255..=345).contains(&counts["v1"]), "{counts:?}");
    assert!(!counts.contains_key("v3"), "{counts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_redirect_rewrite_and_change_headers() {
    let rules = "
        - {matches: [{path: {value: /old}}], filters: [{type: RequestRedirect, requestRedirect: {scheme: https, hostname: new.test, path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}, statusCode: 301}}]}
        - {matches: [{path: {value: /api}}], filters: [{type: URLRewrite, urlRewrite: {hostname: inner.test, path: {type: ReplacePrefixMatch, replacePrefixMatch: /v2}}}], backendRefs: [{name: cart, port: 80}]}
        - {matches: [{path: {value: /headers}}], filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-set, value: ours}], add: [{name: x-add, value: two}], remove: [x-gone]}}, {type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-answer, value: edge}], remove: [x-internal]}}], backendRefs: [{name: cart, port: 80}]}";
    let cluster = Cluster::named("east").gateway().app(App::http("cart"));
    let world = World::of(cluster.route("shop", HOST, rules)).await;
    let cluster = world.only();

    let moved = get(cluster, "/old/page?x=1").send().await;
    assert_eq!(moved.status, 301);
    assert_eq!(moved.header("location"), Some("https://new.test/new/page?x=1"));

    let rewritten = get(cluster, "/api/items?x=1").send().await;
    assert_eq!(rewritten.json()["path"], "/v2/items");
    assert_eq!(rewritten.json()["query"], "x=1");
    assert_eq!(rewritten.seen("host"), ["inner.test"]);

    let call = get(cluster, "/headers").header("x-set", "theirs").header("x-add", "one");
    let changed = call.header("x-gone", "1").send().await;
    assert_eq!(changed.seen("x-set"), ["ours"]);
    assert_eq!(changed.seen("x-add"), ["one", "two"]);
    assert_eq!(changed.seen("x-gone"), [""; 0]);
    assert_eq!(changed.header("x-answer"), Some("edge"));
    assert_eq!(changed.header("x-internal"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_does_not_answer_in_time_gives_504() {
    let rules = "- {backendRefs: [{name: cart, port: 80}], timeouts: {request: 300ms}}";
    let cluster = Cluster::named("east").gateway().app(App::http("cart"));
    let world = World::of(cluster.route("shop", HOST, rules)).await;
    let cluster = world.only();
    assert_eq!(get(cluster, "/hold").send().await.status, 504);
    assert_eq!(get(cluster, "/hold").http2().send().await.status, 504);
    assert_eq!(get(cluster, "/").send().await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_route_is_404_and_a_bad_backend_is_500_for_its_rule_alone() {
    let rules = "
        - {matches: [{path: {value: /good}}], backendRefs: [{name: cart, port: 80}]}
        - {matches: [{path: {value: /missing}}], backendRefs: [{name: nobody, port: 80}]}
        - {matches: [{path: {value: /port}}], backendRefs: [{name: cart, port: 81}]}
        - {matches: [{path: {value: /kind}}], backendRefs: [{group: example.com, kind: Bucket, name: cart, port: 80}]}
        - {matches: [{path: {value: /empty}}], backendRefs: [{name: closed, port: 80}]}";
    let cluster = Cluster::named("east").gateway().app(App::http("cart")).app(App::http("closed"));
    let world = World::of(cluster.route("shop", HOST, rules)).await;
    let cluster = world.only();
    assert_eq!(get(cluster, "/good").send().await.service(), "cart");
    for (path, status) in [("/", 404), ("/missing", 500), ("/port", 500), ("/kind", 500)] {
        assert_eq!(get(cluster, path).send().await.status, status, "{path}");
    }
    assert_eq!(cluster.get("/good").host("other.test").send().await.status, 404);
    cluster.remove_endpoints("closed");
    eventually("a service without endpoints gives 503", || async {
        match get(cluster, "/empty").send().await.status {
            503 => Ok(()),
            other => Err(other),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_of_another_namespace_needs_a_reference_grant() {
    let rules = "- {backendRefs: [{name: ledger, namespace: bank, port: 80}]}";
    let cluster = Cluster::named("east").gateway().app(App::http("ledger").in_namespace("bank"));
    let world = World::of(cluster.route("shop", HOST, rules)).await;
    let cluster = world.only();
    assert_eq!(get(cluster, "/").send().await.status, 500);
    cluster.replace("grant.yaml", GRANT);
    eventually("the grant opens the backend", || async {
        match get(cluster, "/").send().await {
            answer if answer.status == 200 && answer.service() == "ledger" => Ok(()),
            answer => Err(answer.status),
        }
    })
    .await;
    std::fs::remove_file(cluster.manifests().join("grant.yaml")).unwrap();
    eventually("the backend closes with the grant", || async {
        match get(cluster, "/").send().await.status {
            500 => Ok(()),
            other => Err(other),
        }
    })
    .await;
}

const GRANT: &str = "apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: {name: shop, namespace: bank}
spec:
  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: shop}]
  to: [{group: '', kind: Service}]
";
