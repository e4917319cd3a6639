//! Where a Gateway is reached, by what the server says of its Service and Deployment.
//!
//! A Service of type LoadBalancer is at the addresses that its load balancer gives; one
//! of type NodePort at those of the nodes that answer for it ([`nodes`]); one of type
//! ClusterIP, and one of type NodePort without such nodes, at its addresses inside the
//! cluster.

use std::collections::BTreeMap;

use isthmus_config::objects::{Gateway, GatewayAddress, GatewayServiceType};
use serde_json::Value;

use crate::provision::nodes;
use crate::provision::place::{GatewayPlace, PlaceAddress, PlaceProblem};
use crate::provision::set::Set;
use crate::source::{NodeState, PodState};

/// What is known of one Gateway of a set.
pub(super) struct Seen<'s, 'o> {
    pub(super) set: &'s Set<'o>,
    pub(super) gateway: &'s Gateway,
    pub(super) service: Option<&'s Value>,
    pub(super) deployment: Option<&'s Value>,
    pub(super) nodes: &'s [NodeState],
    pub(super) pods: &'s [PodState],
}

/// Our objects, by kind, namespace and name.
pub(super) type ByName<'v> = BTreeMap<(&'v str, &'v str, &'v str), &'v Value>;

/// Orders our objects for [`find`].
pub(super) fn by_name<'v>(observed: &[&'v Value]) -> ByName<'v> {
    let named = observed.iter().copied().filter_map(|object| {
        let text = |pointer| object.pointer(pointer).and_then(Value::as_str);
        let name = (text("/kind")?, text("/metadata/namespace")?, text("/metadata/name")?);
        Some((name, object))
    });
    named.collect()
}

/// The object of a kind that has the name of the set.
pub(super) fn find<'v>(observed: &ByName<'v>, kind: &str, set: &Set<'_>) -> Option<&'v Value> {
    observed.get(&(kind, set.namespace.as_str(), set.name.as_str())).copied()
}

/// Where a Gateway is reached.
pub(super) fn place(seen: &Seen<'_, '_>) -> GatewayPlace {
    let has_ports = !seen.set.ports().is_empty();
    let addresses = if has_ports { addresses(seen) } else { Vec::new() };
    let available = seen.deployment.and_then(|found| found.pointer("/status/availableReplicas"));
    let available = available.and_then(Value::as_u64).unwrap_or_default();
    let pods_available = u32::try_from(available).unwrap_or(u32::MAX);
    let problem = problem_of_ports(seen, has_ports)
        .or_else(|| problem_of_requested(seen, &addresses))
        .or_else(|| problem_of_service(seen, &addresses))
        .or_else(|| (pods_available == 0).then(|| problem_of_pods(seen)));
    GatewayPlace { addresses, pods_available, problem }
}

fn addresses(seen: &Seen<'_, '_>) -> Vec<PlaceAddress> {
    let list = |pointer: &str| {
        let found = seen.service.and_then(|service| service.pointer(pointer));
        found.and_then(Value::as_array).into_iter().flatten()
    };
    let inside = || {
        let given = list("/spec/clusterIPs");
        // A headless Service has the text None here, which is no address.
        given.filter_map(|ip| ip.as_str()?.parse().ok()).map(PlaceAddress::Ip).collect()
    };
    match seen.set.parameters.service.kind {
        GatewayServiceType::LoadBalancer => list("/status/loadBalancer/ingress")
            .filter_map(|entry| {
                let text = |field: &str| entry.get(field).and_then(Value::as_str);
                let ip = text("ip").and_then(|ip| ip.parse().ok()).map(PlaceAddress::Ip);
                ip.or_else(|| text("hostname").map(|name| PlaceAddress::Hostname(name.to_owned())))
            })
            .collect(),
        GatewayServiceType::ClusterIp => inside(),
        GatewayServiceType::NodePort => {
            let found = nodes::addresses(seen);
            if found.is_empty() { inside() } else { found }
        }
    }
}

fn problem_of_ports(seen: &Seen<'_, '_>, has_ports: bool) -> Option<PlaceProblem> {
    if let Some(port) = seen.set.reserved_port() {
        let message = format!(
            "port {port} is used by the pods of the gateway themselves: \
             give the listener another port"
        );
        return Some(PlaceProblem::new("Invalid", message));
    }
    let message = "no listener has a port that can be served, so there is no Service";
    (!has_ports).then(|| PlaceProblem::new("Invalid", message))
}

/// Spec: Gateway API reason `AddressNotUsable`: an address of the spec cannot be bound.
fn problem_of_requested(seen: &Seen<'_, '_>, given: &[PlaceAddress]) -> Option<PlaceProblem> {
    let is_missing = |address: &&GatewayAddress| match address {
        GatewayAddress::Ip(address) => !given.contains(&PlaceAddress::Ip(*address)),
        GatewayAddress::Unsupported(_) => false,
    };
    let GatewayAddress::Ip(address) = seen.gateway.addresses.iter().find(is_missing)? else {
        return None;
    };
    let message = format!("Service {} has not got the address {address}", service_name(seen));
    Some(PlaceProblem::new("AddressNotUsable", message))
}

fn problem_of_service(seen: &Seen<'_, '_>, given: &[PlaceAddress]) -> Option<PlaceProblem> {
    if seen.service.is_none() {
        let message = format!("Service {} does not exist yet", service_name(seen));
        return Some(PlaceProblem::new("Pending", message));
    }
    let why = match seen.set.parameters.service.kind {
        GatewayServiceType::LoadBalancer => "no load balancer has given it one",
        GatewayServiceType::ClusterIp | GatewayServiceType::NodePort => "the server gave it none",
    };
    given.is_empty().then(|| {
        let message = format!("Service {} has no address: {why}", service_name(seen));
        PlaceProblem::new("AddressNotAssigned", message)
    })
}

fn problem_of_pods(seen: &Seen<'_, '_>) -> PlaceProblem {
    let name = format!("Deployment {}/{}", seen.set.namespace, seen.set.name);
    let Some(deployment) = seen.deployment else {
        return PlaceProblem::new("Pending", format!("{name} does not exist yet"));
    };
    let number = |pointer| deployment.pointer(pointer).and_then(Value::as_i64).unwrap_or_default();
    let is_current = number("/status/observedGeneration") >= number("/metadata/generation");
    match failure(deployment).filter(|_| is_current) {
        Some(why) => {
            PlaceProblem::new("NoResources", format!("{name} has no available pod: {why}"))
        }
        None => PlaceProblem::new("Pending", format!("{name} has no available pod yet")),
    }
}

/// Why a Deployment does not come to its pods, if it has given up.
///
/// Spec: Kubernetes "Failed Deployment": ReplicaFailure is true (a quota, an admission),
/// or Progressing is false.
fn failure(deployment: &Value) -> Option<&str> {
    let conditions = deployment.pointer("/status/conditions")?.as_array()?;
    let failed = conditions.iter().find(|condition| {
        let text = |field: &str| condition.get(field).and_then(Value::as_str);
        matches!(
            (text("type"), text("status")),
            (Some("ReplicaFailure"), Some("True")) | (Some("Progressing"), Some("False"))
        )
    })?;
    failed.get("message").and_then(Value::as_str)
}

fn service_name(seen: &Seen<'_, '_>) -> String {
    format!("{}/{}", seen.set.namespace, seen.set.name)
}
