//! GatewayParameters.
//!
//! The types only describe; objects are read by `isthmus-config`.

#![allow(dead_code, reason = "the schema is made from the types; no value of them is")]

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

use super::{Definition, schema_of};

/// The definition.
pub(super) fn definition() -> Value {
    let column = |name: &str, kind: &str, path: &str| json!({ "name": name, "type": kind, "jsonPath": path, "priority": 0 });
    Definition {
        kind: "GatewayParameters",
        plural: "gatewayparameters",
        short: "gwparams",
        scope: "Namespaced",
        description: "What the processes of Gateways are like. A GatewayClass names it in \
                      spec.parametersRef, a Gateway in spec.infrastructure.parametersRef; what \
                      both say, the Gateway's says.",
        spec: schema_of::<GatewayParametersSpec>(),
        is_spec_required: false,
        status: None,
        columns: json!([
            column("Mode", "string", ".spec.mode"),
            column("Replicas", "integer", ".spec.replicas"),
            column("Service", "string", ".spec.service.type"),
            column("Age", "date", ".metadata.creationTimestamp"),
        ]),
    }
    .to_value()
}

/// What the processes are like.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct GatewayParametersSpec {
    /// Whether each Gateway has pods of its own.
    #[serde(default)]
    mode: Mode,
    /// Pods of each Deployment. Without it there is one, and the number is left to whoever
    /// scales the Deployment, as a HorizontalPodAutoscaler.
    #[schemars(range(min = 1, max = 100))]
    #[serde(skip_serializing_if = "Option::is_none")]
    replicas: Option<i32>,
    /// Threads of each pod that carry traffic; 0 is one for each core. Default: 2.
    #[schemars(range(min = 0, max = 1024))]
    #[serde(default = "two")]
    workers: i32,
    /// The Service by which the Gateway is reached.
    #[schemars(extend("x-kubernetes-validations" = [
        {
            "rule": "!has(self.loadBalancerClass) || !has(self.type) || self.type == 'LoadBalancer'",
            "message": "loadBalancerClass is only for type LoadBalancer",
            "fieldPath": ".loadBalancerClass",
        },
        {
            "rule": "!has(self.externalTrafficPolicy) || !has(self.type) || self.type != 'ClusterIP'",
            "message": "externalTrafficPolicy is not for type ClusterIP",
            "fieldPath": ".externalTrafficPolicy",
        },
    ]))]
    service: Option<ServiceParameters>,
    /// The pods of the Gateway.
    pod: Option<PodParameters>,
}

/// Who shares pods.
#[derive(Serialize, JsonSchema, Default)]
enum Mode {
    /// Each Gateway has a Deployment and a Service of its own, in its namespace.
    #[default]
    Dedicated,
    /// All Gateways with these parameters share a Deployment and a Service.
    Shared,
}

/// The Service.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct ServiceParameters {
    /// How the Gateway is reached. Default: LoadBalancer.
    #[serde(rename = "type", default)]
    kind: ServiceType,
    /// The class of the load balancer. Default: the cluster's. Only for type LoadBalancer.
    #[schemars(length(min = 1, max = 316))]
    load_balancer_class: Option<String>,
    /// Cluster sends to any node; Local keeps the clients' addresses and sends only to
    /// nodes that have a pod. Not for type ClusterIP.
    external_traffic_policy: Option<TrafficPolicy>,
    /// Annotations of the Service, which many load balancers are set up by.
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    /// Labels of the Service.
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

/// The type of a Service.
#[derive(Serialize, JsonSchema, Default)]
enum ServiceType {
    /// From inside the cluster only.
    #[serde(rename = "ClusterIP")]
    ClusterIp,
    /// By a load balancer, which gives the Gateway its address.
    #[default]
    LoadBalancer,
    /// By a port of every node.
    NodePort,
}

/// Where a load balancer's traffic may go.
#[derive(Serialize, JsonSchema)]
enum TrafficPolicy {
    /// To any node.
    Cluster,
    /// To nodes that have a pod.
    Local,
}

/// The pods.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct PodParameters {
    /// Resources of the gateway's container.
    resources: Option<Resources>,
    /// Labels that a node must have for the pods.
    #[serde(default)]
    node_selector: BTreeMap<String, String>,
    /// Taints of nodes that the pods tolerate.
    #[serde(default)]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    tolerations: Vec<Toleration>,
    /// The priority class of the pods. Default: the cluster's.
    #[schemars(length(max = 253))]
    priority_class_name: Option<String>,
    /// Annotations of the pods.
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    /// Labels of the pods.
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

/// Resources of a container.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Resources {
    /// What is set aside for the container, by cpu, memory and others.
    #[serde(default)]
    requests: BTreeMap<String, Quantity>,
    /// What the container may have at most, by cpu, memory and others.
    #[serde(default)]
    limits: BTreeMap<String, Quantity>,
}

/// An amount, as in 100m, 128Mi or 2.
#[derive(Serialize)]
struct Quantity;

impl JsonSchema for Quantity {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Quantity".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "anyOf": [{ "type": "integer" }, { "type": "string" }],
            "x-kubernetes-int-or-string": true,
        })
    }
}

/// A taint that is tolerated.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Toleration {
    /// The key of the taint; none, with operator Exists, is every taint.
    #[schemars(length(max = 316))]
    key: Option<String>,
    /// Exists, or Equal to the value. Default: Equal.
    operator: Option<Operator>,
    /// The value of the taint, for Equal.
    #[schemars(length(max = 63))]
    value: Option<String>,
    /// The effect of the taint: NoSchedule, PreferNoSchedule or NoExecute. Default: every
    /// effect.
    effect: Option<Effect>,
    /// Seconds for which NoExecute is tolerated. Default: for ever.
    toleration_seconds: Option<i64>,
}

/// How a taint is compared.
#[derive(Serialize, JsonSchema)]
enum Operator {
    /// By key and value.
    Equal,
    /// By key.
    Exists,
}

/// What a taint does.
#[derive(Serialize, JsonSchema)]
enum Effect {
    /// Ends pods.
    NoExecute,
    /// Keeps new pods away.
    NoSchedule,
    /// Keeps new pods away if others have room.
    PreferNoSchedule,
}

fn two() -> i32 {
    2
}
