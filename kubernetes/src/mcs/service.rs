//! Derived Services: the address of an import for pods without a sidecar.
//!
//! `internalTrafficPolicy` and `trafficDistribution` of the exported Service are not those
//! of this one: its endpoints are gateways, which choose the endpoint by the import's own
//! rules, and `Local` would cut off every node without a gateway.

use isthmus_config::objects::IpFamily;
use isthmus_federation::mcs::ImportPort;
use isthmus_federation::proto::{IpFamily as ExportedFamily, SessionAffinity};
use serde_json::{Value, json};

use crate::mcs::import::{affinity, is_qualified_name, protocol};
use crate::mcs::names::IMPORT_LABEL;
use crate::mcs::{Import, World};

/// The derived Service.
pub(super) fn object(world: &World<'_>, import: &Import<'_>) -> Value {
    let ports = &import.status.ports;
    let ports: Vec<Value> = ports.iter().map(|port| service_port(port, ports)).collect();
    let mut spec = json!({ "type": "ClusterIP", "ports": ports });
    affinity(&mut spec, bounded(import.status.traffic.session_affinity));
    families(world, import, &mut spec);
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "namespace": import.name.namespace,
            "name": import.derived,
            "labels": { IMPORT_LABEL: import.name.name },
        },
        "spec": spec,
    })
}

fn service_port(port: &ImportPort, all: &[ImportPort]) -> Value {
    let mut value = json!({ "port": port.port.number, "protocol": protocol(port.port.transport) });
    let name = port_name(port, all);
    // The server leaves out an empty name, and we would write it for ever.
    if !name.is_empty() {
        value["name"] = json!(name);
    }
    // A text that the server would refuse must not cost the import its address.
    if let Some(app) = port.port.app_protocol.as_deref().filter(|app| is_qualified_name(app)) {
        value["appProtocol"] = json!(app);
    }
    value
}

/// The name of a port in the derived Service and its slices. A Service with several ports
/// needs a name for each, also where one cluster exports a single port without one.
pub(super) fn port_name(port: &ImportPort, all: &[ImportPort]) -> String {
    match &port.port.name {
        Some(name) => name.to_string(),
        None if all.len() < 2 => String::new(),
        None => {
            let transport = protocol(port.port.transport).to_lowercase();
            format!("unnamed-{transport}-{}", port.port.number)
        }
    }
}

/// Spec: Kubernetes: `timeoutSeconds` is 1 to 86400.
fn bounded(affinity: SessionAffinity) -> SessionAffinity {
    match affinity {
        SessionAffinity::ClientIp { timeout_seconds } => {
            let timeout_seconds = timeout_seconds.clamp(1, AFFINITY_SECONDS_MAX);
            SessionAffinity::ClientIp { timeout_seconds }
        }
        SessionAffinity::None => SessionAffinity::None,
    }
}

/// The families as exported, as far as this cluster has them; all that it has otherwise,
/// since the gateways between clusters carry either. Once given they stay: the server
/// lets nobody change the first, and clients keep addresses.
fn families(world: &World<'_>, import: &Import<'_>, spec: &mut Value) {
    let observed = world.observed("Service", import, &import.derived);
    let before = observed.and_then(|service| {
        let families = service.pointer("/spec/ipFamilies")?.as_array()?;
        let policy = service.pointer("/spec/ipFamilyPolicy")?.as_str()?;
        (!families.is_empty()).then_some((families, policy))
    });
    if let Some((families, policy)) = before {
        spec["ipFamilies"] = json!(families);
        spec["ipFamilyPolicy"] = json!(policy);
        return;
    }
    let own = |family: &ExportedFamily| match family {
        ExportedFamily::Ipv4 => IpFamily::Ipv4,
        ExportedFamily::Ipv6 => IpFamily::Ipv6,
    };
    let exported = import.status.traffic.ip_families.iter().map(own);
    let usable: Vec<IpFamily> = exported.filter(|family| world.families.contains(family)).collect();
    let labels: Vec<&str> = usable.iter().map(|family| family.label()).collect();
    match usable.len() {
        0 => spec["ipFamilyPolicy"] = json!("PreferDualStack"),
        1 => {
            spec["ipFamilies"] = json!(labels);
            spec["ipFamilyPolicy"] = json!("SingleStack");
        }
        _ => {
            spec["ipFamilies"] = json!(labels);
            spec["ipFamilyPolicy"] = json!("PreferDualStack");
        }
    }
}

const AFFINITY_SECONDS_MAX: u32 = 86_400;
