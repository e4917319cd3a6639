//! Routes of the kinds beside HTTPRoute, the newer filters, and BackendTLSPolicy.

use isthmus_model::route::{Filter, PathMatch};
use isthmus_model::{BackendRoots, BackendTarget, ClusterId, TrustDomain};

use super::*;
use crate::translate::testing::objects;

const BASE: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: isthmus}
spec: {controllerName: isthmus.io/gateway-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec:
  gatewayClassName: isthmus
  listeners:
  - {name: http, port: 80, protocol: HTTP}
  - {name: a, port: 9000, protocol: TCP}
  - {name: b, port: 9001, protocol: TCP}
  - {name: dns, port: 53, protocol: UDP}
  - {name: tls, port: 443, protocol: TLS, hostname: '*.example.com', tls: {mode: Passthrough}}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {ports: [{name: http, port: 80}, {name: dns, port: 53, protocol: UDP}]}
---
";

fn run(kind: &str, spec: &str) -> Translation {
    let group = "gateway.networking.k8s.io/v1";
    let route = format!(
        "{{apiVersion: {group}, kind: {kind}, metadata: {{name: r, namespace: shop}}, spec: {spec}}}"
    );
    let objects = objects(&format!("{BASE}{route}\n"));
    let domain = TrustDomain::new("a.demo").unwrap();
    translate(&objects, &Context::new(ClusterId::new("a").unwrap(), domain))
}

fn reasons(translation: &Translation, kind: &str) -> Vec<&'static str> {
    let of = translation.conditions.iter().filter(|c| c.object.kind.label() == kind);
    of.filter(|c| c.is_problem()).map(|c| c.reason).collect()
}

fn stream(translation: &Translation) -> Option<&isthmus_model::StreamRoute> {
    translation.resources.iter().find_map(|resource| {
        if let Resource::StreamRoute(route) = resource { Some(route) } else { None }
    })
}

fn http(translation: &Translation) -> &isthmus_model::HttpRoute {
    let mut all = translation.resources.iter();
    let found =
        all.find_map(
            |resource| if let Resource::HttpRoute(route) = resource { Some(route) } else { None },
        );
    found.unwrap()
}

#[test]
fn a_tcp_route_attaches_to_every_tcp_listener_and_no_other() {
    let spec = "{parentRefs: [{name: edge}], rules: [{backendRefs: [{name: web, port: 80}]}]}";
    let translation = run("TCPRoute", spec);
    assert_eq!(reasons(&translation, "TCPRoute"), Vec::<&str>::new());
    assert_eq!(stream(&translation).unwrap().parents.len(), 2);
}

#[test]
fn stream_routes_say_why_they_are_refused() {
    let rules = "rules: [{backendRefs: [{name: web, port: 80}]}]";
    let reason = |kind, spec: &str| reasons(&run(kind, &format!("{{{spec}, {rules}}}")), kind);
    let http = "parentRefs: [{name: edge, sectionName: http}]";
    assert_eq!(reason("TCPRoute", http), ["NotAllowedByListeners"]);
    let absent = "parentRefs: [{name: edge, port: 9000, sectionName: b}]";
    assert_eq!(reason("TCPRoute", absent), ["NoMatchingParent"]);
    let other = "hostnames: [other.example], parentRefs: [{name: edge}]";
    assert_eq!(reason("TLSRoute", other), ["NoMatchingListenerHostname"]);
    assert_eq!(reason("UDPRoute", "parentRefs: [{name: edge}]"), ["BackendNotFound"]);
}

#[test]
fn a_backend_that_cannot_be_used_keeps_its_share() {
    let spec = "{hostnames: [a.example.com], parentRefs: [{name: edge}], rules: [{backendRefs: [\
        {name: web, port: 80, weight: 3}, {kind: Bucket, name: x, weight: 2}]}]}";
    let translation = run("TLSRoute", spec);
    assert_eq!(reasons(&translation, "TLSRoute"), ["InvalidKind"]);
    let backends = &stream(&translation).unwrap().backends;
    assert!(matches!(backends[1].target, BackendTarget::Invalid { .. }));
    assert_eq!(backends[1].weight, 2);
}

#[test]
fn methods_of_grpc_are_paths() {
    let spec = "{parentRefs: [{name: edge, sectionName: http}], rules: [{matches: [\
        {method: {service: a.B, method: C}}, {method: {service: a.B}}, {method: {method: C}},\
        {method: {type: RegularExpression, service: 'a|b'}}, {headers: [{name: x, value: y}]}],\
        backendRefs: [{name: web, port: 80}]}]}";
    let translation = run("GRPCRoute", spec);
    assert_eq!(reasons(&translation, "GRPCRoute"), Vec::<&str>::new());
    let route = http(&translation);
    assert_eq!(route.kind, isthmus_model::HttpRouteKind::Grpc);
    let paths: Vec<String> = route.rules[0]
        .matches
        .iter()
        .map(|m| match &m.path {
            PathMatch::Exact(path) => format!("= {path}"),
            PathMatch::Prefix(path) => format!("^ {path}"),
            PathMatch::Regex(pattern) => format!("~ {}", pattern.as_str()),
        })
        .collect();
    assert_eq!(paths, ["= /a.B/C", "^ /a.B/", "~ /[^/]+/C", "~ /(?:a|b)/[^/]+", "^ /"]);
}

#[test]
fn mirrors_cors_and_retries_arrive_and_a_bad_mirror_is_dropped() {
    let spec = "{parentRefs: [{name: edge}], rules: [{filters: [\
        {type: RequestMirror, requestMirror: {percent: 20, backendRef: {name: web, port: 80}}},\
        {type: RequestMirror, requestMirror: {backendRef: {name: gone, port: 80}}},\
        {type: CORS, cors: {allowOrigins: ['https://*.a.example']}}],\
        retry: {codes: [503, 500], attempts: 3, backoff: 10ms},\
        backendRefs: [{name: web, port: 80}]}]}";
    let translation = run("HTTPRoute", spec);
    assert_eq!(reasons(&translation, "HTTPRoute"), ["BackendNotFound"]);
    let rule = &http(&translation).rules[0];
    assert_eq!(rule.filters.len(), 2);
    assert!(matches!(&rule.filters[0], Filter::Mirror(mirror) if mirror.fraction == (20, 100)));
    assert!(matches!(&rule.filters[1], Filter::Cors(cors) if cors.max_age == 5));
    let retry = rule.retry.as_ref().unwrap();
    assert_eq!((retry.attempts, retry.codes.as_slice()), (3, &[500, 503][..]));
}

#[test]
fn a_policy_without_a_certificate_fails_closed_and_the_first_by_name_wins() {
    let policy = |name: &str| {
        format!(
            "{{apiVersion: gateway.networking.k8s.io/v1, kind: BackendTLSPolicy, metadata: {{name: {name}, namespace: shop}}, spec: {{targetRefs: [{{group: '', kind: Service, name: web, sectionName: http}}], validation: {{hostname: a.example, caCertificateRefs: [{{group: '', kind: ConfigMap, name: gone}}]}}}}}}"
        )
    };
    let spec = format!(
        "{{parentRefs: [{{name: edge}}], rules: [{{backendRefs: [{{name: web, port: 80}}]}}]}}}}\n---\n{}\n---\n{}",
        policy("p1"),
        policy("p2")
    );
    let spec = &spec[..spec.len() - 1];
    let translation = run("HTTPRoute", spec);
    let found: Vec<_> = translation
        .resources
        .iter()
        .filter_map(
            |resource| if let Resource::BackendTls(tls) = resource { Some(tls) } else { None },
        )
        .collect();
    assert_eq!((found.len(), found[0].policy.as_str(), found[0].port), (1, "shop/p1", Some(80)));
    assert!(matches!(found[0].roots, BackendRoots::Invalid { .. }));
    let want = [
        "NoValidCACertificate",
        "InvalidCACertificateRef",
        "Conflicted",
        "InvalidCACertificateRef",
    ];
    assert_eq!(reasons(&translation, "BackendTLSPolicy"), want);
}
