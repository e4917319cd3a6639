//! Validated GatewayClass, Gateway, ListenerSet and ReferenceGrant.

use std::collections::BTreeMap;
use std::net::IpAddr;

use isthmus_model::{Hostname, Label, ObjectName};

use crate::kind::ObjectKey;
use crate::objects::parameters::ParametersRef;

/// A GatewayClass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayClass {
    /// Its name.
    pub name: ObjectName,
    /// Which controller its Gateways belong to.
    pub controller_name: String,
    /// The parameters of its Gateways.
    pub parameters: Option<ParametersRef>,
    /// Seconds since 1970.
    pub created: i64,
}

/// A Gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateway {
    /// Namespace and name.
    pub key: ObjectKey,
    /// Its class.
    pub class: ObjectName,
    /// Its listeners, in order.
    pub listeners: Vec<GatewayListener>,
    /// Its addresses.
    pub addresses: Vec<GatewayAddress>,
    /// What is demanded of clients' certificates at its HTTPS listeners.
    pub frontend: FrontendTls,
    /// The certificate that backends are shown.
    pub backend_certificate: Option<SecretRef>,
    /// From which namespaces ListenerSets may add listeners.
    pub allowed_listeners: AllowedNamespaces,
    /// What is asked of the processes that serve it.
    pub infrastructure: Infrastructure,
    /// Seconds since 1970.
    pub created: i64,
}

/// An address of a Gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GatewayAddress {
    /// Bound by the ingress role.
    Ip(IpAddr),
    /// Of a type that cannot be bound.
    Unsupported(String),
}

/// What is asked of the processes that serve a Gateway.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Infrastructure {
    /// Labels for what is made for the Gateway.
    pub labels: BTreeMap<String, String>,
    /// Annotations for what is made for the Gateway.
    pub annotations: BTreeMap<String, String>,
    /// The parameters of this Gateway; they win over those of its class.
    pub parameters: Option<ParametersRef>,
}

/// What is demanded of clients' certificates.
///
/// Spec: Gateway API `Gateway.spec.tls.frontend`, GEP-91.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FrontendTls {
    /// At ports that have no entry of their own; `None` demands nothing.
    pub default: Option<FrontendValidation>,
    /// At single ports; `None` demands nothing there.
    pub per_port: BTreeMap<u16, Option<FrontendValidation>>,
}

impl FrontendTls {
    /// What is demanded at a port.
    pub fn at(&self, port: u16) -> Option<&FrontendValidation> {
        self.per_port.get(&port).unwrap_or(&self.default).as_ref()
    }

    /// Whether some port lets in clients whose certificate is wrong.
    pub fn has_insecure_fallback(&self) -> bool {
        let mut all = self.per_port.values().chain([&self.default]).flatten();
        all.any(|validation| validation.insecure_fallback)
    }
}

/// How clients' certificates are validated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrontendValidation {
    /// Where the certificates are that clients' chains must end in.
    pub roots: Vec<CaRef>,
    /// Whether clients with a wrong certificate, or none, are let in all the same.
    pub insecure_fallback: bool,
}

/// A reference to certificates of authorities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CaRef {
    /// The key `ca.crt` of a ConfigMap.
    ConfigMap(ObjectKey),
    /// Another kind.
    Unsupported(String),
}

/// Listeners that are added to a Gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerSet {
    /// Namespace and name.
    pub key: ObjectKey,
    /// The Gateway; `None` where the parent is of another kind.
    pub gateway: Option<ObjectKey>,
    /// Its listeners, in order.
    pub listeners: Vec<GatewayListener>,
    /// Seconds since 1970.
    pub created: i64,
}

/// One listener of a Gateway or ListenerSet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayListener {
    /// Its name, unique in its Gateway or ListenerSet.
    pub name: ObjectName,
    /// The hostname pattern; `None` takes every host.
    pub hostname: Option<Hostname>,
    /// The port that clients see.
    pub port: u16,
    /// What it speaks.
    pub protocol: Protocol,
    /// Its certificates.
    pub certificates: Vec<SecretRef>,
    /// Whether the listener has `tls.frontendValidation`, which the standard channel does
    /// not have: a Gateway says it with [`Gateway::frontend`].
    pub validates_clients: bool,
    /// From which namespaces routes may attach.
    pub namespaces: AllowedNamespaces,
    /// Which kinds of routes may attach; empty means those of the protocol.
    pub kinds: Vec<RouteKind>,
}

/// What a listener speaks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// HTTP.
    Http,
    /// HTTP over TLS that ends at the gateway.
    Https,
    /// Opaque TCP.
    Tcp,
    /// TLS that goes on to the backend as it is.
    TlsPassthrough,
    /// TLS that ends at the gateway, with opaque bytes in it.
    TlsTerminate,
    /// UDP.
    Udp,
    /// A protocol that the gateway does not speak.
    Unsupported(String),
}

/// A reference to a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretRef {
    /// A Secret.
    Secret(ObjectKey),
    /// Another kind.
    Unsupported(String),
}

/// From which namespaces routes may attach to a listener, or ListenerSets to a Gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedNamespaces {
    /// Every namespace.
    All,
    /// No namespace.
    None,
    /// The object's own.
    Same,
    /// Those whose labels match.
    Selector(Selector),
}

/// A kind of route.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouteKind {
    /// The API group.
    pub group: String,
    /// The kind.
    pub kind: String,
}

/// A label selector. All its parts must match; without parts it matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selector {
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) requirements: Vec<Requirement>,
}

/// One expression of a selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Requirement {
    pub(crate) key: String,
    pub(crate) operator: Operator,
    pub(crate) values: Vec<String>,
}

/// Spec: Kubernetes label selector operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operator {
    DoesNotExist,
    Exists,
    In,
    NotIn,
}

impl Selector {
    /// Whether labels match.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.requirements.iter().all(|requirement| requirement.matches(labels))
    }
}

impl Requirement {
    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        let listed = value.is_some_and(|value| self.values.contains(value));
        match self.operator {
            Operator::DoesNotExist => value.is_none(),
            Operator::Exists => value.is_some(),
            Operator::In => listed,
            Operator::NotIn => !listed,
        }
    }
}

/// A ReferenceGrant: objects of other namespaces may refer to objects of this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferenceGrant {
    /// Namespace and name; the namespace is that of the objects referred to.
    pub key: ObjectKey,
    /// Who may refer.
    pub from: Vec<GrantFrom>,
    /// To what.
    pub to: Vec<GrantTo>,
    /// Seconds since 1970.
    pub created: i64,
}

/// Who may refer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantFrom {
    /// The API group of the referring object.
    pub group: String,
    /// Its kind.
    pub kind: String,
    /// Its namespace.
    pub namespace: Label,
}

/// What may be referred to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantTo {
    /// The API group.
    pub group: String,
    /// The kind.
    pub kind: String,
    /// One object; `None` is every object of the kind.
    pub name: Option<String>,
}
