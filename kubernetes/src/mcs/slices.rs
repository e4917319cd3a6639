//! EndpointSlices of imports, one for each source cluster and IP family.
//!
//! Those of a ClusterSetIP hold the pods of our east-west gateway, at the port that means
//! the service's port. They say which cluster they stand for, as the specification wants;
//! which endpoint of which cluster is used is the gateway's choice for each connection.
//!
//! A headless import has slices for the pods of this cluster alone: the pods of others
//! cannot be reached at their addresses, and are never named to us.

use std::collections::BTreeSet;

use isthmus_config::objects::{AddressType, EndpointSlice, IpFamily, SliceEndpoint};
use isthmus_model::{ClusterId, Transport};
use serde_json::{Map, Value, json};

use crate::mcs::import::protocol;
use crate::mcs::names::{CLUSTER_LABEL, IMPORT_LABEL, PORTS_ANNOTATION, hash};
use crate::mcs::service::port_name;
use crate::mcs::{Import, World};
use crate::source::PodState;

/// The slices of an import of type ClusterSetIP.
pub(super) fn of_gateways(world: &World<'_>, import: &Import<'_>) -> Vec<Value> {
    let mut slices = Vec::new();
    let given: BTreeSet<IpFamily> =
        import.service.addresses.iter().map(|address| IpFamily::of(*address)).collect();
    let families = if given.is_empty() { &world.families } else { &given };
    for cluster in &import.status.clusters {
        let (ports, annotation) = ports(world, import, cluster);
        for family in families {
            let endpoints = endpoints(world, *family);
            let mut chunks: Vec<&[Value]> = endpoints.chunks(ENDPOINTS_MAX).collect();
            if chunks.is_empty() {
                // Without endpoints it still keeps the ports.
                chunks.push(&[]);
            }
            for (index, chunk) in chunks.into_iter().enumerate() {
                let family_name = family.label().to_lowercase();
                let number = if index == 0 { String::new() } else { format!("-{index}") };
                let name = format!("{}-{cluster}-{family_name}{number}", import.derived);
                let mut slice = slice(import, &name, cluster);
                slice["metadata"]["labels"][SERVICE_LABEL] = json!(import.derived);
                if !annotation.is_empty() {
                    slice["metadata"]["annotations"] = json!({ PORTS_ANNOTATION: annotation });
                }
                slice["addressType"] = json!(family.label());
                slice["ports"] = json!(ports);
                slice["endpoints"] = json!(chunk);
                slices.push(slice);
            }
        }
    }
    slices
}

/// The slices of a headless import: copies of those of the own Service.
pub(super) fn of_own_pods(world: &World<'_>, import: &Import<'_>) -> Vec<Value> {
    let configuration = &world.inputs.decided.configuration;
    let own = &configuration.context.cluster;
    if !import.status.clusters.contains(own) {
        return Vec::new();
    }
    let slices = configuration.objects.endpoint_slices.values().filter(|slice| {
        slice.key.namespace == import.name.namespace
            && slice.service.as_ref() == Some(&import.name.name)
            && slice.address_type != AddressType::Fqdn
    });
    slices.map(|original| copy(import, own, original)).collect()
}

fn copy(import: &Import<'_>, own: &ClusterId, original: &EndpointSlice) -> Value {
    let name = format!("{}-{own}-{}", import.derived, hash(original.key.name.as_str()));
    let mut slice = slice(import, &name, own);
    slice["addressType"] = json!(match original.address_type {
        AddressType::Fqdn => "FQDN",
        AddressType::Ipv4 => "IPv4",
        AddressType::Ipv6 => "IPv6",
    });
    let port = |port: &isthmus_config::objects::SlicePort| json!({ "name": port.name, "port": port.port, "protocol": protocol(port.transport) });
    slice["ports"] = original.ports.iter().map(port).collect();
    slice["endpoints"] = original.endpoints.iter().map(own_endpoint).collect();
    slice
}

fn own_endpoint(endpoint: &SliceEndpoint) -> Value {
    let conditions = endpoint.conditions;
    let mut value = json!({
        "addresses": endpoint.addresses,
        "conditions": {
            "ready": conditions.ready,
            "serving": conditions.serving,
            "terminating": conditions.terminating,
        },
    });
    if let Some(hostname) = &endpoint.hostname {
        value["hostname"] = json!(hostname);
    }
    if let Some(zone) = &endpoint.zone {
        value["zone"] = json!(zone);
    }
    let mut target = endpoint.target.split('/');
    if let (Some(kind), Some(namespace), Some(name)) = (target.next(), target.next(), target.next())
        && !kind.is_empty()
    {
        value["targetRef"] = json!({ "kind": kind, "namespace": namespace, "name": name });
    }
    value
}

fn slice(import: &Import<'_>, name: &str, cluster: &ClusterId) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "namespace": import.name.namespace,
            "name": name,
            "labels": {
                IMPORT_LABEL: import.name.name,
                CLUSTER_LABEL: cluster,
                MANAGER_LABEL: MANAGER,
            },
        },
    })
}

/// The ports that a cluster exposes, and the annotation that says which they are.
fn ports(world: &World<'_>, import: &Import<'_>, cluster: &ClusterId) -> (Vec<Value>, String) {
    let all = &import.status.ports;
    let (mut ports, mut pairs) = (Vec::new(), Vec::new());
    for port in all.iter().filter(|port| port.clusters.contains(cluster)) {
        if port.port.transport != Transport::Tcp {
            continue;
        }
        let key = (import.name.clone(), port.port.number);
        let Some(bound) = world.inputs.decided.plan.federated.unmeshed.get(&key) else {
            continue;
        };
        ports.push(json!({ "name": port_name(port, all), "port": bound, "protocol": "TCP" }));
        pairs.push(format!("{}={bound}", port.port.number));
    }
    (ports, pairs.join(","))
}

/// The gateway's pods with an address of a family, ordered by name.
fn endpoints(world: &World<'_>, family: IpFamily) -> Vec<Value> {
    let mut endpoints = Vec::new();
    for pod in &world.gateways {
        let address = pod.addresses.iter().find(|address| IpFamily::of(**address) == family);
        let Some(address) = address else { continue };
        let mut endpoint = Map::new();
        endpoint.insert("addresses".to_owned(), json!([address]));
        endpoint.insert("conditions".to_owned(), conditions(pod));
        let target = json!({
            "kind": "Pod", "namespace": pod.namespace, "name": pod.name, "uid": pod.uid,
        });
        endpoint.insert("targetRef".to_owned(), target);
        if !pod.node.is_empty() {
            endpoint.insert("nodeName".to_owned(), json!(pod.node));
        }
        let node = world.inputs.nodes.iter().find(|node| node.name == pod.node);
        if let Some(zone) = node.map(|node| &node.zone).filter(|zone| !zone.is_empty()) {
            endpoint.insert("zone".to_owned(), json!(zone));
        }
        endpoints.push(Value::Object(endpoint));
    }
    endpoints
}

/// Spec: EndpointConditions: `ready` is never true for a terminating endpoint.
fn conditions(pod: &PodState) -> Value {
    json!({
        "ready": pod.is_ready && !pod.is_terminating,
        "serving": pod.is_ready,
        "terminating": pod.is_terminating,
    })
}

/// Spec: `discovery.k8s.io/v1` LabelServiceName and LabelManagedBy.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";
const MANAGER_LABEL: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.isthmus.io";
/// As Kubernetes' own controller has it: larger slices cost more with each change.
const ENDPOINTS_MAX: usize = 100;
