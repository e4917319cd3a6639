//! Validated GatewayClass, Gateway and ReferenceGrant.

use std::collections::BTreeMap;
use std::net::IpAddr;

use isthmus_model::{Hostname, Label, ObjectName};

use crate::kind::ObjectKey;

/// A GatewayClass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayClass {
    /// Its name.
    pub name: ObjectName,
    /// Which controller its Gateways belong to.
    pub controller_name: String,
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
    /// Whether client certificates are demanded for the whole Gateway.
    pub validates_clients: bool,
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

/// One listener of a Gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayListener {
    /// Its name, unique in the Gateway.
    pub name: ObjectName,
    /// The hostname pattern; `None` takes every host.
    pub hostname: Option<Hostname>,
    /// The port that clients see.
    pub port: u16,
    /// What it speaks.
    pub protocol: Protocol,
    /// Its certificates.
    pub certificates: Vec<SecretRef>,
    /// Whether client certificates are demanded.
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

/// From which namespaces routes may attach to a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedNamespaces {
    /// Every namespace.
    All,
    /// No namespace.
    None,
    /// The Gateway's own.
    Same,
    /// Those whose labels match.
    Selector(Selector),
}

/// A kind of route.
#[derive(Debug, Clone, PartialEq, Eq)]
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
