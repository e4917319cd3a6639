//! What HTTPRoutes say.

use isthmus_model::route::{Filter, PathChange, PathMatch, RouteParent};
use isthmus_model::{BackendTarget, ServiceKey};

use super::*;

#[test]
fn every_feature_of_a_route_arrives_in_the_model() {
    let text = with_route(
        "
  hostnames: [shop.example, '*.shop.example']
  rules:
  - name: main
    matches:
    - path: {type: Exact, value: /a}
      method: POST
      headers: [{name: X-Env, value: test}, {type: RegularExpression, name: x-v, value: 'v[0-9]+'}]
      queryParams: [{name: q, value: '1'}]
    - path: {type: RegularExpression, value: '/v[12]/.*'}
    filters:
    - type: RequestHeaderModifier
      requestHeaderModifier: {set: [{name: a, value: b}], add: [{name: c, value: d}], remove: [e]}
    - type: ResponseHeaderModifier
      responseHeaderModifier: {add: [{name: f, value: g}]}
    - type: URLRewrite
      urlRewrite: {hostname: internal.example, path: {type: ReplaceFullPath, replaceFullPath: /x}}
    backendRefs:
    - {name: web, port: 80, weight: 90, filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: h, value: i}]}}]}
    - {name: web, port: 80, weight: 10}
    timeouts: {request: 10s, backendRequest: 0s}
  - matches: [{path: {type: PathPrefix, value: /old}}]
    filters:
    - type: RequestRedirect
      requestRedirect: {scheme: https, hostname: new.example, port: 8443, statusCode: 301, path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}
  - backendRefs: [{name: web, port: 80}]
",
    );
    let translation = run(&text);
    assert_eq!(problems(&translation), Vec::<String>::new());
    let route = routes(&translation)[0];
    let RouteParent::Listener { listener, hostnames } = &route.parents[0] else { panic!() };
    assert_eq!((listener.as_str(), hostnames.len()), ("infra/edge/http", 2));
    let main = &route.rules[0];
    assert_eq!((main.matches.len(), main.filters.len(), main.backends.len()), (2, 3, 2));
    assert_eq!(main.matches[0].path, PathMatch::Exact("/a".into()));
    assert_eq!(main.matches[0].headers.len() + main.matches[0].query.len(), 3);
    assert_eq!(main.timeouts.request, Some(std::time::Duration::from_secs(10)));
    assert_eq!(main.timeouts.backend_request, None);
    assert_eq!((main.backends[0].weight, main.backends[0].filters.len()), (90, 1));
    let service = ServiceKey::cluster(label("shop"), label("web"));
    assert_eq!(main.backends[1].target, BackendTarget::Service { service, port: 80 });
    let Filter::Redirect(redirect) = &route.rules[1].filters[0] else { panic!() };
    assert_eq!((redirect.port, redirect.status.as_u16()), (Some(8443), 301));
    assert_eq!(redirect.path, Some(PathChange::Prefix("/new".into())));
    assert_eq!(route.rules[2].matches, [Default::default()]);
    assert_eq!(route.created, 7);
}

#[test]
fn a_filter_that_is_not_supported_closes_its_rule_alone() {
    let text = with_route(
        "
  rules:
  - filters: [{type: ExternalAuth, externalAuth: {protocol: HTTP}}]
    backendRefs: [{name: web, port: 80}]
  - backendRefs: [{name: web, port: 80}]",
    );
    let translation = run(&text);
    has(
        &translation,
        "PartiallyInvalid is true: UnsupportedValue: rules[0] has a filter of type ExternalAuth",
    );
    let route = routes(&translation)[0];
    assert!(matches!(route.rules[0].backends[0].target, BackendTarget::Invalid { .. }));
    assert!(matches!(route.rules[1].backends[0].target, BackendTarget::Service { .. }));
    let only = with_route(
        "  rules: [{filters: [{type: ExtensionRef, extensionRef: {group: a, kind: B, name: c}}]}]",
    );
    has(&run(&only), "Accepted is false: UnsupportedValue");
}
