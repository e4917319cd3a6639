use std::collections::BTreeSet;
use std::net::IpAddr;

use isthmus_model::route::{Filter, PathChange, PathMatch, RouteParent};
use isthmus_model::{
    BackendTarget, ClusterId, EndpointTarget, Health, HttpRoute, Label, Locality, Service,
    ServiceKey, Transport, TrustDomain,
};

use super::*;
use crate::context::Workload;
use crate::translate::testing::{listeners, objects};

fn context() -> Context {
    let trust_domain = TrustDomain::new("aws.demo").unwrap();
    let mut context = Context::new(ClusterId::new("aws").unwrap(), trust_domain);
    context.locality = Locality::new("us-east-1", "us-east-1a");
    context
}

fn label(text: &str) -> Label {
    Label::new(text).unwrap()
}

fn run(text: &str) -> Translation {
    translate(&objects(text), &context())
}

fn routes(translation: &Translation) -> Vec<&HttpRoute> {
    let mut found = Vec::new();
    for resource in &translation.resources {
        if let Resource::HttpRoute(route) = resource {
            found.push(route);
        }
    }
    found
}

fn problems(translation: &Translation) -> Vec<String> {
    let problems = translation.conditions.iter().filter(|condition| condition.is_problem());
    problems.map(ToString::to_string).collect()
}

fn has(translation: &Translation, text: &str) {
    let found = problems(translation);
    assert!(found.iter().any(|problem| problem.contains(text)), "{text}\n{found:#?}");
}

const BASE: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: isthmus}
spec: {controllerName: isthmus.io/gateway-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: infra}
spec:
  gatewayClassName: isthmus
  listeners:
  - {name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: api, namespace: backend}
spec: {ports: [{port: 8080}]}
";

fn with_route(spec: &str) -> String {
    format!(
        "{BASE}---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
         metadata: {{name: front, namespace: shop}}\nspec:\n  parentRefs: [{{name: edge, namespace: infra}}]\n{spec}\n"
    )
}

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
fn a_reference_to_another_namespace_needs_a_grant_for_exactly_that() {
    let text = with_route(
        "  rules: [{backendRefs: [{name: api, namespace: backend, port: 8080}, {name: web, port: 80}]}]",
    );
    let grant = |from: &str, kind: &str, to: &str| {
        format!(
            "{text}---\napiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\n\
             metadata: {{name: g, namespace: backend}}\nspec:\n  from: [{{group: gateway.networking.k8s.io, kind: {kind}, namespace: {from}}}]\n  to: [{{group: '', kind: Service{to}}}]\n"
        )
    };
    let usable = |text: &str| {
        let translation = run(text);
        let backends = routes(&translation)[0].rules[0].backends.clone();
        assert!(matches!(backends[1].target, BackendTarget::Service { .. }), "the sibling works");
        let usable = matches!(backends[0].target, BackendTarget::Service { .. });
        if !usable {
            has(&translation, "ResolvedRefs is false: RefNotPermitted: rules[0].backendRefs[0]");
        }
        usable
    };
    assert!(!usable(&text));
    assert!(usable(&grant("shop", "HTTPRoute", "")));
    assert!(usable(&grant("shop", "HTTPRoute", ", name: api")));
    assert!(!usable(&grant("shop", "HTTPRoute", ", name: other")));
    assert!(!usable(&grant("other", "HTTPRoute", "")));
    assert!(!usable(&grant("shop", "GRPCRoute", "")));
    // A grant in the namespace of the route grants nothing.
    assert!(!usable(
        &grant("shop", "HTTPRoute", "")
            .replace("namespace: backend}\nspec", "namespace: shop}\nspec")
    ));
}

#[test]
fn bad_backends_answer_with_an_error_and_are_named() {
    let cases = [
        (
            "{name: nope, port: 80}",
            "BackendNotFound: rules[0].backendRefs[0]: Service shop/nope does not exist",
        ),
        (
            "{name: web, port: 81}",
            "BackendNotFound: rules[0].backendRefs[0]: Service shop/web has no TCP port 81",
        ),
        (
            "{name: ext, port: 80}",
            "UnsupportedValue: rules[0].backendRefs[0]: Service shop/ext is of type ExternalName",
        ),
        (
            "{group: example.com, kind: Bucket, name: b}",
            "InvalidKind: rules[0].backendRefs[0]: example.com/Bucket",
        ),
        (
            "{group: multicluster.x-k8s.io, kind: ServiceImport, name: web, port: 80}",
            "BackendNotFound: rules[0].backendRefs[0]: ServiceImport shop/web does not exist",
        ),
        (
            "{name: web, port: 80, filters: [{type: URLRewrite, urlRewrite: {hostname: a.b}}]}",
            "UnsupportedValue: rules[0].backendRefs[0]: a filter of type URLRewrite",
        ),
    ];
    for (backend, want) in cases {
        let external = "---\napiVersion: v1\nkind: Service\nmetadata: {name: ext, namespace: shop}\nspec: {type: ExternalName, externalName: metadata.internal, ports: [{port: 80}]}\n";
        let text = format!(
            "{}{external}",
            with_route(&format!("  rules: [{{backendRefs: [{backend}]}}]"))
        );
        let translation = run(&text);
        has(
            &translation,
            &format!("HTTPRoute shop/front parentRefs[0]: ResolvedRefs is false: {want}"),
        );
        let backend = &routes(&translation)[0].rules[0].backends[0];
        assert!(matches!(backend.target, BackendTarget::Invalid { .. }), "{backend:?}");
    }
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

#[test]
fn imports_are_backends_and_parents_of_routes() {
    let key = ServiceKey::clusterset(label("shop"), label("web"));
    let mut context = context();
    let objects = objects(&with_route(
        "  - {group: multicluster.x-k8s.io, kind: ServiceImport, name: web, port: 80}\n  rules: [{backendRefs: [{group: multicluster.x-k8s.io, kind: ServiceImport, name: web, port: 80}]}]",
    ).replace("parentRefs: [{name: edge, namespace: infra}]", "parentRefs:\n  - {name: edge, namespace: infra}\n  - {group: '', kind: Service, name: web}"));
    let ports = objects.services.values().last().unwrap().ports.clone();
    let import =
        Service { key: key.clone(), addresses: vec![], headless: false, ports, clusters: vec![] };
    context.imports.insert(key.clone(), import);
    let translation = translate(&objects, &context);
    assert_eq!(problems(&translation), Vec::<String>::new());
    let route = routes(&translation)[0];
    assert_eq!(
        route.rules[0].backends[0].target,
        BackendTarget::Service { service: key.clone(), port: 80 }
    );
    let local = ServiceKey::cluster(label("shop"), label("web"));
    assert_eq!(route.parents[1], RouteParent::Service { service: local, port: None });
    assert_eq!(route.parents[2], RouteParent::Service { service: key, port: Some(80) });
}

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

const PEM: &str = "
type: kubernetes.io/tls
stringData:
  tls.crt: |
    -----BEGIN CERTIFICATE-----
    MAA=
    -----END CERTIFICATE-----
  tls.key: |
    -----BEGIN PRIVATE KEY-----
    MAA=
    -----END PRIVATE KEY-----
";

fn tls_gateway(references: &str, more: &str) -> String {
    format!(
        "{BASE}---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: tls, namespace: infra}}
spec:
  gatewayClassName: isthmus
  addresses: [{{value: 127.0.0.2}}, {{type: IPAddress, value: '::1'}}]
  listeners:
  - {{name: https, port: 443, protocol: HTTPS, tls: {{certificateRefs: [{references}]}}}}
---
apiVersion: v1
kind: Secret
metadata: {{name: own, namespace: infra}}{PEM}---
apiVersion: v1
kind: Secret
metadata: {{name: far, namespace: certs}}{PEM}---
apiVersion: v1
kind: Secret
metadata: {{name: opaque, namespace: infra}}
{more}"
    )
}

#[test]
fn https_listeners_have_their_certificates_addresses_and_bound_port() {
    let mut context = context();
    context.ingress.port_map.insert(443, 8443);
    let grant = "---\napiVersion: gateway.networking.k8s.io/v1\nkind: ReferenceGrant\nmetadata: {name: g, namespace: certs}\n\
        spec: {from: [{group: gateway.networking.k8s.io, kind: Gateway, namespace: infra}], to: [{group: '', kind: Secret}]}\n";
    let text = tls_gateway("{name: own}, {name: far, namespace: certs}", grant);
    let translation = translate(&objects(&text), &context);
    assert_eq!(problems(&translation), Vec::<String>::new());
    let listener = listeners(&translation)[1];
    assert_eq!(listener.certificates, ["infra/own", "certs/far"]);
    assert_eq!((listener.port, listener.bind_port), (443, 8443));
    let addresses: Vec<IpAddr> = vec!["127.0.0.2".parse().unwrap(), "::1".parse().unwrap()];
    assert_eq!(listener.addresses, addresses);
    let certificates = translation.resources.iter();
    let certificates = certificates.filter(|r| matches!(r, Resource::Certificate(_))).count();
    assert_eq!(certificates, 2);
    assert!(!format!("{translation:?}").contains("PRIVATE KEY"));
}

#[test]
fn a_listener_without_a_usable_certificate_is_not_served() {
    let cases = [
        ("{name: nope}", "InvalidCertificateRef: Secret infra/nope does not exist"),
        (
            "{name: opaque}",
            "InvalidCertificateRef: Secret infra/opaque is not of type kubernetes.io/tls",
        ),
        ("{name: far, namespace: certs}", "RefNotPermitted: no ReferenceGrant allows"),
        (
            "{group: x.io, kind: Cert, name: c}",
            "InvalidCertificateRef: x.io/Cert c is not a Secret",
        ),
    ];
    for (references, want) in cases {
        let translation = run(&tls_gateway(references, ""));
        has(
            &translation,
            &format!("Gateway infra/tls listener https: ResolvedRefs is false: {want}"),
        );
        has(&translation, "Gateway infra/tls: Programmed is false");
        assert_eq!(listeners(&translation).len(), 1);
    }
    let translation = run(&tls_gateway("{name: nope}, {name: own}", ""));
    assert_eq!(listeners(&translation)[1].certificates, ["infra/own"]);
}

#[test]
fn listeners_that_clash_or_ask_for_the_impossible_are_not_served() {
    let check = |more: &str, want: &str, served: usize| {
        let text = BASE.replace("from: All}}}", &format!("from: All}}}}}}\n{more}"));
        let translation = run(&text);
        has(&translation, want);
        assert_eq!(listeners(&translation).len(), served, "{want}");
    };
    check(
        "  - {name: b, port: 80, protocol: HTTP}",
        "listener b: Conflicted is true: HostnameConflict",
        0,
    );
    check(
        "  - {name: b, port: 80, protocol: HTTPS, tls: {certificateRefs: [{name: x}]}}",
        "listener http: Conflicted is true: ProtocolConflict",
        0,
    );
    check(
        "  - {name: b, port: 81, protocol: SCTP}",
        "listener b: Accepted is false: UnsupportedProtocol",
        1,
    );
    check(
        "  addresses: [{type: Hostname, value: a.example}]",
        "Gateway infra/edge: Accepted is false: UnsupportedAddress",
        0,
    );
    check(
        "  - {name: b, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: x}], frontendValidation: {}}}",
        "listener b: Accepted is false: UnsupportedValue: tls.frontendValidation",
        1,
    );
    let younger = "---\napiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: z, namespace: other}\n\
        spec: {gatewayClassName: isthmus, listeners: [{name: a, port: 80, protocol: HTTP}]}\n";
    let translation = run(&format!("{BASE}{younger}"));
    has(
        &translation,
        "Gateway other/z listener a: Conflicted is true: HostnameConflict: a listener that goes first",
    );
    assert_eq!(listeners(&translation).len(), 1);
}

const SLICES: &str = "---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080, protocol: TCP}, {name: metrics, port: 9090}]
endpoints:
- {addresses: [127.0.1.1], conditions: {ready: true}, zone: us-east-1b, hostname: web-0}
- {addresses: [127.0.1.2], conditions: {ready: false, serving: true, terminating: true}}
- {addresses: [127.0.1.3], conditions: {ready: false}}
- {addresses: [127.0.1.4]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-2, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [127.0.1.1], conditions: {ready: false}}]
---
apiVersion: v1
kind: Service
metadata: {name: head, namespace: shop}
spec: {clusterIP: None, ports: [{port: 80}]}
";

#[test]
fn services_have_the_endpoints_of_their_slices_by_port_name() {
    let mut context = context();
    context.workloads.push(Workload {
        namespace: label("shop"),
        name: label("web-0"),
        service_account: label("web"),
        labels: Default::default(),
        address: "127.0.1.1".parse().unwrap(),
        ports: vec![8080],
        mesh: "127.0.1.1:15008".parse().unwrap(),
        locality: Locality::new("eu-west-1", "eu-west-1a"),
    });
    let services = local_services(&objects(&format!("{BASE}{SLICES}")), &context);
    let web = &services[&ServiceKey::cluster(label("shop"), label("web"))];
    assert_eq!(web.service.addresses, ["10.0.0.1".parse::<IpAddr>().unwrap()]);
    assert_eq!(web.endpoints.ports.len(), 1);
    let by_ip = |ip: &str| {
        let address = format!("{ip}:8080").parse().unwrap();
        let mut all = web.endpoints.ports[0].endpoints.iter();
        let found = all
            .find(|e| matches!(e.target, EndpointTarget::Local { address: a, .. } if a == address));
        found.unwrap().clone()
    };
    let first = by_ip("127.0.1.1");
    assert_eq!(first.identity.unwrap().as_str(), "spiffe://aws.demo/ns/shop/sa/web");
    assert_eq!(first.locality, Locality::new("eu-west-1", "us-east-1b"));
    assert_eq!(first.hostname, Some(label("web-0")));
    assert_eq!(first.health, Health::Ready, "the better of two slices counts");
    let EndpointTarget::Local { mesh: Some(mesh), .. } = first.target else { panic!() };
    assert_eq!(mesh.0.port(), 15008);
    assert_eq!(by_ip("127.0.1.2").health, Health::Draining);
    assert_eq!(by_ip("127.0.1.3").health, Health::NotReady);
    let plain = by_ip("127.0.1.4");
    assert_eq!((plain.health, plain.identity), (Health::Ready, None));
    assert_eq!(plain.locality, Locality::new("us-east-1", "us-east-1a"));
    let ids: BTreeSet<_> = web.endpoints.ports[0].endpoints.iter().map(|e| &e.id).collect();
    assert_eq!(ids.len(), 4);
    let head = &services[&ServiceKey::cluster(label("shop"), label("head"))];
    assert!(head.service.headless && head.service.addresses.is_empty());
}

#[test]
fn ids_of_endpoints_are_stable() {
    let id = || {
        let services = local_services(&objects(&format!("{BASE}{SLICES}")), &context());
        let web = &services[&ServiceKey::cluster(label("shop"), label("web"))];
        web.endpoints.ports[0].endpoints[0].id.to_string()
    };
    assert_eq!(id(), id());
    assert_eq!(id().len(), 32);
}

#[test]
fn policies_of_istio_arrive_unchanged() {
    let text = "apiVersion: security.istio.io/v1beta1\nkind: PeerAuthentication\nmetadata: {name: default, namespace: shop}\n\
        spec: {selector: {matchLabels: {app: web}}, mtls: {mode: STRICT}, portLevelMtls: {8080: {mode: DISABLE}, 9090: {mode: UNSET}}}\n";
    let translation = run(text);
    let [Resource::PeerAuthentication(policy)] = &translation.resources[..] else { panic!() };
    assert_eq!(policy.name, "shop/default");
    assert_eq!(policy.mode, Some(isthmus_model::MtlsMode::Strict));
    assert_eq!(policy.ports.len(), 1);
}

#[test]
fn the_same_input_gives_the_same_translation() {
    let text = with_route("  rules: [{backendRefs: [{name: web, port: 80}]}]");
    let objects = objects(&format!("{text}{SLICES}"));
    assert_eq!(translate(&objects, &context()), translate(&objects, &context()));
    let keys =
        translate(&objects, &context()).resources.iter().map(Resource::key).collect::<Vec<_>>();
    let distinct: BTreeSet<_> = keys.iter().collect();
    assert_eq!(distinct.len(), keys.len());
}

#[test]
fn a_link_must_name_another_cluster_and_trust_domain() {
    let link = |name: &str, domain: &str| {
        format!(
            "---\napiVersion: isthmus.io/v1alpha1\nkind: ClusterLink\nmetadata: {{name: {name}}}\n\
             spec: {{trustDomain: {domain}, bundle: {{inline: '{{\"keys\":[]}}'}}}}\n"
        )
    };
    let text =
        [link("aws", "x.demo"), link("b", "aws.demo"), link("c", "c.demo"), link("d", "c.demo")];
    let found = problems(&run(&text.concat()));
    let want = [
        "ClusterLink aws: Accepted is false: Invalid: the link names this cluster itself",
        "ClusterLink b: Accepted is false: Invalid: the link names the trust domain of this cluster",
        "ClusterLink d: Accepted is false: Conflicted: ClusterLink c names the same cluster or trust domain",
    ];
    assert_eq!(found, want);
}

#[test]
fn tcp_and_udp_on_one_number_have_endpoints_of_their_own_and_tcp_goes_first() {
    let text = "apiVersion: v1\nkind: Service\nmetadata: {name: dns}\n\
        spec: {ports: [{name: udp, port: 53, protocol: UDP}, {name: tcp, port: 53}]}\n\
        ---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: s, labels: {kubernetes.io/service-name: dns}}\n\
        addressType: IPv4\nports: [{name: udp, port: 5353, protocol: UDP}, {name: tcp, port: 5354}]\nendpoints: [{addresses: [127.0.0.1]}]\n";
    let services = local_services(&objects(text), &context());
    let ports = &services.values().next().unwrap().endpoints.ports;
    let targets: Vec<_> = ports
        .iter()
        .map(|group| match group.endpoints[0].target {
            EndpointTarget::Local { address, .. } => (group.transport, address.port()),
            EndpointTarget::Remote { .. } => panic!("the endpoint is local"),
        })
        .collect();
    assert_eq!(targets, [(Transport::Tcp, 5354), (Transport::Udp, 5353)]);
}
