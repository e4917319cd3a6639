//! The addresses of nodes at which a Service of type NodePort is reached.
//!
//! Every node answers at its port, so every node is an address of the Gateway; but with
//! `externalTrafficPolicy: Local` only those answer that have a ready pod of the gateway.
//! While there is none, all are named: the Gateway is not programmed then anyhow, and its
//! addresses do not go and come with its first pod. Addresses of a family that the Service
//! has not got are left out.
//!
//! Nodes that are not ready are named only while no other is. A status takes a few addresses
//! only, so their order decides which are seen: by the nodes' names. Equal clusters give
//! equal lists.

use std::collections::BTreeSet;
use std::net::IpAddr;

use isthmus_config::objects::TrafficPolicy;
use serde_json::Value;

use crate::provision::place::PlaceAddress;
use crate::provision::reach::Seen;
use crate::source::NodeState;

/// The addresses of the nodes that answer for a set, each once; empty where none is known.
pub(super) fn addresses(seen: &Seen<'_, '_>) -> Vec<PlaceAddress> {
    let with_pods = match seen.set.parameters.service.external_traffic_policy {
        Some(TrafficPolicy::Local) => with_pods(seen),
        Some(TrafficPolicy::Cluster) | None => BTreeSet::new(),
    };
    let answers = |node: &&NodeState| with_pods.is_empty() || with_pods.contains(&*node.name);
    let mut nodes: Vec<&NodeState> = seen.nodes.iter().filter(answers).collect();
    if nodes.iter().any(|node| node.is_ready) {
        nodes.retain(|node| node.is_ready);
    }
    nodes.sort_by_key(|node| &node.name);
    let families = families(seen);
    let mut known = BTreeSet::new();
    let found = nodes.into_iter().flat_map(|node| node.addresses.iter().copied());
    let found = found.filter(|ip| families.is_empty() || families.contains(family(ip)));
    found.filter(|ip| known.insert(*ip)).map(PlaceAddress::Ip).collect()
}

/// The nodes with a ready pod of the set.
fn with_pods<'s>(seen: &Seen<'s, '_>) -> BTreeSet<&'s str> {
    let wanted = seen.set.selector();
    let pods = seen.pods.iter().filter(|pod| {
        pod.is_ready
            && !pod.is_terminating
            && pod.namespace == seen.set.namespace.as_str()
            && wanted.iter().all(|(key, value)| pod.labels.get(key) == Some(value))
    });
    pods.map(|pod| pod.node.as_str()).collect()
}

/// The families of the Service; empty until the server has given it one.
fn families<'s>(seen: &Seen<'s, '_>) -> BTreeSet<&'s str> {
    let families = seen.service.and_then(|service| service.pointer("/spec/ipFamilies")?.as_array());
    families.into_iter().flatten().filter_map(Value::as_str).collect()
}

fn family(address: &IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}
