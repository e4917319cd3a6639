//! What an API server makes of a manifest before anybody can watch it.

use serde_json::{Map, Value, json};

/// The moment at which every object was created, in both forms.
pub(crate) const CREATED: &str = "2026-01-31T12:00:00Z";
pub(crate) const CREATED_UNIX: i64 = 1_769_860_800;

/// The object as a server of a newer release stores it: with what every server adds,
/// defaults, fields that are not known here, and a status.
pub(crate) fn stored(mut object: Value, number: usize) -> Value {
    metadata(&mut object, number);
    let kind = object["kind"].as_str().unwrap_or_default().to_owned();
    match kind.as_str() {
        "Gateway" | "ListenerSet" => listeners(&mut object),
        "GRPCRoute" | "HTTPRoute" | "TCPRoute" | "TLSRoute" | "UDPRoute" => {
            route(&mut object["spec"], &kind);
        }
        "EndpointSlice" => slice(&mut object),
        "Namespace" => namespace(&mut object),
        "Secret" => secret(&mut object),
        "Service" => service(&mut object),
        _ => {}
    }
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
        spec.insert("fieldOfANewerRelease".to_owned(), json!({"mode": "Fast"}));
    }
    if kind != "ConfigMap" && kind != "Secret" && kind != "EndpointSlice" {
        object["status"] = json!({"conditions": [{"type": "Ready", "status": "True", "reason": "R",
            "message": "", "lastTransitionTime": CREATED}], "newer": {"count": 1}});
    }
    object
}

fn metadata(object: &mut Value, number: usize) {
    let is_cluster_scoped =
        ["ClusterLink", "GatewayClass", "Namespace"].iter().any(|kind| object["kind"] == *kind);
    let applied = object.to_string();
    let metadata = fields(&mut object["metadata"]);
    if !is_cluster_scoped {
        metadata.entry("namespace").or_insert(json!("default"));
    }
    metadata.insert("uid".to_owned(), json!(format!("00000000-0000-4000-8000-{number:012}")));
    metadata.insert("resourceVersion".to_owned(), json!((1000 + number).to_string()));
    metadata.insert("generation".to_owned(), json!(3));
    metadata.insert("creationTimestamp".to_owned(), json!(CREATED));
    metadata.insert("managedFields".to_owned(), json!([{"manager": "kubectl", "fieldsV1": {}}]));
    let annotations = fields(metadata.entry("annotations").or_insert(json!({})));
    annotations
        .insert("kubectl.kubernetes.io/last-applied-configuration".to_owned(), json!(applied));
}

fn listeners(object: &mut Value) {
    for listener in entries(&mut object["spec"], "listeners") {
        let allowed = fields(fields(listener).entry("allowedRoutes").or_insert(json!({})));
        let namespaces = fields(allowed.entry("namespaces").or_insert(json!({})));
        namespaces.entry("from").or_insert(json!("Same"));
        if let Some(tls) = listener.get_mut("tls") {
            fields(tls).entry("mode").or_insert(json!("Terminate"));
            references(tls, "certificateRefs", &[("group", json!("")), ("kind", json!("Secret"))]);
        }
    }
}

fn route(spec: &mut Value, kind: &str) {
    let gateway = [("group", json!("gateway.networking.k8s.io")), ("kind", json!("Gateway"))];
    let service = [("group", json!("")), ("kind", json!("Service")), ("weight", json!(1))];
    references(spec, "parentRefs", &gateway);
    for rule in entries(spec, "rules") {
        references(rule, "backendRefs", &service);
        let path = || json!({"type": "PathPrefix", "value": "/"});
        if kind == "HTTPRoute" {
            fields(rule).entry("matches").or_insert(json!([{ "path": path() }]));
        }
        for matched in entries(rule, "matches") {
            let matched = fields(matched);
            if kind == "HTTPRoute" {
                let found = fields(matched.entry("path").or_insert_with(path));
                found.entry("type").or_insert(json!("PathPrefix"));
                found.entry("value").or_insert(json!("/"));
            }
            for list in ["headers", "queryParams"] {
                for entry in
                    matched.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten()
                {
                    fields(entry).entry("type").or_insert(json!("Exact"));
                }
            }
        }
    }
}

fn service(object: &mut Value) {
    let spec = fields(&mut object["spec"]);
    spec.entry("type").or_insert(json!("ClusterIP"));
    spec.entry("sessionAffinity").or_insert(json!("None"));
    for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        let port = fields(port);
        port.entry("protocol").or_insert(json!("TCP"));
        let target = port["port"].clone();
        port.entry("targetPort").or_insert(target);
    }
}

fn slice(object: &mut Value) {
    for port in entries(object, "ports") {
        let port = fields(port);
        port.entry("protocol").or_insert(json!("TCP"));
        port.entry("name").or_insert(json!(""));
    }
}

fn namespace(object: &mut Value) {
    let name = object["metadata"]["name"].clone();
    let metadata = fields(&mut object["metadata"]);
    let labels = fields(metadata.entry("labels").or_insert(json!({})));
    labels.insert("kubernetes.io/metadata.name".to_owned(), name);
    object["spec"] = json!({"finalizers": ["kubernetes"]});
}

/// `stringData` is written only.
fn secret(object: &mut Value) {
    use base64::Engine as _;
    let object = fields(object);
    let Some(Value::Object(texts)) = object.remove("stringData") else { return };
    let data = fields(object.entry("data").or_insert(json!({})));
    for (key, text) in texts {
        let text = text.as_str().unwrap_or_default();
        data.insert(key, json!(base64::engine::general_purpose::STANDARD.encode(text)));
    }
}

fn references(value: &mut Value, list: &str, defaults: &[(&str, Value)]) {
    for reference in entries(value, list) {
        for (field, default) in defaults {
            fields(reference).entry(*field).or_insert_with(|| default.clone());
        }
    }
}

fn entries<'v>(value: &'v mut Value, list: &str) -> impl Iterator<Item = &'v mut Value> {
    value.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten()
}

fn fields(value: &mut Value) -> &mut Map<String, Value> {
    value.as_object_mut().expect("the manifests have objects here")
}
