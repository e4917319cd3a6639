use isthmus_model::{ClusterId, ListenerProtocol, SpiffeId, TrustDomain};

use super::*;
use crate::translate::testing::{PEM, listeners, objects, resources};
use crate::translate::{ListenerStatus, translate};

fn context() -> Context {
    Context::new(ClusterId::new("aws").unwrap(), TrustDomain::new("aws.demo").unwrap())
}

fn run(text: &str) -> Translation {
    translate(&objects(text), &context())
}

fn served(translation: &Translation) -> Vec<&str> {
    listeners(translation).iter().map(|listener| listener.name.as_str()).collect()
}

fn status<'t>(translation: &'t Translation, parent: &str, name: &str) -> &'t ListenerStatus {
    let mut all = translation.listeners.iter();
    all.find(|s| s.parent.to_string() == parent && s.name.as_str() == name).unwrap()
}

fn kinds(status: &ListenerStatus) -> Vec<&str> {
    status.supported_kinds.iter().map(|kind| kind.kind.as_str()).collect()
}

fn has(translation: &Translation, text: &str) {
    let found: Vec<String> = translation.conditions.iter().map(ToString::to_string).collect();
    assert!(found.iter().any(|condition| condition.contains(text)), "{text}\n{found:#?}");
}

fn has_not(translation: &Translation, text: &str) {
    let found: Vec<String> = translation.conditions.iter().map(ToString::to_string).collect();
    assert!(!found.iter().any(|condition| condition.contains(text)), "{text}\n{found:#?}");
}

const CLASS: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: isthmus}
spec: {controllerName: isthmus.io/gateway-controller}
";

/// A Gateway `infra/edge` with listeners and further fields of its spec, and a Secret.
fn gateway(listeners: &[&str], more: &str) -> String {
    named_gateway("edge", listeners, more)
}

fn named_gateway(name: &str, listeners: &[&str], more: &str) -> String {
    let listeners: String = listeners.iter().map(|text| format!("  - {{{text}}}\n")).collect();
    format!(
        "{CLASS}---\napiVersion: v1\nkind: Secret\nmetadata: {{name: own, namespace: infra}}{PEM}---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: {name}, namespace: infra, generation: 4}}
spec:
  gatewayClassName: isthmus
{more}
  listeners:
{listeners}"
    )
}

fn set(name: &str, namespace: &str, listeners: &[&str]) -> String {
    let listeners: String = listeners.iter().map(|text| format!("  - {{{text}}}\n")).collect();
    format!(
        "---
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {{name: {name}, namespace: {namespace}, generation: 2}}
spec:
  parentRef: {{name: edge, namespace: infra}}
  listeners:
{listeners}"
    )
}

fn route(name: &str, parent: &str) -> String {
    format!(
        "---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}, namespace: infra}}
spec: {{parentRefs: [{parent}], rules: [{{backendRefs: [{{name: nope, port: 80}}]}}]}}
"
    )
}

const ALLOW_SAME: &str = "  allowedListeners: {namespaces: {from: Same}}";

#[test]
fn every_protocol_becomes_a_listener_with_its_kinds_of_routes() {
    let translation = run(&gateway(
        &[
            "name: http, port: 80, protocol: HTTP",
            "name: https, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: own}]}",
            "name: tcp, port: 53, protocol: TCP",
            "name: udp, port: 53, protocol: UDP",
            "name: end, port: 8443, protocol: TLS, tls: {certificateRefs: [{name: own}]}",
            "name: pass, port: 9443, protocol: TLS, tls: {mode: Passthrough}",
        ],
        "",
    ));
    let protocols: Vec<_> = listeners(&translation).iter().map(|l| l.protocol).collect();
    let want = [
        ListenerProtocol::Http,
        ListenerProtocol::Https,
        ListenerProtocol::Tcp,
        ListenerProtocol::Udp,
        ListenerProtocol::TlsTerminate,
        ListenerProtocol::TlsPassthrough,
    ];
    assert_eq!(protocols, want);
    let of = |name| kinds(status(&translation, "Gateway infra/edge", name));
    assert_eq!(of("http"), ["HTTPRoute", "GRPCRoute"]);
    assert_eq!(of("https"), ["HTTPRoute", "GRPCRoute"]);
    assert_eq!((of("tcp"), of("udp")), (vec!["TCPRoute"], vec!["UDPRoute"]));
    assert_eq!((of("end"), of("pass")), (vec!["TLSRoute"], vec!["TLSRoute"]));
    assert!(!translation.conditions.iter().any(|c| c.is_problem()));
}

#[test]
fn listeners_of_one_family_share_a_port_when_hostnames_differ() {
    let https = "protocol: HTTPS, tls: {certificateRefs: [{name: own}]}";
    let end = "protocol: TLS, tls: {certificateRefs: [{name: own}]}";
    let pass = "protocol: TLS, tls: {mode: Passthrough}";
    let at = |name: &str, host: &str, rest: &str| {
        format!("name: {name}, port: 443, hostname: {host}.example, {rest}")
    };
    let (a, b, c) = (at("a", "a", https), at("b", "b", end), at("c", "c", pass));
    assert_eq!(served(&run(&gateway(&[&a, &b, &c], ""))).len(), 3);
    let same = at("c", "a", pass);
    let translation = run(&gateway(&[&a, &b, &same], ""));
    assert_eq!(served(&translation), ["infra/edge/b"]);
    has(&translation, "listener a: Programmed is false: HostnameConflict");
    has(&translation, "listener c: Conflicted is true: HostnameConflict");
    let tcp = "name: t, port: 443, protocol: TCP";
    let translation = run(&gateway(&[&a, tcp], ""));
    assert!(served(&translation).is_empty());
    has(&translation, "listener t: Accepted is false: ProtocolConflict");
    let udp = "name: u, port: 443, protocol: UDP";
    assert_eq!(served(&run(&gateway(&[&a, udp], ""))).len(), 2);
    let other = "name: v, port: 443, protocol: UDP";
    assert!(served(&run(&gateway(&[udp, other], ""))).is_empty());
}

#[test]
fn kinds_that_cannot_attach_are_named_and_left_out() {
    let translation = run(&gateway(
        &[
            "name: a, port: 80, protocol: HTTP, allowedRoutes: {kinds: [{kind: HTTPRoute}, {kind: Bad}]}",
            "name: b, port: 81, protocol: TLS, tls: {mode: Passthrough}, allowedRoutes: {kinds: [{kind: TCPRoute}]}",
            "name: c, port: 82, protocol: x.example/y",
        ],
        "",
    ));
    has(&translation, "listener a: ResolvedRefs is false: InvalidRouteKinds");
    has(&translation, "listener b: ResolvedRefs is false: InvalidRouteKinds");
    has(&translation, "listener c: Accepted is false: UnsupportedProtocol");
    has(&translation, "Gateway infra/edge: Accepted is true: ListenersNotValid");
    let of = |name| kinds(status(&translation, "Gateway infra/edge", name));
    assert_eq!(of("a"), ["HTTPRoute"]);
    assert!(of("b").is_empty() && of("c").is_empty());
    let only = run(&gateway(&["name: c, port: 82, protocol: INVALID"], ""));
    has(&only, "Gateway infra/edge: Accepted is false: ListenersNotValid");
}

#[test]
fn accepted_routes_are_counted_once_also_at_listeners_that_cannot_be_used() {
    let text = gateway(
        &[
            "name: a, port: 80, protocol: HTTP",
            "name: b, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: gone}]}",
            "name: c, port: 81, protocol: TCP",
        ],
        "",
    ) + &route("one", "{name: edge}, {name: edge, sectionName: a}")
        + &route("two", "{name: edge, sectionName: b}")
        + &route("three", "{name: edge, sectionName: c}");
    let translation = run(&text);
    let of = |name| status(&translation, "Gateway infra/edge", name).attached_routes;
    assert_eq!((of("a"), of("b"), of("c")), (1, 2, 0));
    has(&translation, "HTTPRoute infra/three parentRefs[0]: Accepted is false: NotAllowed");
}

#[test]
fn conditions_carry_the_generation_of_their_object() {
    let listener = "name: a, port: 80, protocol: HTTP";
    let translation = run(&gateway(&[listener], ""));
    for condition in &translation.conditions {
        let want = if condition.object.kind == Kind::Gateway { 4 } else { 0 };
        assert_eq!(condition.observed_generation, want, "{condition}");
    }
}

fn roots(name: &str, namespace: &str, text: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: {namespace}}}\ndata: {{{text}}}\n"
    )
}

const ROOT: &str = "ca.crt: \"-----BEGIN CERTIFICATE-----\\nMAA=\\n-----END CERTIFICATE-----\\n\"";

fn frontend(default: &str, per_port: &str) -> String {
    format!(
        "  tls: {{frontend: {{default: {{validation: {{caCertificateRefs: [{default}]}}}}, perPort: [{per_port}]}}}}"
    )
}

const HTTPS: &str = "name: a, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: own}]}";

#[test]
fn clients_are_validated_at_https_listeners_by_the_configuration_of_their_port() {
    let other = HTTPS.replace("name: a, port: 443", "name: b, port: 8443");
    let none = HTTPS.replace("name: a, port: 443", "name: d, port: 9443");
    let tls = frontend(
        "{group: '', kind: ConfigMap, name: ca}",
        "{port: 8443, tls: {validation: {mode: AllowInsecureFallback, caCertificateRefs: [{group: '', kind: ConfigMap, name: ca}]}}}, {port: 9443, tls: {}}",
    );
    let http = "name: c, port: 80, protocol: HTTP";
    let text = gateway(&[HTTPS, &other, http, &none], &tls) + &roots("ca", "infra", ROOT);
    let translation = run(&text);
    let found: Vec<_> = listeners(&translation)
        .iter()
        .map(|l| l.client_validation.as_ref().map(|v| v.insecure_fallback))
        .collect();
    assert_eq!(found, [Some(false), Some(true), None, None]);
    has(
        &translation,
        "Gateway infra/edge: InsecureFrontendValidationMode is true: ConfigurationChanged",
    );
}

#[test]
fn an_https_listener_without_usable_roots_is_not_served_and_http_goes_on() {
    let cases = [
        ("{group: '', kind: ConfigMap, name: gone}", "InvalidCACertificateRef"),
        ("{group: '', kind: ConfigMap, name: empty}", "InvalidCACertificateRef"),
        ("{group: '', kind: ConfigMap, name: text}", "InvalidCACertificateRef"),
        ("{group: '', kind: Secret, name: own}", "InvalidCACertificateKind"),
        ("{group: '', kind: ConfigMap, name: ca, namespace: far}", "RefNotPermitted"),
    ];
    let maps = roots("empty", "infra", "") + &roots("text", "infra", "ca.crt: x");
    let maps = maps + &roots("ca", "far", ROOT);
    for (reference, reason) in cases {
        let http = "name: c, port: 80, protocol: HTTP";
        let text = gateway(&[HTTPS, http], &frontend(reference, "")) + &maps;
        let translation = run(&text);
        has(&translation, &format!("listener a: ResolvedRefs is false: {reason}"));
        has(&translation, "listener a: Accepted is false: NoValidCACertificate");
        assert_eq!(served(&translation), ["infra/edge/c"]);
        has_not(&translation, "InsecureFrontendValidationMode");
    }
    let grant = "---\napiVersion: gateway.networking.k8s.io/v1\nkind: ReferenceGrant\nmetadata: {name: g, namespace: far}\n\
        spec: {from: [{group: gateway.networking.k8s.io, kind: Gateway, namespace: infra}], to: [{group: '', kind: ConfigMap}]}\n";
    let text = gateway(&[HTTPS], &frontend(cases[4].0, "")) + &maps + grant;
    assert_eq!(served(&run(&text)), ["infra/edge/a"]);
}

#[test]
fn the_certificate_for_backends_must_be_a_secret_that_may_be_used() {
    let with = |reference: &str| {
        let more = format!("  tls: {{backend: {{clientCertificateRef: {reference}}}}}");
        run(&gateway(&["name: a, port: 80, protocol: HTTP"], &more))
    };
    let translation = with("{name: own}");
    assert_eq!(listeners(&translation)[0].backend_certificate.as_deref(), Some("infra/own"));
    assert!(resources(&translation).any(|r| matches!(r, Resource::Certificate(_))));
    has(&translation, "Gateway infra/edge: ResolvedRefs is true");
    for (reference, reason) in [
        ("{name: gone}", "InvalidClientCertificateRef"),
        ("{group: x.io, kind: Secret, name: own}", "InvalidClientCertificateRef"),
        ("{kind: ConfigMap, name: own}", "InvalidClientCertificateRef"),
        ("{name: own, namespace: far}", "RefNotPermitted"),
    ] {
        let translation = with(reference);
        has(&translation, &format!("Gateway infra/edge: ResolvedRefs is false: {reason}"));
        has(&translation, "Gateway infra/edge: Accepted is true: Accepted");
        assert_eq!(listeners(&translation)[0].backend_certificate, None);
    }
}

#[test]
fn parameters_that_nothing_reads_refuse_the_gateway() {
    let more = "  infrastructure: {parametersRef: {group: x.io, kind: Y, name: z}}";
    let translation = run(&gateway(&["name: a, port: 80, protocol: HTTP"], more));
    has(&translation, "Gateway infra/edge: Accepted is false: InvalidParameters");
    assert!(served(&translation).is_empty());
}

#[test]
fn a_gateway_allows_no_listener_set_unless_it_says_so() {
    let own = ["name: a, port: 80, protocol: HTTP"];
    let sets = set("near", "infra", &["name: b, port: 81, protocol: HTTP"])
        + &set("far", "apps", &["name: b, port: 82, protocol: HTTP"]);
    let attached = |more: &str| {
        let translation = run(&(gateway(&own, more) + &sets));
        let count = translation.gateways[0].attached_listener_sets;
        (translation, count)
    };
    for more in ["", "  allowedListeners: {namespaces: {from: None}}", "  allowedListeners: {}"] {
        let (translation, count) = attached(more);
        assert_eq!((count, served(&translation).len()), (0, 1));
        has(&translation, "ListenerSet infra/near: Accepted is false: NotAllowed");
        has(&translation, "ListenerSet infra/near: Programmed is false: NotAllowed");
        has(&translation, "Gateway infra/edge: Accepted is true: Accepted");
    }
    let (translation, count) = attached(ALLOW_SAME);
    assert_eq!((count, served(&translation).len()), (1, 2));
    has(&translation, "ListenerSet infra/near: Programmed is true");
    has(&translation, "ListenerSet apps/far: Accepted is false: NotAllowed");
    let near = ObjectRef::namespaced(Kind::ListenerSet, &ObjectKey::new("infra", "near").unwrap());
    let of = |c: &&crate::translate::ObjectCondition| c.object == near;
    assert!(translation.conditions.iter().filter(of).all(|c| c.observed_generation == 2));
    let apps = "  allowedListeners: {namespaces: {from: Selector, selector: {matchLabels: {kubernetes.io/metadata.name: apps}}}}";
    let (translation, count) = attached(apps);
    assert_eq!((count, served(&translation)), (1, vec!["infra/edge/a", "listenerset/apps/far/b"]));
    assert_eq!(attached("  allowedListeners: {namespaces: {from: All}}").1, 2);
}

#[test]
fn a_gateway_goes_before_its_sets_and_an_older_set_before_a_younger() {
    let http =
        |name: &str| format!("name: {name}, port: 80, protocol: HTTP, hostname: {name}.example");
    let (a, b, c, d) = (http("a"), http("b"), http("c"), http("d"));
    let tcp = "name: t, port: 80, protocol: TCP";
    let text = gateway(&[&a, &b], ALLOW_SAME)
        + &set("set-1", "infra", &[&c, &b, tcp])
        + &set("set-2", "infra", &[&b])
        + &set("set-3", "infra", &[&d, &c])
        + &set("set-4", "infra", &[tcp]);
    let translation = run(&text);
    let want =
        ["infra/edge/a", "infra/edge/b", "listenerset/infra/set-1/c", "listenerset/infra/set-3/d"];
    assert_eq!(served(&translation), want);
    for part in ["Accepted is false", "Programmed is false", "Conflicted is true"] {
        has(&translation, &format!("ListenerSet infra/set-1 listener b: {part}: HostnameConflict"));
        has(&translation, &format!("ListenerSet infra/set-1 listener t: {part}: ProtocolConflict"));
    }
    has(&translation, "ListenerSet infra/set-1: Accepted is true: ListenersNotValid");
    has(&translation, "ListenerSet infra/set-1: Programmed is true: Programmed");
    has(&translation, "ListenerSet infra/set-2: Accepted is false: ListenersNotValid");
    has(&translation, "ListenerSet infra/set-4: Programmed is false: ListenersNotValid");
    has(&translation, "ListenerSet infra/set-3 listener c: Conflicted is true: HostnameConflict");
    has(&translation, "Gateway infra/edge listener b: Conflicted is false: NoConflicts");
    assert_eq!(translation.gateways[0].attached_listener_sets, 2);
}

#[test]
fn an_older_set_wins_whatever_its_name() {
    let b = "name: b, port: 81, protocol: HTTP";
    let old = set("zz", "infra", &[b])
        .replace("{name: zz,", "{creationTimestamp: '1970-01-01T00:00:01Z', name: zz,");
    let text = gateway(&["name: a, port: 80, protocol: HTTP"], ALLOW_SAME)
        + &set("aa", "infra", &[b])
        + &old;
    let translation = run(&text);
    assert_eq!(served(&translation), ["infra/edge/a", "listenerset/infra/zz/b"]);
    has(&translation, "ListenerSet infra/aa listener b: Conflicted is true: HostnameConflict");
}

#[test]
fn routes_attach_to_a_set_and_to_a_gateway_apart() {
    let text = gateway(&["name: a, port: 80, protocol: HTTP"], ALLOW_SAME)
        + &set("more", "infra", &["name: b, port: 81, protocol: HTTP"])
        + &route("one", "{kind: ListenerSet, name: more}")
        + &route("two", "{name: edge, sectionName: b}")
        + &route("three", "{name: edge}, {kind: ListenerSet, name: more, sectionName: b}")
        + &route("four", "{kind: ListenerSet, name: gone}");
    let translation = run(&text);
    assert_eq!(status(&translation, "Gateway infra/edge", "a").attached_routes, 1);
    assert_eq!(status(&translation, "ListenerSet infra/more", "b").attached_routes, 2);
    has(&translation, "HTTPRoute infra/two parentRefs[0]: Accepted is false: NoMatchingParent");
    has(&translation, "HTTPRoute infra/four parentRefs[0]: Accepted is false: NoMatchingParent");
}

#[test]
fn a_set_needs_a_grant_of_its_own_for_certificates_elsewhere() {
    let allow = "  allowedListeners: {namespaces: {from: All}}";
    let listener = "name: b, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: own, namespace: infra}]}";
    let grant = |kind: &str| {
        format!(
            "---\napiVersion: gateway.networking.k8s.io/v1\nkind: ReferenceGrant\nmetadata: {{name: g, namespace: infra}}\n\
        spec: {{from: [{{group: gateway.networking.k8s.io, kind: {kind}, namespace: apps}}], to: [{{group: '', kind: Secret}}]}}\n"
        )
    };
    let text =
        gateway(&["name: a, port: 80, protocol: HTTP"], allow) + &set("s", "apps", &[listener]);
    let translation = run(&(text.clone() + &grant("Gateway")));
    has(&translation, "ListenerSet apps/s listener b: ResolvedRefs is false: RefNotPermitted");
    has(&translation, "ListenerSet apps/s: Accepted is false: ListenersNotValid");
    assert_eq!(served(&run(&(text + &grant("ListenerSet")))).len(), 2);
}

#[test]
fn gateways_with_processes_of_their_own_do_not_clash() {
    let listener = "name: a, port: 80, protocol: HTTP";
    let address = "  addresses: [{value: 192.0.2.1}]";
    let second = named_gateway("other", &[listener], address);
    let second = second.split_once("---\napiVersion: v1\nkind: Secret").unwrap().1;
    let second = second.split_once("---\napiVersion: gateway").unwrap().1;
    let text = gateway(&[listener], address) + "---\napiVersion: gateway" + second;
    let objects = objects(&text);
    let mut context = context();
    assert_eq!(served(&translate(&objects, &context)).len(), 1);
    for name in ["edge", "other"] {
        let key = ObjectKey::new("infra", name).unwrap();
        let domain = TrustDomain::new("aws.demo").unwrap();
        let account = isthmus_model::Label::new(name).unwrap();
        let identity = SpiffeId::workload(&domain, &key.namespace, &account);
        context.ingress.served_by.insert(key, identity);
    }
    let translation = translate(&objects, &context);
    let found = listeners(&translation);
    assert_eq!(found.len(), 2);
    assert!(found.iter().all(|l| l.addresses.is_empty() && l.served_by.is_some()));
}
