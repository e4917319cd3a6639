//! PeerAuthentications and BackendTLSPolicies.

use isthmus_model::BackendRoots;

use super::kinds::{one, reasons};
use super::*;

#[test]
fn policies_of_istio_arrive_unchanged() {
    let text = "apiVersion: security.istio.io/v1beta1\nkind: PeerAuthentication\nmetadata: {name: default, namespace: shop}\n\
        spec: {selector: {matchLabels: {app: web}}, mtls: {mode: STRICT}, portLevelMtls: {8080: {mode: DISABLE}, 9090: {mode: UNSET}}}\n";
    let translation = run(text);
    let [Resource::PeerAuthentication(policy)] = resources(&translation).collect::<Vec<_>>()[..]
    else {
        panic!()
    };
    assert_eq!(policy.name, "shop/default");
    assert_eq!(policy.mode, Some(isthmus_model::MtlsMode::Strict));
    assert_eq!(policy.ports.len(), 1);
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
    let translation = one("HTTPRoute", spec);
    let found: Vec<_> = resources(&translation)
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

#[test]
fn the_ancestors_of_a_policy_are_the_gateways_that_speak_tls_for_routes_of_whatever_kind() {
    let policy = "{apiVersion: gateway.networking.k8s.io/v1, kind: BackendTLSPolicy, metadata: {name: p, namespace: shop}, spec: {targetRefs: [{group: '', kind: Service, name: web}], validation: {hostname: a.example, wellKnownCACertificates: System}}}";
    let ancestors = |kind: &str, rest: &str, backend: &str| {
        let spec = format!(
            "{{parentRefs: [{{name: edge}}]{rest}, rules: [{{backendRefs: [{{name: web, port: {backend}}}]}}]}}}}\n---\n{policy}"
        );
        let translation = one(kind, &spec[..spec.len() - 1]);
        let of_policy = translation.conditions.iter();
        let of_policy =
            of_policy.filter(|it| it.object.kind == crate::kind::Kind::BackendTlsPolicy);
        of_policy.map(ToString::to_string).collect::<Vec<_>>()
    };
    let said = [
        "BackendTLSPolicy shop/p at Gateway shop/edge: Accepted is true: Accepted",
        "BackendTLSPolicy shop/p at Gateway shop/edge: ResolvedRefs is true: ResolvedRefs",
    ];
    assert_eq!(ancestors("HTTPRoute", "", "80"), said);
    assert_eq!(ancestors("GRPCRoute", "", "80"), said);
    assert_eq!(ancestors("TCPRoute", "", "80"), said);
    // What the listener passes through, and datagrams, have no use for a policy.
    let none = Vec::<String>::new();
    assert_eq!(ancestors("TLSRoute", ", hostnames: [a.example.com]", "80"), none);
    assert_eq!(ancestors("UDPRoute", "", "53"), none);
}
