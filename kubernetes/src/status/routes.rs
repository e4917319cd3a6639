//! Routes of every kind: what came of each parentRef.

use std::sync::Arc;

use isthmus_config::objects::{HttpRoute, ParentRef, StreamRoute};
use isthmus_config::{CONTROLLER_NAME, ConditionPart, Kind, Objects};
use serde_json::{Value, json};

use crate::status::condition::{Condition, list};
use crate::status::world::{Name, World, shared};

/// A valid route of whatever kind, shared with the objects.
#[derive(Debug, Clone)]
pub(super) enum Route {
    /// An HTTPRoute or GRPCRoute.
    Http(Arc<HttpRoute>),
    /// A TCPRoute, TLSRoute or UDPRoute.
    Stream(Arc<StreamRoute>),
}

impl Route {
    /// The routes by their names.
    pub(super) fn all(objects: &Objects) -> impl Iterator<Item = (Name<'_>, Self)> {
        let http =
            [(Kind::GrpcRoute, &objects.grpc_routes), (Kind::HttpRoute, &objects.http_routes)];
        let http = http.into_iter().flat_map(|(kind, routes)| {
            let one = move |(key, route)| (Name::of_key(kind, key), Self::Http(Arc::clone(route)));
            routes.iter().map(one)
        });
        let stream = [
            (Kind::TcpRoute, &objects.tcp_routes),
            (Kind::TlsRoute, &objects.tls_routes),
            (Kind::UdpRoute, &objects.udp_routes),
        ];
        let stream = stream.into_iter().flat_map(|(kind, routes)| {
            let one =
                move |(key, route)| (Name::of_key(kind, key), Self::Stream(Arc::clone(route)));
            routes.iter().map(one)
        });
        http.chain(stream)
    }

    /// Whether both are the same value, by the pointer alone.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Http(a), Self::Http(b)) => Arc::ptr_eq(a, b),
            (Self::Stream(a), Self::Stream(b)) => Arc::ptr_eq(a, b),
            (Self::Http(_), Self::Stream(_)) | (Self::Stream(_), Self::Http(_)) => false,
        }
    }

    fn parents(&self) -> &[ParentRef] {
        match self {
            Self::Http(route) => &route.parents,
            Self::Stream(route) => &route.parents,
        }
    }
}

/// The status of a route that has, or had, a parent of ours. What it reads besides the
/// route itself is what [`crate::status::kept`] compares.
///
/// Spec: RouteParentStatus: an entry for each parentRef of ours, with the parentRef as
/// the route has it; a controller writes only its own entries.
pub(super) fn status(
    world: &World<'_>,
    (name, kind): (Name<'_>, Kind),
    observed: &Value,
) -> Option<Value> {
    let known = world.routes.get(&name);
    let mut entries = Vec::new();
    match (world.rejection((name, kind), observed, known.is_some()), known) {
        (Some(rejection), _) => {
            let written = observed.pointer("/spec/parentRefs").and_then(Value::as_array);
            for parent in written.into_iter().flatten() {
                if world.is_our_parent(parent, name.namespace) {
                    let (message, generation) = (rejection.message.clone(), rejection.generation);
                    let problem =
                        Condition::no("Accepted", "UnsupportedValue", message, generation);
                    entries.push(entry(parent, vec![problem]));
                }
            }
        }
        (None, Some(route)) => {
            for (index, parent) in route.parents().iter().enumerate() {
                let said = world.said(name, &ConditionPart::Parent(index));
                if !said.is_empty() && world.is_our_parent(&parent.raw, name.namespace) {
                    entries.push(entry(&parent.raw, said));
                }
            }
        }
        // Observed, and not translated yet.
        (None, None) => return None,
    }
    let parents = shared(observed, "/status/parents", "parentRef", entries, PARENTS_MAX)?;
    Some(json!({ "parents": parents }))
}

fn entry(parent: &Value, conditions: Vec<Condition>) -> Value {
    json!({
        "parentRef": parent,
        "controllerName": CONTROLLER_NAME,
        "conditions": list(conditions),
    })
}

/// Spec: `maxItems` of `RouteStatus.parents`.
const PARENTS_MAX: usize = 32;
