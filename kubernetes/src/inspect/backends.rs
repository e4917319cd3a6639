//! Services that something leads to and that nobody stands behind.

use std::collections::{BTreeMap, BTreeSet};

use isthmus_config::CONTROLLER_NAME;
use serde_json::Value;

use super::judge::Finding;
use super::objects::ROUTES;
use super::{Inspection, items, name_of, text};

/// Services without a ready endpoint that routes of ours or exports name. One that does
/// not exist is the business of a condition.
pub(super) fn findings(inspection: &Inspection) -> Vec<Finding> {
    if !inspection.has_read("Service") || !inspection.has_read("EndpointSlice") {
        return Vec::new();
    }
    let ready = ready(inspection);
    let mut findings = Vec::new();
    for ((namespace, name), users) in named(inspection) {
        let Some(service) = inspection.find("Service", namespace, name) else { continue };
        let is_external = text(service, "/spec/type") == "ExternalName";
        if is_external || ready.contains(&(namespace, name)) {
            continue;
        }
        let users: Vec<String> = users.into_iter().collect();
        let problem = format!("has no ready endpoint, and {} leads to it", users.join(", "));
        let advice = match service.pointer("/spec/selector").and_then(Value::as_object) {
            Some(selector) if !selector.is_empty() => {
                let labels: Vec<String> = selector
                    .iter()
                    .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
                    .collect();
                format!("see `kubectl -n {namespace} get pods -l {}`", labels.join(","))
            }
            _ => "it has no selector: its EndpointSlices are somebody's to write".to_owned(),
        };
        findings.push(Finding::problem(name_of(service), problem, advice));
    }
    findings
}

/// The Services of routes that we serve and of exports, with who names them.
fn named(inspection: &Inspection) -> BTreeMap<(&str, &str), BTreeSet<String>> {
    let mut named: BTreeMap<(&str, &str), BTreeSet<String>> = BTreeMap::new();
    for route in ROUTES.iter().flat_map(|kind| inspection.of(kind)) {
        let is_ours = items(route, "/status/parents")
            .iter()
            .any(|parent| text(parent, "/controllerName") == CONTROLLER_NAME);
        if !is_ours {
            continue;
        }
        let own = text(route, "/metadata/namespace");
        for rule in items(route, "/spec/rules") {
            for backend in items(rule, "/backendRefs").iter().filter(|it| is_service(it)) {
                let other = text(backend, "/namespace");
                let namespace = if other.is_empty() { own } else { other };
                let users = named.entry((namespace, text(backend, "/name"))).or_default();
                users.insert(name_of(route));
            }
        }
    }
    for export in inspection.of("ServiceExport") {
        let key = (text(export, "/metadata/namespace"), text(export, "/metadata/name"));
        named.entry(key).or_default().insert(name_of(export));
    }
    named
}

/// Whether a backend is a Service with a weight.
fn is_service(backend: &Value) -> bool {
    let kind = text(backend, "/kind");
    text(backend, "/group").is_empty()
        && (kind.is_empty() || kind == "Service")
        && backend.get("weight").and_then(Value::as_u64) != Some(0)
}

/// The Services with an endpoint that is ready.
///
/// Spec: `discovery.k8s.io/v1` EndpointConditions: `ready` that is not given is true.
fn ready(inspection: &Inspection) -> BTreeSet<(&str, &str)> {
    let mut ready = BTreeSet::new();
    for slice in inspection.of("EndpointSlice") {
        let is_ready = |endpoint: &Value| {
            endpoint.pointer("/conditions/ready").and_then(Value::as_bool).unwrap_or(true)
        };
        if items(slice, "/endpoints").iter().any(is_ready) {
            let labels = slice.pointer("/metadata/labels");
            let name = labels.and_then(|labels| labels.get("kubernetes.io/service-name")?.as_str());
            ready.insert((text(slice, "/metadata/namespace"), name.unwrap_or_default()));
        }
    }
    ready
}
