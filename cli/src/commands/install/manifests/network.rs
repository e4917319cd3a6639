//! Services and NetworkPolicies.

use isthmus_kubernetes::mark::{LEADER, LEADER_LABEL};
use serde_json::{Value, json};

use super::settings::{AUTHORITY, DISCOVERY, DNS, FEDERATION, LINK, MESH, METRICS, READY};
use super::{full_name, meta, selector};
use crate::commands::install::values::{ServiceType, Values};

/// Services, each under a name that certificates and settings know.
pub(super) fn services(values: &Values) -> Vec<Value> {
    let port = |name: &str, port: u16, protocol: &str, target: u16| json!({ "name": name, "port": port, "protocol": protocol, "targetPort": target });
    let mut controller = service(values, "isthmus-controller", "controller");
    // Pods that stand by are ready as well; only the leader's has the label.
    controller["spec"]["selector"][LEADER_LABEL] = json!(LEADER);
    controller["spec"]["ports"] = json!([
        port("authority", AUTHORITY, "TCP", AUTHORITY),
        port("discovery", DISCOVERY, "TCP", DISCOVERY),
        port("federation", FEDERATION, "TCP", FEDERATION),
    ]);
    let mut eastwest = service(values, "isthmus-eastwest", "eastwest");
    eastwest["spec"]["ports"] = json!([port("mesh", MESH, "TCP", MESH)]);
    let mut link = service(values, "isthmus-eastwest-link", "eastwest");
    link["spec"]["ports"] =
        json!([port("link-udp", LINK, "UDP", LINK), port("link-tcp", LINK, "TCP", LINK)]);
    outside(&mut link, values);
    let mut dns = service(values, "isthmus-dns", "dns");
    dns["spec"]["ports"] = json!([port("dns", 53, "UDP", DNS), port("dns-tcp", 53, "TCP", DNS)]);
    vec![controller, eastwest, link, dns]
}

fn service(values: &Values, name: &str, component: &str) -> Value {
    let mut service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": meta(name, component),
        "spec": { "type": "ClusterIP", "selector": selector(component) },
    });
    if !values.ip_families.is_empty() {
        let policy = if values.ip_families.len() > 1 { "PreferDualStack" } else { "SingleStack" };
        service["spec"]["ipFamilyPolicy"] = json!(policy);
        service["spec"]["ipFamilies"] = json!(values.ip_families);
    }
    service
}

/// How other clusters reach the Service.
fn outside(link: &mut Value, values: &Values) {
    let wanted = &values.eastwest.service;
    link["spec"]["type"] = json!(wanted.kind);
    if !wanted.annotations.is_empty() {
        link["metadata"]["annotations"] = json!(wanted.annotations);
    }
    if matches!(wanted.kind, ServiceType::LoadBalancer | ServiceType::NodePort) {
        link["spec"]["externalTrafficPolicy"] = json!(wanted.external_traffic_policy);
    }
    if wanted.kind == ServiceType::LoadBalancer {
        if !wanted.load_balancer_ip.is_empty() {
            link["spec"]["loadBalancerIP"] = json!(wanted.load_balancer_ip);
        }
        if !wanted.load_balancer_class.is_empty() {
            link["spec"]["loadBalancerClass"] = json!(wanted.load_balancer_class);
        }
    }
}

/// Who may reach our pods. Where they go is not restricted: the API server, collectors
/// and other clusters have no selector.
pub(super) fn policies() -> Vec<Value> {
    let port = |protocol: &str, port: u16| json!({ "protocol": protocol, "port": port });
    let pods = json!([{ "namespaceSelector": {} }]);
    let telemetry = json!({ "ports": [port("TCP", METRICS), port("TCP", READY)] });
    let unmeshed = |protocol: &str| json!({ "protocol": protocol, "port": UNMESHED_FIRST, "endPort": UNMESHED_LAST });
    vec![
        policy(
            "controller",
            &[
                json!({ "from": pods, "ports": [port("TCP", AUTHORITY), port("TCP", DISCOVERY)] }),
                json!({
                    "from": [{ "podSelector": { "matchLabels": selector("eastwest") } }],
                    "ports": [port("TCP", FEDERATION)],
                }),
                telemetry.clone(),
            ],
        ),
        policy(
            "eastwest",
            &[
                json!({ "ports": [port("UDP", LINK), port("TCP", LINK)] }),
                json!({ "from": pods, "ports": [port("TCP", MESH)] }),
                // Pods of the host's network are clients of imported services too.
                json!({ "ports": [unmeshed("TCP"), unmeshed("UDP")] }),
                telemetry.clone(),
            ],
        ),
        policy(
            "dns",
            &[
                // The cluster's DNS may run in the host's network.
                json!({ "ports": [port("UDP", DNS), port("TCP", DNS)] }),
                telemetry,
            ],
        ),
    ]
}

fn policy(component: &str, ingress: &[Value]) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": meta(&full_name(component), component),
        "spec": {
            "podSelector": { "matchLabels": selector(component) },
            "policyTypes": ["Ingress"],
            "ingress": ingress,
        },
    })
}

/// The ports on which the east-west gateway serves imported services to pods without a
/// sidecar.
const UNMESHED_FIRST: u16 = 20000;
const UNMESHED_LAST: u16 = 29999;
