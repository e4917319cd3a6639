//! The Service before the pods of a set.

use std::collections::BTreeSet;
use std::net::IpAddr;

use isthmus_config::objects::GatewayServiceType;
use serde_json::{Value, json};

use crate::provision::set::{Protocols, Set};

/// The Service; `None` without a port, since the server takes no such Service, and while
/// one must go that has an address which is no longer asked for.
///
/// `observed` is the Service as the server has it: its first family cannot be changed.
pub(super) fn service(set: &Set<'_>, uid: &str, observed: Option<&Value>) -> Option<Value> {
    let ports = set.ports();
    if ports.is_empty() {
        return None;
    }
    if observed.is_some_and(|service| has_another_address(set, service)) {
        // Not desired in this turn, so it is deleted; the next turn makes it anew.
        return None;
    }
    let asked = &set.parameters.service;
    let mut spec = json!({
        "type": asked.kind.label(),
        "selector": set.selector(),
        "ports": port_entries(&ports),
        "ipFamilyPolicy": "PreferDualStack",
    });
    if let Some(class) = &asked.load_balancer_class {
        spec["loadBalancerClass"] = json!(class);
    }
    if let Some(policy) = asked.external_traffic_policy {
        spec["externalTrafficPolicy"] = json!(policy.label());
    }
    let requested = set.requested();
    if let (GatewayServiceType::LoadBalancer, Some(first)) = (asked.kind, requested.first()) {
        // Spec: Service.spec.loadBalancerIP takes one address. A second that the load
        // balancer does not give is said in the status of the Gateway.
        spec["loadBalancerIP"] = json!(first.to_string());
        if let Some(family) = only_family(&requested, observed) {
            // Else a load balancer of two families gives an address nobody asked for.
            spec["ipFamilyPolicy"] = json!("SingleStack");
            spec["ipFamilies"] = json!([family]);
        }
    }
    Some(json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": set.metadata(uid, &asked.labels, &asked.annotations),
        "spec": spec,
    }))
}

/// Whether another address was asked for when the Service got its own: load balancers keep
/// what they have given. One that has the right request and not the address is left alone,
/// or a load balancer that ignores requests would have it made anew for ever.
fn has_another_address(set: &Set<'_>, service: &Value) -> bool {
    let requested = set.requested();
    let (GatewayServiceType::LoadBalancer, Some(first)) =
        (set.parameters.service.kind, requested.first())
    else {
        return false;
    };
    let first = first.to_string();
    let given = service.pointer("/status/loadBalancer/ingress").and_then(Value::as_array);
    let given = given.map(Vec::as_slice).unwrap_or_default();
    let before = service.pointer("/spec/loadBalancerIP").and_then(Value::as_str);
    !given.is_empty()
        && before != Some(first.as_str())
        && given.iter().all(|ingress| ingress["ip"] != first.as_str())
}

fn port_entries(ports: &BTreeSet<(u16, Protocols)>) -> Vec<Value> {
    let entry = |(port, protocol): &(u16, Protocols)| {
        json!({
            "name": format!("{}-{port}", protocol.to_ascii_lowercase()),
            "port": port,
            "targetPort": port,
            "protocol": protocol,
        })
    };
    ports.iter().map(entry).collect()
}

/// The family of all addresses, unless the Service already has another as its first.
fn only_family(addresses: &[IpAddr], observed: Option<&Value>) -> Option<&'static str> {
    let family = |address: &IpAddr| if address.is_ipv4() { "IPv4" } else { "IPv6" };
    let first = family(addresses.first()?);
    let same = addresses.iter().all(|address| family(address) == first);
    let pointer = "/spec/ipFamilies/0";
    let has = observed.and_then(|service| service.pointer(pointer)?.as_str());
    (same && has.is_none_or(|has| has == first)).then_some(first)
}
