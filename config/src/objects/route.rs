//! Validated routes of every kind, with references as the user wrote them.

use isthmus_model::route::{Filter, Retry, RouteMatch, Timeouts};
use isthmus_model::{Hostname, HttpRouteKind, Label, ObjectName, ServiceKey, StreamRouteKind};

use crate::kind::ObjectKey;

/// An HTTPRoute, or a GRPCRoute in the same form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpRoute {
    /// The kind that the user wrote.
    pub kind: HttpRouteKind,
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

/// A TCPRoute, TLSRoute or UDPRoute. Each has exactly one rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamRoute {
    /// The kind that the user wrote.
    pub kind: StreamRouteKind,
    /// Namespace and name.
    pub key: ObjectKey,
    /// Where it wants to be attached.
    pub parents: Vec<ParentRef>,
    /// Server names of a TLSRoute, never empty there; empty for the other kinds.
    pub hostnames: Vec<Hostname>,
    /// The backends of the rule; never empty.
    pub backends: Vec<BackendRef>,
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
    /// The parentRef as the user wrote it, which the status repeats.
    pub raw: serde_json::Value,
}

/// What a route is attached to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ParentTarget {
    /// A Gateway.
    Gateway(ObjectKey),
    /// A ListenerSet.
    ListenerSet(ObjectKey),
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
    /// When a request is sent again.
    pub retry: Option<Retry>,
    /// Fields that are in the schema and have no effect here: `sessionPersistence`, ….
    pub without_effect: Vec<&'static str>,
}

/// One filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteFilter {
    /// A copy of requests for another backend.
    Mirror {
        /// Where copies go; weight and filters are not used.
        backend: BackendRef,
        /// The share that is copied: numerator and denominator, the latter not 0.
        fraction: (u32, u32),
    },
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
