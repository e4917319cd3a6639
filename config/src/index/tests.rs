use super::*;
use crate::kind::Kind;

fn documents(files: &[(&str, &str)]) -> Vec<SourceDocument> {
    files.iter().flat_map(|(file, text)| SourceDocument::split(file, text)).collect()
}

fn errors(files: &[(&str, &str)]) -> Vec<String> {
    let outcome = Index::new().apply(&documents(files), 0);
    outcome.errors.iter().map(ToString::to_string).collect()
}

fn service(name: &str, port: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{port: {port}}}]}}\n"
    )
}

fn route(rule: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
         metadata: {{name: r, namespace: shop}}\nspec:\n  rules:\n  - {rule}\n"
    )
}

/// Each class of error, with what the message says after file and document.
#[test]
#[expect(clippy::too_many_lines, reason = "one table of cases")]
fn every_error_names_file_document_object_and_field() {
    let gateway = |listener: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: g}}\n\
             spec: {{gatewayClassName: c, listeners: [{listener}]}}\n"
        )
    };
    let link = |spec: &str| {
        format!(
            "apiVersion: isthmus.io/v1alpha1\nkind: ClusterLink\nmetadata: {{name: l}}\nspec: {spec}\n"
        )
    };
    let slice = |rest: &str| {
        format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: s}}\n{rest}\n"
        )
    };
    let cases: Vec<(String, &str)> = vec![
        (service("a", "x"), "Service default/a: spec.ports[0].port: invalid type"),
        (service("a", "70000"), "Service default/a: spec.ports[0].port: \"70000\" is not a port"),
        (service("a_b", "1"), "Service default/a_b: metadata.name: object name \"a_b\" has"),
        (
            service("a", "1").replace("ports", "prots"),
            "Service default/a: spec.prots: unknown field `prots`",
        ),
        (
            service("a", "1").replace("v1", "v2"),
            "Service default/a: apiVersion: \"v2\" is not a version",
        ),
        (service("a", "1").replace("{name: a}", "{}"), "metadata.name: is required"),
        ("kind: Service".into(), "apiVersion: is required"),
        ("- just\n- a list".into(), "the document is not an object"),
        ("a: [1".into(), "a[0]: line 6: "),
        ("a: 1\na: 2".into(), "line 7: duplicate mapping key: a"),
        (
            route("matches: [{path: {type: Exact, value: x}}]"),
            "HTTPRoute shop/r: spec.rules[0].matches[0].path.value: must begin with '/'",
        ),
        (
            route("matches: [{path: {type: Glob, value: /}}]"),
            "HTTPRoute shop/r: spec.rules[0].matches[0].path.type: \"Glob\" is not Exact",
        ),
        (
            route("matches: [{path: {type: RegularExpression, value: '('}}]"),
            "HTTPRoute shop/r: spec.rules[0].matches[0].path.value: regular expression",
        ),
        (
            route("matches: [{headers: [{name: A, value: x}, {name: a, value: y}]}]"),
            "HTTPRoute shop/r: spec.rules[0].matches[0].headers[1].name: \"a\" appears twice",
        ),
        (
            route("matches: [{method: get}]"),
            "HTTPRoute shop/r: spec.rules[0].matches[0].method: \"get\" is not a method",
        ),
        (
            route("backendRefs: [{name: a}]"),
            "HTTPRoute shop/r: spec.rules[0].backendRefs[0].port: is required",
        ),
        (
            route("backendRefs: [{name: a, port: 1, weight: -1}]"),
            "HTTPRoute shop/r: spec.rules[0].backendRefs[0].weight: \"-1\" is not a weight",
        ),
        (
            route("timeouts: {request: 1s, backendRequest: 2s}"),
            "HTTPRoute shop/r: spec.rules[0].timeouts.backendRequest: must not be longer",
        ),
        (
            route("timeouts: {request: 1.5s}"),
            "HTTPRoute shop/r: spec.rules[0].timeouts.request: \"1.5s\" is not a duration",
        ),
        (
            route("filters: [{type: RequestRedirect}]"),
            "HTTPRoute shop/r: spec.rules[0].filters[0].requestRedirect: is required",
        ),
        (
            route("filters: [{type: Nope}]"),
            "HTTPRoute shop/r: spec.rules[0].filters[0].type: \"Nope\" is not a filter type",
        ),
        (
            route(
                "filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: Transfer-Encoding, value: x}]}}]",
            ),
            "HTTPRoute shop/r: spec.rules[0].filters[0].requestHeaderModifier.set[0].name: \"Transfer-Encoding\" is not a header",
        ),
        (
            route(
                "filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}]\n    matches: [{path: {type: Exact, value: /a}}]",
            ),
            "HTTPRoute shop/r: spec.rules[0].filters[0].urlRewrite.path.replacePrefixMatch: needs a rule",
        ),
        (
            route(
                "filters: [{type: RequestRedirect, requestRedirect: {}}]\n    backendRefs: [{name: a, port: 1}]",
            ),
            "HTTPRoute shop/r: spec.rules[0].backendRefs: must be empty",
        ),
        (
            gateway("{name: a, port: 80, protocol: HTTP, hostname: 10.0.0.1}"),
            "Gateway default/g: spec.listeners[0].hostname: \"10.0.0.1\" is not a hostname",
        ),
        (
            gateway("{name: a, port: 443, protocol: HTTPS}"),
            "Gateway default/g: spec.listeners[0].tls: is required",
        ),
        (
            gateway("{name: a, port: 80, protocol: HTTP}, {name: a, port: 81, protocol: HTTP}"),
            "Gateway default/g: spec.listeners[1].name: \"a\" appears twice",
        ),
        (
            gateway("{name: a, port: 80, protocol: h_p}"),
            "Gateway default/g: spec.listeners[0].protocol: \"h_p\" is not HTTP",
        ),
        (
            slice("addressType: IPv4\nendpoints: [{addresses: [169.254.169.254]}]"),
            "EndpointSlice default/s: endpoints[0].addresses[0]: \"169.254.169.254\" is not a unicast",
        ),
        (
            slice("addressType: IPv6\nendpoints: [{addresses: ['::ffff:10.0.0.1']}]"),
            "EndpointSlice default/s: endpoints[0].addresses[0]: ",
        ),
        (
            slice("addressType: IPv4\nendpoints: [{addresses: ['::1']}]"),
            "EndpointSlice default/s: endpoints[0].addresses[0]: ",
        ),
        (
            link("{trustDomain: Bad, bundle: {sha256: x}}"),
            "ClusterLink l: spec.trustDomain: trust domain \"Bad\"",
        ),
        (link("{trustDomain: a, bundle: {}}"), "ClusterLink l: spec.bundle: must have exactly one"),
        (
            link("{trustDomain: a, bundle: {inline: '{}'}}"),
            "ClusterLink l: spec.bundle.inline: must be a JSON Web Key Set",
        ),
        (
            link("{trustDomain: a, bundle: {configMapRef: {name: m}}}"),
            "ClusterLink l: spec.bundle.configMapRef: ConfigMap isthmus-system/m key \"bundle.json\" does not exist",
        ),
        (
            link(
                "{trustDomain: a, bundle: {inline: '{\"keys\":[]}'}, import: [{namespaces: [], names: ['*']}]}",
            ),
            "ClusterLink l: spec.import[0].namespaces: must have at least one",
        ),
    ];
    let mut wrong = Vec::new();
    for (text, want) in cases {
        let good = service("good", "80");
        let found = errors(&[("a/b.yaml", &format!("{good}---\n{text}"))]);
        assert_eq!(found.len(), 1, "{text}\n{found:?}");
        let want = format!("a/b.yaml document 2: {want}");
        if !found[0].starts_with(&want) {
            wrong.push(format!("\nfound {}\nwant  {want}", found[0]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.concat());
}

#[test]
fn a_broken_object_keeps_its_last_good_version_and_leaves_the_others_alone() {
    let mut index = Index::new();
    let both = |port: &str, other: &str| {
        let text = format!("{}---\n{}", service("a", port), service("b", other));
        documents(&[("f.yaml", &text)])
    };
    assert!(index.apply(&both("80", "1"), 0).changed);
    let outcome = index.apply(&both("0", "2"), 1);
    assert!(outcome.changed && outcome.errors.len() == 1);
    let port = |index: &Index, name: &str| {
        let key = crate::kind::ObjectKey::new("default", name).unwrap();
        index.objects().services.get(&key).map(|service| service.ports[0].number)
    };
    assert_eq!((port(&index, "a"), port(&index, "b")), (Some(80), Some(2)));
    // It stays for as long as the object is broken, and a repair replaces it.
    assert!(!index.apply(&both("0", "2"), 2).changed);
    assert_eq!(port(&index, "a"), Some(80));
    index.apply(&both("81", "2"), 3);
    assert_eq!(port(&index, "a"), Some(81));
    // What is gone from the files is gone.
    assert!(index.apply(&documents(&[("f.yaml", &service("b", "2"))]), 4).changed);
    assert_eq!((port(&index, "a"), port(&index, "b")), (None, Some(2)));
}

#[test]
fn a_document_or_file_that_cannot_be_read_keeps_what_it_gave() {
    let mut index = Index::new();
    let text = format!("{}---\n{}", service("a", "1"), service("b", "2"));
    index.apply(&documents(&[("f.yaml", &text), ("g.yaml", &service("c", "3"))]), 0);
    assert_eq!(index.objects().len(), 3);

    let broken = format!("{}---\nspec: [\n", service("a", "9"));
    let outcome =
        index.apply(&documents(&[("f.yaml", &broken), ("g.yaml", &service("c", "3"))]), 1);
    assert_eq!((index.objects().len(), outcome.errors.len()), (3, 1), "{outcome:?}");

    let unreadable = vec![SourceDocument::unreadable("f.yaml", "permission denied")];
    let outcome = index.apply(&unreadable, 2);
    assert_eq!(index.objects().len(), 2, "the objects of the absent file are removed");
    assert_eq!(outcome.errors[0].to_string(), "f.yaml: the file cannot be read: permission denied");
    let overfull = vec![SourceDocument::unreadable("", "there are more than 10000 files")];
    assert!(!index.apply(&overfull, 3).changed, "the whole source stays");
    index.apply(&[], 4);
    assert!(index.objects().is_empty() && index.created().is_empty());
}

#[test]
fn of_two_documents_with_one_object_the_first_counts_and_the_error_names_both() {
    let files = [("b.yaml", service("a", "2")), ("a.yaml", service("a", "1"))];
    let files: Vec<_> = files.iter().map(|(file, text)| (*file, text.as_str())).collect();
    let mut index = Index::new();
    let outcome = index.apply(&documents(&files), 0);
    assert_eq!(
        outcome.errors[0].to_string(),
        "b.yaml document 1: Service default/a: the same object is in a.yaml document 1, which is used"
    );
    let reference =
        ObjectRef { kind: Kind::Service, namespace: "default".into(), name: "a".into() };
    assert_eq!(index.origin(&reference).unwrap().to_string(), "a.yaml document 1");
    assert_eq!(index.objects().services.values().next().unwrap().ports[0].number, 1);
}

#[test]
fn creation_times_survive_edits_and_restarts() {
    let mut index = Index::new();
    let stamped = service("b", "1")
        .replace("{name: b}", "{name: b, creationTimestamp: '2026-01-01T00:00:00Z'}");
    let text = format!("{}---\n{stamped}", service("a", "1"));
    index.apply(&documents(&[("f.yaml", &text)]), 100);
    let created = |index: &Index| -> Vec<i64> {
        index.objects().services.values().map(|service| service.created).collect()
    };
    assert_eq!(created(&index), [100, 1_767_225_600]);
    assert_eq!(index.created().len(), 1);

    // Through JSON, as a state file has it.
    let saved = serde_json::to_string(index.created()).unwrap();
    let mut index = Index::with_created(serde_json::from_str(&saved).unwrap());
    index.apply(&documents(&[("moved.yaml", &text)]), 200);
    assert_eq!(created(&index), [100, 1_767_225_600]);
    index.apply(&[], 300);
    index.apply(&documents(&[("f.yaml", &service("a", "1"))]), 400);
    assert_eq!(created(&index), [400]);
}

#[test]
fn a_secret_is_read_and_no_error_shows_its_values() {
    let secret = |rest: &str| {
        format!(
            "apiVersion: v1\nkind: Secret\ntype: kubernetes.io/tls\nmetadata: {{name: s}}\n{rest}\n"
        )
    };
    let cases = [
        (
            "data: {tls.crt: aHVudGVyMg==, tls.key: aHVudGVyMg==}",
            "data[tls.crt]: has no certificate",
        ),
        ("data: {tls.crt: 'hunter2!!', tls.key: aHVudGVyMg==}", "data[tls.crt]: is not base64"),
        (
            "stringData: {tls.crt: hunter2, tls.key: hunter2}",
            "stringData[tls.crt]: has no certificate",
        ),
        ("data: {tls.crt: aHVudGVyMg==}\nstringData: 'hunter2'", "stringData: has the wrong type"),
        ("stringData: {tls.crt: [hunter2]}", "stringData.tls.crt: has the wrong type"),
        ("stringData: {tls.crt: !!int hunter2}", "s.yaml document 1"),
        ("data: {tls.key: aHVudGVyMg==}", "data[tls.crt]: is required"),
    ];
    for (rest, want) in cases {
        let found = errors(&[("s.yaml", &secret(rest))]);
        assert_eq!(found.len(), 1, "{rest}");
        assert!(found[0].contains(want), "{found:?} {want}");
        assert!(!found[0].contains("hunter2") && !found[0].contains("aHVu"), "{found:?}");
    }
    let opaque = secret("stringData: {password: hunter2}").replace("kubernetes.io/tls", "Opaque");
    let mut index = Index::new();
    assert!(index.apply(&documents(&[("s.yaml", &opaque)]), 0).errors.is_empty());
    assert!(!format!("{index:?}").contains("hunter2"));
}

#[test]
fn a_bundle_comes_from_a_config_map_and_stays_when_that_is_gone() {
    let link = "apiVersion: isthmus.io/v1alpha1\nkind: ClusterLink\nmetadata: {name: gcp}\n\
        spec: {trustDomain: gcp.demo, addresses: ['127.0.0.1:15443'], \
        bundle: {configMapRef: {name: gcp}}, export: [{namespaces: ['*'], names: [web], ports: [80]}]}\n";
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: gcp, namespace: isthmus-system}\n\
        data: {bundle.json: '{\"keys\":[]}'}\n";
    let mut index = Index::new();
    let outcome = index.apply(&documents(&[("l.yaml", link), ("m.yaml", map)]), 0);
    assert!(outcome.errors.is_empty(), "{outcome:?}");
    let objects = Arc::clone(index.objects());
    let found = objects.cluster_links.values().next().unwrap();
    assert_eq!(found.jwks(), Some("{\"keys\":[]}"));
    assert!(found.dial && found.cluster.as_str() == "gcp");
    let label = |text| isthmus_model::Label::new(text).unwrap();
    assert!(found.exports(&label("shop"), &label("web"), Some(80)));
    assert!(found.exports(&label("shop"), &label("web"), None));
    assert!(!found.exports(&label("shop"), &label("web"), Some(81)));
    assert!(!found.exports(&label("shop"), &label("api"), Some(80)));
    assert!(!found.imports(&label("shop"), &label("web"), None), "an empty list denies");

    let outcome = index.apply(&documents(&[("l.yaml", link)]), 1);
    assert_eq!(outcome.errors.len(), 1);
    assert!(index.objects().cluster_links.values().next().unwrap().jwks().is_some());
}

#[test]
fn kinds_that_are_not_read_are_noticed_and_are_no_errors() {
    let text = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec: {anything: 1}\n\
        ---\napiVersion: v1\nkind: ServiceAccount\nmetadata: {name: a}\n\
        ---\n# only a comment\n---\nnull\n";
    let outcome = Index::new().apply(&documents(&[("a.yaml", text)]), 0);
    assert!(outcome.errors.is_empty() && !outcome.changed);
    let kinds: Vec<_> = outcome.notices.iter().map(|notice| notice.kind.as_str()).collect();
    assert_eq!(kinds, ["apps/v1 Deployment", "v1 ServiceAccount"]);
}

#[test]
fn an_object_from_a_watch_and_one_from_a_file_are_the_same() {
    let value = serde_json::json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "a", "uid": "x", "resourceVersion": "1", "managedFields": [{}]},
        "spec": {"ports": [{"port": 80, "targetPort": "http", "nodePort": 30000}],
                 "selector": {"app": "a"}, "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"]},
        "status": {"loadBalancer": {}}
    });
    let text = value.to_string();
    let mut a = Index::new();
    let mut b = Index::new();
    a.apply(&[SourceDocument::object(Origin::new("watch", 1), value)], 5);
    b.apply(&documents(&[("a.json", &text)]), 5);
    assert_eq!(a.objects(), b.objects());
    assert_eq!(a.objects().services.len(), 1);
}

#[test]
fn an_object_of_a_server_may_have_newer_fields_and_one_of_a_file_may_not() {
    let endpoint = |last: u8| {
        serde_json::json!({"addresses": [format!("10.0.0.{last}")],
            "conditions": {"ready": true, "quick": true}, "lane": {"a": 1}})
    };
    let endpoints: Vec<_> = (1..=200).map(endpoint).collect();
    let objects = [
        serde_json::json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": "a", "shard": "x"}, "endpoints": endpoints, "later": true,
        }),
        serde_json::json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "extra": {},
            "spec": {"ports": [{"port": 80, "lane": 1}], "internalTrafficPolicy": "Local",
                     "ipFamilies": ["IPv6", "IPv4"], "ipFamilyPolicy": "RequireDualStack",
                     "trafficDistribution": "PreferSameZone", "unheardOf": [1]},
        }),
        serde_json::json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": {"name": "r"}, "spec": {"rules": [{"matches": [
                {"path": {"type": "Exact", "value": "/", "fold": true}}], "quota": {}}]},
        }),
    ];
    let origin = |n| Origin::new("watch", n);
    let documents = (1..).zip(&objects).map(|(n, o)| SourceDocument::object(origin(n), o.clone()));
    let mut index = Index::new();
    let outcome = index.apply(&documents.collect::<Vec<_>>(), 0);
    assert_eq!(outcome.errors, []);
    let objects_read = index.objects();
    assert_eq!(objects_read.endpoint_slices.values().next().unwrap().endpoints.len(), 200);
    let service = objects_read.services.values().next().unwrap();
    assert_eq!(service.internal_traffic_policy.as_deref(), Some("Local"));
    assert_eq!(service.traffic_distribution.as_deref(), Some("PreferSameZone"));
    let families: Vec<_> = service.ip_families.iter().map(|family| family.label()).collect();
    assert_eq!(families, ["IPv6", "IPv4"]);
    for object in objects {
        let errors = errors(&[("a.json", &object.to_string())]);
        assert!(errors[0].contains("unknown field"), "{errors:?}");
    }
}

#[test]
fn a_server_cannot_make_up_for_a_field_of_the_wrong_type() {
    let value = serde_json::json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "a"}, "spec": {"ports": [{"port": "x", "new": 1}]}});
    let outcome = Index::new().apply(&[SourceDocument::object(Origin::new("watch", 1), value)], 0);
    assert!(outcome.errors[0].to_string().contains("spec.ports[0].port: invalid type"));
}

#[test]
fn bombs_are_errors_of_their_document() {
    let mut laughs = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for n in 1..12 {
        laughs.push_str(&format!("a{n}: &a{n} [{}]\n", format!("*a{}, ", n - 1).repeat(9)));
    }
    let deep = format!("a: {}", "[".repeat(200_000));
    let nested: String = (0..20_000).map(|n| format!("{}a:\n", " ".repeat(n % 1000))).collect();
    let wide = format!("a: [{}]", "1,".repeat(700_000));
    let key = format!("? {}\n: 1", "x".repeat(1_400_000));
    for bomb in [laughs, deep, nested, wide, key] {
        let text = format!("{}---\n{bomb}", service("a", "80"));
        let mut index = Index::new();
        let outcome = index.apply(&documents(&[("b.yaml", &text)]), 0);
        assert_eq!(index.objects().len(), 1);
        assert_eq!(outcome.errors.len(), 1, "{:?}", &bomb[..20]);
        assert_eq!(outcome.errors[0].origin.document, 2);
        assert!(outcome.errors[0].to_string().len() < 1000);
    }
}

#[test]
fn text_of_the_user_cannot_forge_lines_of_a_log() {
    let text = "apiVersion: v1\nkind: Service\nmetadata: {name: \"a\\nERROR forged\"}\nspec: {\"x\\ny\": 1}\n";
    for error in errors(&[("a\n.yaml", text)]) {
        assert!(!error.contains('\n'), "{error}");
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn no_text_panics(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..400)) {
        let text = String::from_utf8_lossy(&bytes);
        Index::new().apply(&SourceDocument::split("x", &text), 0);
    }

    #[test]
    fn no_yaml_like_text_panics(parts in proptest::collection::vec(proptest::sample::select(vec![
        "apiVersion: v1\n", "kind: Service\n", "kind: HTTPRoute\n", "kind: List\n", "items:\n", "metadata:\n",
        "apiVersion: gateway.networking.k8s.io/v1\n", "  name: a\n", "spec:\n", "  rules:\n", "  - matches:\n",
        "    - path: {type: Exact, value: /}\n", "  ports:\n", "  - port: 80\n", "---\n", "...\n", "&a ", "*a ",
        "- ", "? ", ": ", "{", "}", "[", "]", "|\n", ">-\n", "\"", "'", "!!binary ", "<<: *a\n", "\t", "%YAML 1.2\n",
        "null", "~", "1e999", "0x", "\u{feff}", "\u{0}", "# c\n", "\r",
    ]), 0..40)) {
        Index::new().apply(&SourceDocument::split("x", &parts.concat()), 0);
    }
}
