//! Listeners with their certificates.

use std::net::IpAddr;

use super::*;

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
    let certificates = resources(&translation);
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
