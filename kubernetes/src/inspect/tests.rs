use std::time::{Duration, SystemTime};

use serde_json::json;

use super::judge::{Weight, judge};
use super::*;

const OURS: &str = "isthmus.io/gateway-controller";

/// A cluster in which everything is well.
#[expect(clippy::too_many_lines, reason = "one whole cluster as data")]
fn healthy() -> Inspection {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let mut inspection = Inspection::new(now);
    let good = json!([{"type": "Accepted", "status": "True", "reason": "Accepted", "observedGeneration": 2}]);
    for name in ["isthmus-controller", "isthmus-dns", "isthmus-eastwest"] {
        add(
            &mut inspection,
            "Deployment",
            SYSTEM_NAMESPACE,
            name,
            json!({
                "spec": {"replicas": 2, "selector": {"matchLabels": {"app": name}},
                    "template": {"spec": {"containers": [{"image": "registry:5000/isthmus:1.2.3"}]}}},
                "status": {"availableReplicas": 2},
            }),
        );
    }
    add(
        &mut inspection,
        "Lease",
        SYSTEM_NAMESPACE,
        "isthmus-controller",
        json!({"spec": {
        "holderIdentity": "pod-1", "leaseDurationSeconds": 15, "renewTime": "2027-01-15T07:59:59.000000Z"}}),
    );
    add(
        &mut inspection,
        "ConfigMap",
        "kube-system",
        "coredns",
        json!({"data": {"Corefile":
        ".:53 {\n errors\n}\nclusterset.local:53 {\n forward . 10.0.0.9\n}\n"}}),
    );
    add(
        &mut inspection,
        "Service",
        SYSTEM_NAMESPACE,
        "isthmus-dns",
        json!({"spec": {"clusterIPs": ["10.0.0.9"]}}),
    );
    add(
        &mut inspection,
        "GatewayClass",
        "",
        "isthmus",
        json!({"spec": {"controllerName": OURS}, "status": {"conditions": good}}),
    );
    add(
        &mut inspection,
        "Gateway",
        "infra",
        "web",
        json!({
        "metadata": {"namespace": "infra", "name": "web", "generation": 2},
        "spec": {"gatewayClassName": "isthmus", "listeners": [{}, {}]},
        "status": {"conditions": good, "addresses": [{"value": "192.0.2.1"}],
            "listeners": [{"name": "a", "attachedRoutes": 2}, {"name": "b", "attachedRoutes": 1}]}}),
    );
    add(
        &mut inspection,
        "HTTPRoute",
        "shop",
        "cart",
        json!({
        "spec": {"rules": [{"backendRefs": [{"name": "cart", "port": 80}]}]},
        "status": {"parents": [{"controllerName": OURS, "parentRef": {"name": "web"}, "conditions": good}]}}),
    );
    add(&mut inspection, "Service", "shop", "cart", json!({"spec": {"selector": {"app": "cart"}}}));
    add(
        &mut inspection,
        "EndpointSlice",
        "shop",
        "cart-x",
        json!({
        "metadata": {"namespace": "shop", "name": "cart-x", "labels": {"kubernetes.io/service-name": "cart"}},
        "endpoints": [{"addresses": ["10.1.0.1"], "conditions": {}}]}),
    );
    inspection
}

fn add(inspection: &mut Inspection, kind: &str, namespace: &str, name: &str, rest: Value) {
    let mut object = json!({"kind": kind, "metadata": {"namespace": namespace, "name": name}});
    object.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    inspection.objects.entry(kind.to_owned()).or_default().push(object);
}

fn change(inspection: &mut Inspection, kind: &str, name: &str, pointer: &str, value: Value) {
    let objects = inspection.objects.get_mut(kind).unwrap();
    let object = objects.iter_mut().find(|it| text(it, "/metadata/name") == name).unwrap();
    *object.pointer_mut(pointer).unwrap() = value;
}

fn findings(inspection: &Inspection) -> Vec<String> {
    judge(inspection).iter().map(ToString::to_string).collect()
}

/// What is found once one thing of a healthy cluster is changed.
fn with(kind: &str, name: &str, pointer: &str, value: Value) -> Vec<String> {
    let mut inspection = healthy();
    change(&mut inspection, kind, name, pointer, value);
    findings(&inspection)
}

#[test]
fn a_healthy_cluster_has_no_findings() {
    assert_eq!(findings(&healthy()), Vec::<String>::new());
}

#[test]
fn a_cluster_without_isthmus_is_one_finding() {
    let mut inspection = Inspection::new(healthy().now);
    inspection.unserved.push("ClusterLink".to_owned());
    inspection.unserved.push("Gateway".to_owned());
    let found = findings(&inspection);
    assert_eq!(found.len(), 1);
    assert!(found[0].contains("Isthmus is not installed"), "{found:?}");
}

#[test]
fn a_deployment_without_pods_says_what_its_pods_say() {
    let mut inspection = healthy();
    change(&mut inspection, "Deployment", "isthmus-dns", "/status/availableReplicas", json!(0));
    add(
        &mut inspection,
        "Pod",
        SYSTEM_NAMESPACE,
        "isthmus-dns-1",
        json!({
        "metadata": {"namespace": SYSTEM_NAMESPACE, "name": "isthmus-dns-1", "labels": {"app": "isthmus-dns"}},
        "status": {"containerStatuses": [{"state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"reason": "Error", "exitCode": 1}}}]}}),
    );
    add(
        &mut inspection,
        "Pod",
        SYSTEM_NAMESPACE,
        "isthmus-dns-2",
        json!({
        "metadata": {"namespace": SYSTEM_NAMESPACE, "name": "isthmus-dns-2", "labels": {"app": "isthmus-dns"}},
        "status": {"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available"}]}}),
    );
    let want = "Deployment isthmus-system/isthmus-dns: 0 of 2 pods are available: CrashLoopBackOff (Error, exit code 1), 0/1 nodes are available; see `kubectl -n isthmus-system describe pods` and their logs";
    assert_eq!(findings(&inspection), [want]);
}

#[test]
fn a_lease_that_nobody_renews_is_found() {
    let renewed = json!("2027-01-15T07:55:00.000000Z");
    let found = with("Lease", "isthmus-controller", "/spec/renewTime", renewed);
    assert!(
        found[0].starts_with(
            "Lease isthmus-system/isthmus-controller: pod-1 has not renewed it for 300 s;"
        ),
        "{found:?}"
    );
    let found = with("Lease", "isthmus-controller", "/spec/holderIdentity", json!(""));
    assert!(found[0].contains("nobody holds it"), "{found:?}");
}

#[test]
fn definitions_that_are_absent_or_of_another_release_are_found() {
    let mut inspection = healthy();
    inspection.unserved.push("TLSRoute".to_owned());
    let entry = |name: &str, version: &str| {
        let annotations =
            [("gateway.networking.k8s.io/bundle-version".to_owned(), version.to_owned())];
        (format!("{name}.gateway.networking.k8s.io"), BTreeMap::from(annotations))
    };
    let all =
        [entry("gateways", "v1.6.3"), entry("httproutes", "v1.2.0"), entry("grpcroutes", "v1.6.1")];
    inspection.definitions = Some(BTreeMap::from(all));
    let found = judge(&inspection);
    let of = |weight| found.iter().filter(move |it| it.weight == weight).map(ToString::to_string);
    let problems: Vec<String> = of(Weight::Problem).collect();
    assert!(
        problems[0].starts_with("CustomResourceDefinition of TLSRoute: is not there;"),
        "{problems:?}"
    );
    assert!(
        problems[1].contains("httproutes.gateway.networking.k8s.io: is of release v1.2.0"),
        "{problems:?}"
    );
    assert_eq!((problems.len(), of(Weight::Note).count()), (2, 1));
}

#[test]
fn the_stub_domain_must_lead_to_the_service() {
    let with = |text: &str| with("ConfigMap", "coredns", "/data/Corefile", json!(text));
    assert!(with(".:53 {\n}\n")[0].contains("has no server block for clusterset.local;"));
    assert!(with("clusterset.local {\n errors\n}\n")[0].contains("that forwards nothing"));
    let found = with("clusterset.local {\n forward . 10.0.0.8\n}\n");
    assert!(
        found[0].contains("to 10.0.0.8, and the Service isthmus-system/isthmus-dns is at 10.0.0.9"),
        "{found:?}"
    );
}

#[test]
fn conditions_are_said_with_what_to_do() {
    let bad = json!([{"type": "ResolvedRefs", "status": "False", "reason": "RefNotPermitted", "message": "Service b/x"}]);
    let found = with("HTTPRoute", "cart", "/status/parents/0/conditions", bad);
    assert_eq!(
        found,
        [
            "HTTPRoute shop/cart: Gateway web: ResolvedRefs is False: RefNotPermitted: Service b/x; add a ReferenceGrant to the namespace that is referred to"
        ]
    );
}

#[test]
fn an_object_of_ours_that_nobody_has_judged_is_found_and_one_of_others_is_not() {
    let mut inspection = healthy();
    add(&mut inspection, "ClusterLink", "", "west", json!({}));
    add(&mut inspection, "HTTPRoute", "shop", "foreign", json!({"spec": {}}));
    add(
        &mut inspection,
        "GatewayClass",
        "",
        "other",
        json!({"spec": {"controllerName": "example.com/x"}}),
    );
    add(
        &mut inspection,
        "Gateway",
        "infra",
        "foreign",
        json!({"spec": {"gatewayClassName": "other"}}),
    );
    let found = findings(&inspection);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("ClusterLink west: has no conditions from Isthmus;"));
}

#[test]
fn a_gateway_needs_an_address_and_conditions_of_its_generation() {
    let found = with("Gateway", "web", "/status/addresses", json!([]));
    assert!(found[0].starts_with("Gateway infra/web: has no address;"), "{found:?}");
    let found = with("Gateway", "web", "/metadata/generation", json!(3));
    assert!(found[0].contains("its conditions are of generation 2, and it is at 3"), "{found:?}");
}

#[test]
fn a_backend_without_ready_endpoints_names_who_leads_to_it() {
    let found = with("EndpointSlice", "cart-x", "/endpoints/0/conditions", json!({"ready": false}));
    assert_eq!(
        found,
        [
            "Service shop/cart: has no ready endpoint, and HTTPRoute shop/cart leads to it; see `kubectl -n shop get pods -l app=cart`"
        ]
    );
}

#[test]
fn what_may_not_be_read_is_a_note() {
    let mut inspection = healthy();
    inspection.unread.push(("Pod in all namespaces".to_owned(), "forbidden".to_owned()));
    let found = judge(&inspection);
    assert_eq!((found.len(), found[0].weight), (1, Weight::Note));
}

#[test]
fn the_summary_has_what_tables_need() {
    let mut inspection = healthy();
    let connected = json!([{"type": "Accepted", "status": "True"}, {"type": "Connected", "status": "True", "reason": "Connected"}]);
    add(
        &mut inspection,
        "ClusterLink",
        "",
        "west",
        json!({
        "spec": {"trustDomain": "west.demo", "addresses": ["192.0.2.9:15443"]},
        "status": {"conditions": connected, "transport": "quic", "rttMicros": 40_000}}),
    );
    add(
        &mut inspection,
        "ServiceImport",
        "shop",
        "cart",
        json!({
        "spec": {"type": "ClusterSetIP", "ips": ["10.0.0.50"], "ports": [{"port": 80}]},
        "status": {"clusters": [{"cluster": "west"}]}}),
    );
    let summary = summary::summary(&inspection);
    assert_eq!(summary["version"], "1.2.3");
    assert_eq!(summary["leader"], "pod-1");
    assert_eq!(summary["gateways"][0]["attachedRoutes"], 3);
    assert_eq!(summary["links"][0]["state"], "connected");
    assert_eq!(summary["links"][0]["rttMicros"], 40_000);
    assert_eq!(summary["imports"][0]["ports"], json!([80]));
    assert_eq!(summary["imports"][0]["clusters"], json!(["west"]));
    assert_eq!(summary["routes"], json!({"HTTPRoute": 1}));
}
