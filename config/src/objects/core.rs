//! Validated kinds of Kubernetes itself.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use isthmus_model::{Label, ObjectName, ServiceKey, ServicePort, Transport};

use crate::kind::ObjectKey;

/// A Namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    /// Its name.
    pub name: ObjectName,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Seconds since 1970.
    pub created: i64,
}

/// A Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Namespace and name.
    pub key: ObjectKey,
    /// The same in the model's form, scope Cluster.
    pub service: ServiceKey,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Virtual address, endpoints, or another name.
    pub service_type: ServiceType,
    /// The ports.
    pub ports: Vec<ServicePort>,
    /// Whether clients stay with an endpoint.
    pub session_affinity: SessionAffinity,
    /// `internalTrafficPolicy`, `Cluster` or `Local`.
    pub internal_traffic_policy: Option<String>,
    /// `trafficDistribution`, as written.
    pub traffic_distribution: Option<String>,
    /// `ipFamilies`, the primary one first; empty when the cluster has not said.
    pub ip_families: Vec<IpFamily>,
    /// `ipFamilyPolicy`.
    pub ip_family_policy: Option<IpFamilyPolicy>,
    /// Seconds since 1970.
    pub created: i64,
}

impl Service {
    /// Whether it stands for a ServiceImport: we made it, so that pods without a sidecar
    /// have an address for the import, and nothing is routed to it by itself.
    pub fn is_derived(&self) -> bool {
        let label = |name: &str| self.labels.get(name).map(String::as_str);
        label(MANAGED_LABEL) == Some(MANAGED_BY) && label(IMPORT_LABEL).is_some()
    }
}

/// An IP family, as Kubernetes names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IpFamily {
    /// `IPv4`.
    Ipv4,
    /// `IPv6`.
    Ipv6,
}

impl IpFamily {
    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::Ipv4,
            IpAddr::V6(_) => Self::Ipv6,
        }
    }

    /// The family as Kubernetes spells it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
        }
    }
}

/// How many IP families a Service has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IpFamilyPolicy {
    /// Two where the cluster has two.
    PreferDualStack,
    /// Two.
    RequireDualStack,
    /// One.
    SingleStack,
}

/// What the name of a Service stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceType {
    /// Virtual addresses; empty when none has been assigned.
    ClusterIp(Vec<IpAddr>),
    /// Another DNS name. Nothing is routed to it.
    ExternalName(String),
    /// The endpoints themselves.
    Headless,
}

/// Whether clients stay with an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionAffinity {
    /// By client address, for so many seconds.
    ClientIp {
        /// Seconds; 10800 unless given.
        timeout_seconds: u32,
    },
    /// They do not.
    None,
}

/// An EndpointSlice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointSlice {
    /// Namespace and name.
    pub key: ObjectKey,
    /// The Service it belongs to, from the label `kubernetes.io/service-name`.
    pub service: Option<Label>,
    /// What its addresses are.
    pub address_type: AddressType,
    /// The ports of every endpoint.
    pub ports: Vec<SlicePort>,
    /// The endpoints.
    pub endpoints: Vec<SliceEndpoint>,
    /// Seconds since 1970.
    pub created: i64,
}

/// What the addresses of an EndpointSlice are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressType {
    /// DNS names; such slices give no endpoints.
    Fqdn,
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

/// One port of an EndpointSlice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlicePort {
    /// The name; empty for the port of a Service with one port without a name.
    pub name: String,
    /// The number; `None` means every port and gives no endpoint.
    pub port: Option<u16>,
    /// The transport.
    pub transport: Transport,
}

/// One endpoint of an EndpointSlice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SliceEndpoint {
    /// Its address; empty in FQDN slices.
    pub addresses: Vec<IpAddr>,
    /// Whether it takes requests.
    pub conditions: EndpointConditions,
    /// Its hostname.
    pub hostname: Option<Label>,
    /// Its zone.
    pub zone: Option<String>,
    /// `kind/namespace/name` of what is behind it; empty when not said.
    pub target: String,
}

/// Whether an endpoint takes requests. Absent means the value that Kubernetes says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndpointConditions {
    /// Ready; true when absent.
    pub ready: bool,
    /// Serving; as ready when absent.
    pub serving: bool,
    /// Terminating; false when absent.
    pub terminating: bool,
}

/// A Secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    /// Namespace and name.
    pub key: ObjectKey,
    /// The values of a `kubernetes.io/tls` secret; other secrets are not kept.
    pub tls: Option<TlsSecret>,
    /// Seconds since 1970.
    pub created: i64,
}

/// Certificate chain and key of a TLS secret, both PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct TlsSecret {
    /// `tls.crt`.
    pub chain_pem: String,
    /// `tls.key`.
    pub key_pem: String,
}

impl fmt::Debug for TlsSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsSecret").finish_non_exhaustive()
    }
}

/// A ConfigMap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigMap {
    /// Namespace and name.
    pub key: ObjectKey,
    /// The text values.
    pub data: BTreeMap<String, String>,
    /// Seconds since 1970.
    pub created: i64,
}

/// The label of objects that a controller owns as a whole, and its value for ours.
const MANAGED_LABEL: &str = "app.kubernetes.io/managed-by";
const MANAGED_BY: &str = "isthmus";
/// Spec: mcs-api `LabelServiceName`.
const IMPORT_LABEL: &str = "multicluster.kubernetes.io/service-name";
