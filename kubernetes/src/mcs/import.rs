//! ServiceImports.
//!
//! What exports of other clusters say is theirs: a label or annotation that the server
//! would refuse is left out, since it would take the whole import with it, and so is one
//! by which we or mcs-api know objects.

use std::collections::BTreeMap;
use std::net::IpAddr;

use isthmus_config::objects::IpFamily;
use isthmus_federation::mcs::ImportPort;
use isthmus_federation::proto::SessionAffinity;
use isthmus_model::Transport;
use serde_json::{Map, Value, json};

use crate::apply::MANAGED_LABEL;
use crate::mcs::names::DERIVED_ANNOTATION;
use crate::mcs::{Import, World};

/// The ServiceImport.
pub(super) fn object(world: &World<'_>, import: &Import<'_>, is_refused: bool) -> Value {
    let exported = &import.status.metadata;
    let mut annotations = kept(&exported.annotations, |_| true);
    if !import.service.headless && !is_refused {
        annotations.insert(DERIVED_ANNOTATION.to_owned(), json!(import.derived));
    }
    let mut metadata = json!({ "namespace": import.name.namespace, "name": import.name.name });
    let labels = kept(&exported.labels, is_label_value);
    for (field, map) in [("labels", labels), ("annotations", annotations)] {
        if !map.is_empty() {
            metadata[field] = Value::Object(map);
        }
    }
    json!({
        "apiVersion": world.import_version,
        "kind": "ServiceImport",
        "metadata": metadata,
        "spec": spec(world, import),
    })
}

fn spec(world: &World<'_>, import: &Import<'_>) -> Value {
    let traffic = &import.status.traffic;
    let kind = if import.service.headless { "Headless" } else { "ClusterSetIP" };
    let ports: Vec<Value> = import.status.ports.iter().map(port).collect();
    let mut spec = json!({ "type": kind, "ports": ports });
    affinity(&mut spec, traffic.session_affinity);
    if let Some(policy) = &traffic.internal_traffic_policy {
        spec["internalTrafficPolicy"] = json!(policy);
    }
    if let Some(distribution) = &traffic.traffic_distribution {
        spec["trafficDistribution"] = json!(distribution);
    }
    let families = if import.service.headless {
        // The families of the exported Service; those of this cluster when it is of an
        // older release that does not say.
        let exported: Vec<&str> = traffic.ip_families.iter().map(|f| f.label()).collect();
        let own = world.families.iter().map(|family| family.label());
        if exported.is_empty() { own.collect() } else { exported }
    } else {
        let addresses = one_of_each_family(&import.service.addresses);
        if !addresses.is_empty() {
            spec["ips"] = json!(addresses);
        }
        addresses.iter().map(|address| IpFamily::of(*address).label()).collect()
    };
    if !families.is_empty() {
        spec["ipFamilies"] = json!(families);
    }
    spec
}

fn port(port: &ImportPort) -> Value {
    let port = &port.port;
    let mut value = json!({ "port": port.number, "protocol": protocol(port.transport) });
    if let Some(name) = &port.name {
        value["name"] = json!(name);
    }
    if let Some(app_protocol) = &port.app_protocol {
        value["appProtocol"] = json!(app_protocol);
    }
    value
}

/// Writes `sessionAffinity` and its configuration.
pub(super) fn affinity(spec: &mut Value, affinity: SessionAffinity) {
    match affinity {
        SessionAffinity::ClientIp { timeout_seconds } => {
            spec["sessionAffinity"] = json!("ClientIP");
            spec["sessionAffinityConfig"] =
                json!({ "clientIP": { "timeoutSeconds": timeout_seconds } });
        }
        SessionAffinity::None => spec["sessionAffinity"] = json!("None"),
    }
}

pub(super) fn protocol(transport: Transport) -> &'static str {
    match transport {
        Transport::Sctp => "SCTP",
        Transport::Tcp => "TCP",
        Transport::Udp => "UDP",
    }
}

/// Spec: `ips` has at most one address of each family, in the order of `ipFamilies`.
fn one_of_each_family(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let mut kept: Vec<IpAddr> = Vec::new();
    for address in addresses {
        if !kept.iter().any(|known| IpFamily::of(*known) == IpFamily::of(*address)) {
            kept.push(*address);
        }
    }
    kept
}

fn kept(map: &BTreeMap<String, String>, is_value: impl Fn(&str) -> bool) -> Map<String, Value> {
    let good = |(key, value): &(&String, &String)| {
        is_qualified_name(key) && !is_reserved(key) && is_value(value)
    };
    map.iter().filter(good).map(|(key, value)| (key.clone(), json!(value))).collect()
}

fn is_reserved(key: &str) -> bool {
    let group = key.split_once('/').map_or("", |(group, _)| group);
    key == MANAGED_LABEL
        || RESERVED_GROUPS.iter().any(|reserved| {
            group == *reserved
                || group.strip_suffix(reserved).is_some_and(|front| front.ends_with('.'))
        })
}

/// Spec: Kubernetes "qualified name": an optional DNS subdomain and a slash, then at most
/// 63 letters, digits, `-`, `_` and `.`, the first and last a letter or digit.
pub(super) fn is_qualified_name(text: &str) -> bool {
    let (prefix, name) = match text.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    let is_prefix = prefix.is_none_or(|prefix| {
        prefix.len() <= PREFIX_MAX
            && prefix.split('.').all(|part| {
                let is_lower = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
                part.starts_with(is_lower)
                    && part.ends_with(is_lower)
                    && part.chars().all(|c| is_lower(c) || c == '-')
            })
    });
    is_prefix && !name.is_empty() && is_label_value(name)
}

/// Spec: Kubernetes label values: as the name above, or empty.
fn is_label_value(text: &str) -> bool {
    let is_edge = |c: char| c.is_ascii_alphanumeric();
    text.is_empty()
        || (text.len() <= LABEL_MAX
            && text.starts_with(is_edge)
            && text.ends_with(is_edge)
            && text.chars().all(|c| is_edge(c) || matches!(c, '-' | '_' | '.')))
}

/// The groups of labels and annotations by which objects are known.
const RESERVED_GROUPS: &[&str] =
    &["isthmus.io", "multicluster.kubernetes.io", "kubectl.kubernetes.io"];
const LABEL_MAX: usize = 63;
const PREFIX_MAX: usize = 253;
