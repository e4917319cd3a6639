//! Kinds of Kubernetes itself.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::Ignored;
use super::metadata::{Metadata, Raw};

pub(crate) type RawNamespace = Raw<Ignored>;
pub(crate) type RawService = Raw<ServiceSpec>;

/// Spec: Kubernetes v1 `ServiceSpec`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "the schema has fields that nothing reads")]
pub(crate) struct ServiceSpec {
    #[serde(default)]
    pub(crate) ports: Vec<ServicePort>,
    #[serde(rename = "type")]
    pub(crate) kind: Option<String>,
    #[serde(rename = "clusterIP")]
    pub(crate) cluster_ip: Option<String>,
    #[serde(default, rename = "clusterIPs")]
    pub(crate) cluster_ips: Vec<String>,
    pub(crate) session_affinity: Option<String>,
    pub(crate) session_affinity_config: Option<SessionAffinityConfig>,
    selector: Option<BTreeMap<String, String>>,
    pub(crate) external_name: Option<String>,
    #[serde(rename = "externalIPs")]
    external_ips: Ignored,
    #[serde(rename = "loadBalancerIP")]
    load_balancer_ip: Ignored,
    load_balancer_source_ranges: Ignored,
    load_balancer_class: Ignored,
    external_traffic_policy: Ignored,
    pub(crate) internal_traffic_policy: Option<String>,
    health_check_node_port: Ignored,
    publish_not_ready_addresses: Ignored,
    #[serde(default)]
    pub(crate) ip_families: Vec<String>,
    pub(crate) ip_family_policy: Option<String>,
    allocate_load_balancer_node_ports: Ignored,
    pub(crate) traffic_distribution: Option<String>,
}

/// Spec: Kubernetes v1 `ServicePort`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "the schema has fields that nothing reads")]
pub(crate) struct ServicePort {
    pub(crate) name: Option<String>,
    pub(crate) protocol: Option<String>,
    pub(crate) app_protocol: Option<String>,
    pub(crate) port: i64,
    target_port: Option<IntOrString>,
    node_port: Option<i64>,
}

/// Spec: Kubernetes `IntOrString`.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
#[expect(dead_code, reason = "only the type of the field is checked")]
pub(crate) enum IntOrString {
    Int(i64),
    String(String),
}

/// Spec: Kubernetes v1 `SessionAffinityConfig`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct SessionAffinityConfig {
    #[serde(rename = "clientIP")]
    pub(crate) client_ip: Option<ClientIpConfig>,
}

/// Spec: Kubernetes v1 `ClientIPConfig`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ClientIpConfig {
    pub(crate) timeout_seconds: Option<u32>,
}

/// Spec: `discovery.k8s.io/v1` EndpointSlice.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "the schema has fields that nothing reads")]
pub(crate) struct RawEndpointSlice {
    api_version: Ignored,
    kind: Ignored,
    pub(crate) metadata: Metadata,
    pub(crate) address_type: String,
    #[serde(default)]
    pub(crate) endpoints: Vec<SliceEndpoint>,
    #[serde(default)]
    pub(crate) ports: Vec<SlicePort>,
}

/// Spec: `discovery.k8s.io/v1` Endpoint.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "the schema has fields that nothing reads")]
pub(crate) struct SliceEndpoint {
    pub(crate) addresses: Vec<String>,
    #[serde(default)]
    pub(crate) conditions: EndpointConditions,
    pub(crate) hostname: Option<String>,
    pub(crate) target_ref: Option<TargetRef>,
    node_name: Option<String>,
    pub(crate) zone: Option<String>,
    deprecated_topology: Ignored,
    hints: Ignored,
}

/// Spec: `discovery.k8s.io/v1` EndpointConditions.
#[derive(Debug, Default, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct EndpointConditions {
    pub(crate) ready: Option<bool>,
    pub(crate) serving: Option<bool>,
    pub(crate) terminating: Option<bool>,
}

/// Spec: Kubernetes v1 `ObjectReference`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "the schema has fields that nothing reads")]
pub(crate) struct TargetRef {
    pub(crate) kind: Option<String>,
    pub(crate) namespace: Option<String>,
    pub(crate) name: Option<String>,
    uid: Ignored,
    api_version: Ignored,
    resource_version: Ignored,
    field_path: Ignored,
}

/// Spec: `discovery.k8s.io/v1` EndpointPort.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "the schema has fields that nothing reads")]
pub(crate) struct SlicePort {
    pub(crate) name: Option<String>,
    pub(crate) protocol: Option<String>,
    pub(crate) port: Option<i64>,
    app_protocol: Ignored,
}

/// Spec: Kubernetes v1 Secret. No `Debug`: the values are secret.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "the schema has fields that nothing reads")]
pub(crate) struct RawSecret {
    api_version: Ignored,
    kind: Ignored,
    pub(crate) metadata: Metadata,
    #[serde(rename = "type")]
    pub(crate) secret_type: Option<String>,
    #[serde(default)]
    pub(crate) data: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) string_data: BTreeMap<String, String>,
    immutable: Ignored,
}

/// Spec: Kubernetes v1 ConfigMap.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "the schema has fields that nothing reads")]
pub(crate) struct RawConfigMap {
    api_version: Ignored,
    kind: Ignored,
    pub(crate) metadata: Metadata,
    #[serde(default)]
    pub(crate) data: BTreeMap<String, String>,
    binary_data: Ignored,
    immutable: Ignored,
}
