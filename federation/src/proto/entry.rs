//! What a cluster says about itself: services, endpoints, gateway, properties, bundle.
//!
//! No entry has an address in it. An endpoint is an opaque id that only its own cluster's
//! east-west gateway can turn into one.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use isthmus_model::{EndpointId, Health, Label, Locality, ServicePort, SpiffeId};
use serde::{Deserialize, Serialize};

/// Namespace and name of a service, the same in every cluster of the set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ServiceName {
    /// The namespace.
    pub namespace: Label,
    /// The service's own name.
    pub name: Label,
}

impl ServiceName {
    /// Names a service.
    pub fn new(namespace: Label, name: Label) -> Self {
        Self { namespace, name }
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Names one entry in the state of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EntryKey {
    /// [`Entry::Bundle`].
    Bundle,
    /// [`Entry::Endpoints`] of one port of a service.
    Endpoints(ServiceName, u16),
    /// [`Entry::Gateway`].
    Gateway,
    /// [`Entry::Properties`].
    Properties,
    /// [`Entry::Service`].
    Service(ServiceName),
}

impl EntryKey {
    /// The service it belongs to.
    pub fn service(&self) -> Option<&ServiceName> {
        match self {
            Self::Endpoints(name, _) | Self::Service(name) => Some(name),
            Self::Bundle | Self::Gateway | Self::Properties => None,
        }
    }
}

impl fmt::Display for EntryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bundle => f.write_str("trust bundle"),
            Self::Endpoints(name, port) => write!(f, "endpoints of {name} port {port}"),
            Self::Gateway => f.write_str("gateway"),
            Self::Properties => f.write_str("cluster properties"),
            Self::Service(name) => write!(f, "service {name}"),
        }
    }
}

/// One thing that a cluster says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Entry {
    /// The trust bundle of the cluster's own trust domain.
    Bundle(BundleDocument),
    /// The endpoints behind one port of an exported service.
    Endpoints(EndpointSummary),
    /// The cluster's east-west gateway.
    Gateway(GatewayInfo),
    /// Where the cluster is, and its ClusterProperties.
    Properties(ClusterProperties),
    /// An exported service.
    Service(ExportedService),
}

impl Entry {
    /// Its name in the state of the cluster.
    pub fn key(&self) -> EntryKey {
        match self {
            Self::Bundle(_) => EntryKey::Bundle,
            Self::Endpoints(v) => EntryKey::Endpoints(v.service.clone(), v.port),
            Self::Gateway(_) => EntryKey::Gateway,
            Self::Properties(_) => EntryKey::Properties,
            Self::Service(v) => EntryKey::Service(v.name.clone()),
        }
    }

    /// About how many bytes it takes on the wire, so that chunks can be bounded.
    pub fn size(&self) -> usize {
        ENTRY_BYTES
            + match self {
                Self::Bundle(v) => v.jwks.len(),
                Self::Endpoints(v) => v.endpoints.iter().map(SummaryEndpoint::size).sum(),
                Self::Gateway(v) => v.version.len(),
                Self::Properties(v) => v.properties.iter().map(|(k, v)| k.len() + v.len()).sum(),
                Self::Service(v) => v.ports.len() * PORT_BYTES + v.metadata.size(),
            }
    }
}

/// A service that the cluster exports.
///
/// Spec: KEP-1645 ServiceExport; the fields are those that a ServiceImport merges.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportedService {
    /// Its name.
    pub name: ServiceName,
    /// `creationTimestamp` of the ServiceExport, seconds since 1970.
    pub created: i64,
    /// Whether the Service is headless.
    pub headless: bool,
    /// The ports, in the order of the Service.
    pub ports: Vec<ServicePort>,
    /// How its traffic is spread.
    #[serde(default)]
    pub traffic: ExportedTraffic,
    /// Labels and annotations for its ServiceImport.
    #[serde(default)]
    pub metadata: ExportedMetadata,
}

/// Labels and annotations that a ServiceExport gives its ServiceImport; both are taken
/// whole from the winner of a conflict.
///
/// Spec: KEP-1645 `exportedLabels` and `exportedAnnotations`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportedMetadata {
    /// `exportedLabels`.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// `exportedAnnotations`.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

impl ExportedMetadata {
    /// As much of what a user wrote as peers take: the first entries, by their keys.
    pub fn bounded(
        labels: &BTreeMap<String, String>,
        annotations: &BTreeMap<String, String>,
    ) -> Self {
        let (mut count, mut bytes) = (0, 0);
        let mut fits = |(key, value): &(&String, &String)| {
            count += 1;
            bytes += key.len() + value.len();
            count <= METADATA_ENTRIES_MAX && bytes <= METADATA_BYTES_MAX
        };
        let owned = |(key, value): (&String, &String)| (key.clone(), value.clone());
        Self {
            labels: labels.iter().take_while(&mut fits).map(owned).collect(),
            annotations: annotations.iter().take_while(&mut fits).map(owned).collect(),
        }
    }

    /// Whether it is within the bounds.
    pub fn is_bounded(&self) -> bool {
        self.labels.len() + self.annotations.len() <= METADATA_ENTRIES_MAX
            && self.size() <= METADATA_BYTES_MAX
    }

    fn size(&self) -> usize {
        let entries = self.labels.iter().chain(&self.annotations);
        entries.map(|(key, value)| key.len() + value.len()).sum()
    }
}

/// The fields of a service that say how traffic is spread; each is taken whole from the
/// winner of a conflict.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportedTraffic {
    /// `sessionAffinity` with its configuration.
    #[serde(default)]
    pub session_affinity: SessionAffinity,
    /// `internalTrafficPolicy`, as written.
    #[serde(default)]
    pub internal_traffic_policy: Option<Arc<str>>,
    /// `trafficDistribution`, as written.
    #[serde(default)]
    pub traffic_distribution: Option<Arc<str>>,
    /// `ipFamilies`, the primary one first; empty when the cluster does not say.
    #[serde(default)]
    pub ip_families: Vec<IpFamily>,
}

/// An IP family of a Service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum IpFamily {
    /// `IPv4`.
    Ipv4,
    /// `IPv6`.
    Ipv6,
}

impl IpFamily {
    /// The family as Kubernetes spells it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
        }
    }
}

/// `sessionAffinity` of a Service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SessionAffinity {
    /// By client address, for this long.
    ClientIp {
        /// `timeoutSeconds`.
        timeout_seconds: u32,
    },
    /// None.
    #[default]
    None,
}

/// The endpoints behind one port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointSummary {
    /// The service.
    pub service: ServiceName,
    /// The port of the service.
    pub port: u16,
    /// The endpoints, ordered by id.
    pub endpoints: Vec<SummaryEndpoint>,
}

/// One endpoint as another cluster sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SummaryEndpoint {
    /// The opaque id.
    pub id: EndpointId,
    /// Where it runs.
    #[serde(default)]
    pub locality: Locality,
    /// Relative share of requests, 1 to 65535.
    pub weight: u16,
    /// Whether it takes requests.
    pub health: Health,
    /// Who answers there: the workload, or the cluster's gateway for one without sidecar.
    pub identity: SpiffeId,
    /// The application's port behind it, which its sidecar needs; not an address.
    pub app_port: u16,
    /// The pod's hostname, for headless names.
    #[serde(default)]
    pub hostname: Option<Label>,
}

impl SummaryEndpoint {
    fn size(&self) -> usize {
        let locality = self.locality.region.len() + self.locality.zone.len();
        ENDPOINT_BYTES + self.id.as_str().len() + self.identity.as_str().len() + locality
    }
}

/// The cluster's east-west gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayInfo {
    /// Who it is; always of the cluster's own trust domain.
    pub identity: SpiffeId,
    /// The release it runs, for `isthmus status`.
    #[serde(default)]
    pub version: String,
}

/// Where the cluster is, and its ClusterProperties.
///
/// Spec: KEP-2149.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterProperties {
    /// Where most of the cluster runs.
    #[serde(default)]
    pub locality: Locality,
    /// Other properties by name.
    #[serde(default)]
    pub properties: BTreeMap<String, String>,
}

/// A SPIFFE bundle document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleDocument {
    /// The JWKS text.
    pub jwks: Arc<str>,
    /// Its `spiffe_sequence`.
    pub sequence: u64,
}

/// Labels and annotations of one service.
pub const METADATA_ENTRIES_MAX: usize = 64;
/// Bytes of their keys and values.
pub const METADATA_BYTES_MAX: usize = 16 * 1024;
/// Bytes of an entry apart from its variable parts, rounded up.
const ENTRY_BYTES: usize = 256;
/// Bytes of a port, rounded up.
const PORT_BYTES: usize = 192;
/// Bytes of an endpoint apart from its variable parts, rounded up.
const ENDPOINT_BYTES: usize = 96;
