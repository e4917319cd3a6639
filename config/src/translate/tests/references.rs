//! What the backends of routes mean.

use isthmus_model::route::RouteParent;
use isthmus_model::{BackendTarget, Service, ServiceKey};

use super::*;

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
