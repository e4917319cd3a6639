//! Validated ServiceExport, ClusterProperty and ClusterLink.

use std::collections::BTreeMap;
use std::fmt;

use isthmus_model::{ClusterId, Label, ObjectName, TrustDomain};

use crate::kind::ObjectKey;

/// A ServiceExport.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceExport {
    /// Namespace and name, those of the Service.
    pub key: ObjectKey,
    /// The Service's name.
    pub service: Label,
    /// Labels for the ServiceImport.
    pub exported_labels: BTreeMap<String, String>,
    /// Annotations for the ServiceImport.
    pub exported_annotations: BTreeMap<String, String>,
    /// Seconds since 1970; the oldest export wins a conflict.
    pub created: i64,
}

/// Something that a cluster says about itself.
///
/// Spec: KEP-2149 ClusterProperty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterProperty {
    /// Its name: `cluster.clusterset.k8s.io`, `clusterset.k8s.io`, or one of the user's.
    pub name: ObjectName,
    /// Its value.
    pub value: String,
    /// Seconds since 1970.
    pub created: i64,
}

/// The link to one other cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterLink {
    /// Its name.
    pub name: ObjectName,
    /// The other cluster; `metadata.name` unless `spec.cluster` says otherwise.
    pub cluster: ClusterId,
    /// The other cluster's trust domain.
    pub trust_domain: TrustDomain,
    /// `host:port` of the other cluster's gateways.
    pub addresses: Vec<String>,
    /// Whether this side dials; by default it does when there are addresses.
    pub dial: bool,
    /// Where the other cluster's trust bundle comes from.
    pub bundle: BundleSource,
    /// What this side takes; empty takes nothing.
    pub import: Vec<AccessRule>,
    /// What this side offers; empty offers nothing.
    pub export: Vec<AccessRule>,
    /// Seconds since 1970.
    pub created: i64,
}

impl ClusterLink {
    /// The bundle document, when the object gives one (not only its hash).
    pub fn jwks(&self) -> Option<&str> {
        match &self.bundle {
            BundleSource::Inline(jwks) => Some(jwks),
            BundleSource::ConfigMap { jwks, .. } => jwks.as_deref(),
            BundleSource::Sha256(_) => None,
        }
    }

    /// Whether a service of the other cluster may be imported; without `port`, whether
    /// any port of it may.
    pub fn imports(&self, namespace: &Label, name: &Label, port: Option<u16>) -> bool {
        self.import.iter().any(|rule| rule.allows(namespace, name, port))
    }

    /// Whether a service of this cluster may be offered; without `port`, whether any port
    /// of it may.
    pub fn exports(&self, namespace: &Label, name: &Label, port: Option<u16>) -> bool {
        self.export.iter().any(|rule| rule.allows(namespace, name, port))
    }
}

/// Where a trust bundle comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BundleSource {
    /// A key of a ConfigMap.
    ConfigMap {
        /// The ConfigMap.
        config_map: ObjectKey,
        /// The key; `bundle.json` unless given.
        key: String,
        /// The SPIFFE bundle document; `None` while the ConfigMap has never had it.
        jwks: Option<String>,
    },
    /// The SPIFFE bundle document (JWKS) itself.
    Inline(String),
    /// The SHA-256 of the document that the peer will show, 64 lower-case hex digits.
    Sha256(String),
}

/// Services that may pass a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessRule {
    /// Namespaces; never empty.
    pub namespaces: Vec<NamePattern>,
    /// Names of services; never empty.
    pub names: Vec<NamePattern>,
    /// Ports; empty means every port.
    pub ports: Vec<u16>,
}

impl AccessRule {
    /// Whether the rule takes a service; without `port`, whether it takes any port of it.
    pub fn allows(&self, namespace: &Label, name: &Label, port: Option<u16>) -> bool {
        self.namespaces.iter().any(|pattern| pattern.matches(namespace))
            && self.names.iter().any(|pattern| pattern.matches(name))
            && port.is_none_or(|port| self.ports.is_empty() || self.ports.contains(&port))
    }
}

/// One name, or every name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamePattern {
    /// `*`.
    Any,
    /// Exactly this name.
    Name(Label),
}

impl NamePattern {
    /// Whether the pattern takes a name.
    pub fn matches(&self, name: &Label) -> bool {
        match self {
            Self::Any => true,
            Self::Name(only) => only == name,
        }
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Name(name) => write!(f, "{name}"),
        }
    }
}
