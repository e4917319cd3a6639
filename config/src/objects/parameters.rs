//! Validated GatewayParameters.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::kind::ObjectKey;

/// What the processes that serve Gateways are to be like.
///
/// A GatewayClass or a Gateway names it with `parametersRef`; without one the defaults
/// hold, which are those of [`GatewayParameters::with_defaults`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayParameters {
    /// Namespace and name.
    pub key: ObjectKey,
    /// Whether each Gateway has processes of its own.
    pub mode: GatewayMode,
    /// Pods. Range: 1 to 100. Default: one, and left to whoever scales the Deployment.
    pub replicas: Option<u16>,
    /// Data plane threads of a pod; 0 is one for each core. Range: 0 to 1024. Default: 2.
    pub workers: u16,
    /// The Service before the pods.
    pub service: ServiceParameters,
    /// The pods.
    pub pod: PodParameters,
    /// Seconds since 1970.
    pub created: i64,
}

impl GatewayParameters {
    /// Parameters that say nothing.
    pub fn with_defaults(key: ObjectKey) -> Self {
        Self {
            key,
            mode: GatewayMode::default(),
            replicas: None,
            workers: WORKERS,
            service: ServiceParameters::default(),
            pod: PodParameters::default(),
            created: 0,
        }
    }
}

/// Whether Gateways share processes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum GatewayMode {
    /// Each Gateway has processes and an identity of its own, in its namespace.
    #[default]
    Dedicated,
    /// All Gateways with these parameters are served by one set of processes, in the
    /// namespace of the parameters.
    Shared,
}

/// The Service before the pods of a Gateway.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceParameters {
    /// Its type.
    pub kind: GatewayServiceType,
    /// Which load balancer takes it; only for type LoadBalancer.
    pub load_balancer_class: Option<String>,
    /// Where traffic from outside may go on to; `None` is the server's default. Not for
    /// type ClusterIP.
    pub external_traffic_policy: Option<TrafficPolicy>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// The type of a Gateway's Service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum GatewayServiceType {
    /// Reached from inside the cluster only.
    ClusterIp,
    /// Reached by a load balancer.
    #[default]
    LoadBalancer,
    /// Reached at a port of every node.
    NodePort,
}

impl GatewayServiceType {
    /// `spec.type` of the Service.
    pub fn label(self) -> &'static str {
        match self {
            Self::ClusterIp => "ClusterIP",
            Self::LoadBalancer => "LoadBalancer",
            Self::NodePort => "NodePort",
        }
    }
}

/// Where traffic from outside may go on to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrafficPolicy {
    /// To pods of every node.
    Cluster,
    /// To pods of the node where it arrives, which keeps the client's address.
    Local,
}

impl TrafficPolicy {
    /// `spec.externalTrafficPolicy` of the Service.
    pub fn label(self) -> &'static str {
        match self {
            Self::Cluster => "Cluster",
            Self::Local => "Local",
        }
    }
}

/// The pods of a Gateway.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodParameters {
    /// `resources` of the container, as the API server takes it.
    pub resources: Option<Value>,
    /// The labels that nodes must have.
    pub node_selector: BTreeMap<String, String>,
    /// Tolerations, as the API server takes them.
    pub tolerations: Vec<Value>,
    /// The priority class.
    pub priority_class: Option<String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// A reference to the parameters of Gateways.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ParametersRef {
    /// A GatewayParameters.
    Parameters(ObjectKey),
    /// What it names cannot be parameters; why, for people.
    Unusable(String),
}

pub(crate) const WORKERS: u16 = 2;
