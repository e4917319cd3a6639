//! The kinds of objects that are read, and names of objects.

use std::fmt;
use std::str::FromStr;

use isthmus_model::{InvalidName, Label, ObjectName};
use serde::{Deserialize, Serialize};

use crate::error::{Printable, excerpt};

/// A kind of object that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `gateway.networking.k8s.io` BackendTLSPolicy.
    BackendTlsPolicy,
    /// `isthmus.io` ClusterLink, cluster-scoped.
    ClusterLink,
    /// `about.k8s.io` ClusterProperty, cluster-scoped.
    ClusterProperty,
    /// Core ConfigMap.
    ConfigMap,
    /// `discovery.k8s.io` EndpointSlice.
    EndpointSlice,
    /// `gateway.networking.k8s.io` Gateway.
    Gateway,
    /// `gateway.networking.k8s.io` GatewayClass, cluster-scoped.
    GatewayClass,
    /// `isthmus.io` GatewayParameters.
    GatewayParameters,
    /// `gateway.networking.k8s.io` GRPCRoute.
    GrpcRoute,
    /// `gateway.networking.k8s.io` HTTPRoute.
    HttpRoute,
    /// `gateway.networking.k8s.io` ListenerSet.
    ListenerSet,
    /// Core Namespace, cluster-scoped.
    Namespace,
    /// `security.istio.io` PeerAuthentication.
    PeerAuthentication,
    /// `gateway.networking.k8s.io` ReferenceGrant.
    ReferenceGrant,
    /// Core Secret.
    Secret,
    /// Core Service.
    Service,
    /// `multicluster.x-k8s.io` ServiceExport.
    ServiceExport,
    /// `gateway.networking.k8s.io` TCPRoute.
    TcpRoute,
    /// `gateway.networking.k8s.io` TLSRoute.
    TlsRoute,
    /// `gateway.networking.k8s.io` UDPRoute.
    UdpRoute,
}

impl Kind {
    /// Every kind, in order.
    pub const ALL: [Self; 20] = [
        Self::BackendTlsPolicy,
        Self::ClusterLink,
        Self::ClusterProperty,
        Self::ConfigMap,
        Self::EndpointSlice,
        Self::Gateway,
        Self::GatewayClass,
        Self::GatewayParameters,
        Self::GrpcRoute,
        Self::HttpRoute,
        Self::ListenerSet,
        Self::Namespace,
        Self::PeerAuthentication,
        Self::ReferenceGrant,
        Self::Secret,
        Self::Service,
        Self::ServiceExport,
        Self::TcpRoute,
        Self::TlsRoute,
        Self::UdpRoute,
    ];

    /// The `kind` of the object.
    pub fn label(self) -> &'static str {
        match self {
            Self::BackendTlsPolicy => "BackendTLSPolicy",
            Self::ClusterLink => "ClusterLink",
            Self::ClusterProperty => "ClusterProperty",
            Self::ConfigMap => "ConfigMap",
            Self::EndpointSlice => "EndpointSlice",
            Self::Gateway => "Gateway",
            Self::GatewayClass => "GatewayClass",
            Self::GatewayParameters => "GatewayParameters",
            Self::GrpcRoute => "GRPCRoute",
            Self::HttpRoute => "HTTPRoute",
            Self::ListenerSet => "ListenerSet",
            Self::Namespace => "Namespace",
            Self::PeerAuthentication => "PeerAuthentication",
            Self::ReferenceGrant => "ReferenceGrant",
            Self::Secret => "Secret",
            Self::Service => "Service",
            Self::ServiceExport => "ServiceExport",
            Self::TcpRoute => "TCPRoute",
            Self::TlsRoute => "TLSRoute",
            Self::UdpRoute => "UDPRoute",
        }
    }

    /// The API group; empty is the core group.
    pub fn group(self) -> &'static str {
        match self {
            Self::ClusterLink | Self::GatewayParameters => ISTHMUS_GROUP,
            Self::ClusterProperty => ABOUT_GROUP,
            Self::ConfigMap | Self::Namespace | Self::Secret | Self::Service => "",
            Self::EndpointSlice => "discovery.k8s.io",
            Self::BackendTlsPolicy
            | Self::Gateway
            | Self::GatewayClass
            | Self::GrpcRoute
            | Self::HttpRoute
            | Self::ListenerSet
            | Self::ReferenceGrant
            | Self::TcpRoute
            | Self::TlsRoute
            | Self::UdpRoute => GATEWAY_GROUP,
            Self::PeerAuthentication => "security.istio.io",
            Self::ServiceExport => MCS_GROUP,
        }
    }

    /// The versions of the group in which the kind is read.
    pub fn versions(self) -> &'static [&'static str] {
        match self {
            Self::ClusterLink | Self::GatewayParameters => &["v1alpha1"],
            Self::ClusterProperty => &["v1beta1", "v1alpha1"],
            Self::BackendTlsPolicy => &["v1", "v1alpha3"],
            Self::TlsRoute => &["v1", "v1alpha3", "v1alpha2"],
            Self::TcpRoute | Self::UdpRoute => &["v1", "v1alpha2"],
            Self::ServiceExport => &["v1alpha1", "v1beta1"],
            Self::ConfigMap
            | Self::EndpointSlice
            | Self::GrpcRoute
            | Self::ListenerSet
            | Self::Namespace
            | Self::Secret
            | Self::Service => &["v1"],
            Self::Gateway
            | Self::GatewayClass
            | Self::HttpRoute
            | Self::PeerAuthentication
            | Self::ReferenceGrant => &["v1", "v1beta1"],
        }
    }

    /// Whether objects of the kind have no namespace.
    pub fn is_cluster_scoped(self) -> bool {
        match self {
            Self::ClusterLink | Self::ClusterProperty | Self::GatewayClass | Self::Namespace => {
                true
            }
            Self::BackendTlsPolicy
            | Self::ConfigMap
            | Self::EndpointSlice
            | Self::Gateway
            | Self::GatewayParameters
            | Self::GrpcRoute
            | Self::HttpRoute
            | Self::ListenerSet
            | Self::PeerAuthentication
            | Self::ReferenceGrant
            | Self::Secret
            | Self::Service
            | Self::ServiceExport
            | Self::TcpRoute
            | Self::TlsRoute
            | Self::UdpRoute => false,
        }
    }

    pub(crate) fn find(group: &str, label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.group() == group && kind.label() == label)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// Names an object, valid or not: `HTTPRoute shop/front`, `GatewayClass edge`.
///
/// As text (and so as a key of a JSON map) it is `HTTPRoute/shop/front` and
/// `GatewayClass//edge`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ObjectRef {
    /// The kind.
    pub kind: Kind,
    /// The namespace; empty for kinds without one.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl ObjectRef {
    /// Names an object in a namespace.
    pub fn namespaced(kind: Kind, key: &ObjectKey) -> Self {
        Self { kind, namespace: key.namespace.to_string(), name: key.name.to_string() }
    }

    /// Names an object of a cluster-scoped kind.
    pub fn cluster(kind: Kind, name: &str) -> Self {
        Self { kind, namespace: String::new(), name: name.to_owned() }
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.kind)?;
        if !self.namespace.is_empty() {
            write!(f, "{}/", Printable(&self.namespace))?;
        }
        write!(f, "{}", Printable(&self.name))
    }
}

impl From<ObjectRef> for String {
    fn from(value: ObjectRef) -> Self {
        format!("{}/{}/{}", value.kind, value.namespace, value.name)
    }
}

impl TryFrom<String> for ObjectRef {
    type Error = InvalidName;

    fn try_from(value: String) -> Result<Self, InvalidName> {
        value.parse()
    }
}

impl FromStr for ObjectRef {
    type Err = InvalidName;

    fn from_str(value: &str) -> Result<Self, InvalidName> {
        let form = || InvalidName::Form {
            kind: "object reference",
            value: excerpt(value),
            form: "<kind>/<namespace>/<name>",
        };
        let (label, rest) = value.split_once('/').ok_or_else(form)?;
        let (namespace, name) = rest.split_once('/').ok_or_else(form)?;
        let kind = Kind::ALL.into_iter().find(|kind| kind.label() == label).ok_or_else(form)?;
        Ok(Self { kind, namespace: namespace.to_owned(), name: name.to_owned() })
    }
}

/// Namespace and name of a valid object.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// The namespace.
    pub namespace: Label,
    /// The name.
    pub name: ObjectName,
}

impl ObjectKey {
    /// Checks both names.
    ///
    /// # Errors
    ///
    /// [`InvalidName`] says which rule one of them breaks.
    pub fn new(namespace: &str, name: &str) -> Result<Self, InvalidName> {
        Ok(Self { namespace: Label::new(namespace)?, name: ObjectName::new(name)? })
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// The group of our own kinds.
pub const ISTHMUS_GROUP: &str = "isthmus.io";
/// The group of SIG Multicluster's About API (KEP-2149).
pub const ABOUT_GROUP: &str = "about.k8s.io";
/// The group of the Gateway API.
pub const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";
/// The group of the Multi-Cluster Services API.
pub const MCS_GROUP: &str = "multicluster.x-k8s.io";
