//! Routes of the kinds beside HTTPRoute, and the newer filters.

use isthmus_model::BackendTarget;
use isthmus_model::route::{Filter, PathMatch};

use super::*;

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

/// What comes of a route beside a Gateway and a Service.
pub(super) fn one(kind: &str, spec: &str) -> Translation {
    let group = "gateway.networking.k8s.io/v1";
    let route = format!(
        "{{apiVersion: {group}, kind: {kind}, metadata: {{name: r, namespace: shop}}, spec: {spec}}}"
    );
    let objects = objects(&format!("{BASE}{route}\n"));
    let domain = TrustDomain::new("a.demo").unwrap();
    translate(&objects, &Context::new(ClusterId::new("a").unwrap(), domain))
}

pub(super) fn reasons(translation: &Translation, kind: &str) -> Vec<&'static str> {
    let of = translation.conditions.iter().filter(|c| c.object.kind.label() == kind);
    of.filter(|c| c.is_problem()).map(|c| c.reason).collect()
}

fn stream(translation: &Translation) -> Option<&isthmus_model::StreamRoute> {
    resources(translation).find_map(|resource| {
        if let Resource::StreamRoute(route) = resource { Some(route) } else { None }
    })
}

fn http(translation: &Translation) -> &HttpRoute {
    let mut all = resources(translation);
    let found =
        all.find_map(
            |resource| if let Resource::HttpRoute(route) = resource { Some(route) } else { None },
        );
    found.unwrap()
}

#[test]
fn a_tcp_route_attaches_to_every_tcp_listener_and_no_other() {
    let spec = "{parentRefs: [{name: edge}], rules: [{backendRefs: [{name: web, port: 80}]}]}";
    let translation = one("TCPRoute", spec);
    assert_eq!(reasons(&translation, "TCPRoute"), Vec::<&str>::new());
    assert_eq!(stream(&translation).unwrap().parents.len(), 2);
}

#[test]
fn stream_routes_say_why_they_are_refused() {
    let rules = "rules: [{backendRefs: [{name: web, port: 80}]}]";
    let reason = |kind, spec: &str| reasons(&one(kind, &format!("{{{spec}, {rules}}}")), kind);
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
    let translation = one("TLSRoute", spec);
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
    let translation = one("GRPCRoute", spec);
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
    let translation = one("HTTPRoute", spec);
    assert_eq!(reasons(&translation, "HTTPRoute"), ["BackendNotFound"]);
    let rule = &http(&translation).rules[0];
    assert_eq!(rule.filters.len(), 2);
    assert!(matches!(&rule.filters[0], Filter::Mirror(mirror) if mirror.fraction == (20, 100)));
    assert!(matches!(&rule.filters[1], Filter::Cors(cors) if cors.max_age == 5));
    let retry = rule.retry.as_ref().unwrap();
    assert_eq!((retry.attempts, retry.codes.as_slice()), (3, &[500, 503][..]));
}
