//! Validated HTTPRoute, with references as the user wrote them.

use isthmus_model::route::{Filter, RouteMatch, Timeouts};
use isthmus_model::{Hostname, Label, ObjectName, ServiceKey};

use crate::kind::ObjectKey;

/// An HTTPRoute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpRoute {
    /// Namespace and name.
    pub key: ObjectKey,
    /// Where it wants to be attached.
    pub parents: Vec<ParentRef>,
    /// Its hostnames; empty means those of the listener.
    pub hostnames: Vec<Hostname>,
    /// Its rules.
    pub rules: Vec<HttpRule>,
    /// Seconds since 1970.
    pub created: i64,
}

/// Where a route wants to be attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParentRef {
    /// The parent.
    pub target: ParentTarget,
    /// One listener of a Gateway.
    pub section: Option<ObjectName>,
    /// Listeners, or the port of a service, with this number.
    pub port: Option<u16>,
}

/// What a route is attached to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ParentTarget {
    /// A Gateway.
    Gateway(ObjectKey),
    /// A Service or ServiceImport, for traffic inside the mesh.
    Service(ServiceKey),
    /// Another kind: `group/kind namespace/name`.
    Unsupported(String),
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpRule {
    /// Its name.
    pub name: Option<String>,
    /// Its matches; never empty.
    pub matches: Vec<RouteMatch>,
    /// Its filters, in order.
    pub filters: Vec<RouteFilter>,
    /// Its backends.
    pub backends: Vec<BackendRef>,
    /// Its timeouts.
    pub timeouts: Timeouts,
    /// Fields that are in the schema and have no effect here: `retry`, ….
    pub without_effect: Vec<&'static str>,
}

/// One filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteFilter {
    /// A filter that the data plane has.
    Supported(Filter),
    /// The type of a filter that it does not have: the rule answers with 500.
    Unsupported(&'static str),
}

/// One weighted backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendRef {
    /// Where it goes.
    pub target: BackendTargetRef,
    /// The port.
    pub port: Option<u16>,
    /// Share among the rule's backends.
    pub weight: u32,
    /// Filters of this backend alone.
    pub filters: Vec<RouteFilter>,
}

/// What a backend reference names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackendTargetRef {
    /// A Service or ServiceImport.
    Service(ServiceKey),
    /// Another kind.
    Unsupported {
        /// `group/kind`.
        kind: String,
        /// Its namespace.
        namespace: Label,
    },
}
