//! Routes of every kind: what came of each parentRef.

use std::collections::BTreeMap;
use std::sync::Arc;

use isthmus_config::objects::{HttpRoute, ParentRef, StreamRoute};
use isthmus_config::{CONTROLLER_NAME, ConditionPart, Kind, ObjectKey, Objects};
use serde_json::{Value, json};

use crate::status::condition::{Condition, list};
use crate::status::world::{Name, World, shared};

/// The status of a route that has, or had, a parent of ours.
///
/// Spec: RouteParentStatus: an entry for each parentRef of ours, with the parentRef as
/// the route has it; a controller writes only its own entries.
pub(super) fn status(world: &World<'_>, name: &Name, observed: &Value) -> Option<Value> {
    let (kind, known) = route(world.inputs.objects, name)?;
    let reference = name.reference(kind);
    let mut entries = Vec::new();
    match (world.rejection(&reference, observed, known.is_some()), known) {
        (Some(rejection), _) => {
            let written = observed.pointer("/spec/parentRefs").and_then(Value::as_array);
            for parent in written.into_iter().flatten() {
                if world.is_our_parent(parent, &name.namespace) {
                    let (message, generation) = (rejection.message.clone(), rejection.generation);
                    let problem =
                        Condition::no("Accepted", "UnsupportedValue", message, generation);
                    entries.push(entry(parent, vec![problem]));
                }
            }
        }
        (None, Some(parents)) => {
            for (index, parent) in parents.iter().enumerate() {
                let said = world.said(&reference, &ConditionPart::Parent(index));
                if !said.is_empty() && world.is_our_parent(&parent.raw, &name.namespace) {
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

/// The kind of a route, and the parentRefs of its valid version if it has one.
fn route<'o>(objects: &'o Objects, name: &Name) -> Option<(Kind, Option<&'o [ParentRef]>)> {
    let key = name.key();
    let http = |routes: &'o BTreeMap<ObjectKey, Arc<HttpRoute>>| {
        routes.get(key.as_ref()?).map(|route| route.parents.as_slice())
    };
    let stream = |routes: &'o BTreeMap<ObjectKey, Arc<StreamRoute>>| {
        routes.get(key.as_ref()?).map(|route| route.parents.as_slice())
    };
    match name.kind.as_str() {
        "GRPCRoute" => Some((Kind::GrpcRoute, http(&objects.grpc_routes))),
        "HTTPRoute" => Some((Kind::HttpRoute, http(&objects.http_routes))),
        "TCPRoute" => Some((Kind::TcpRoute, stream(&objects.tcp_routes))),
        "TLSRoute" => Some((Kind::TlsRoute, stream(&objects.tls_routes))),
        "UDPRoute" => Some((Kind::UdpRoute, stream(&objects.udp_routes))),
        _ => None,
    }
}

/// Spec: `maxItems` of `RouteStatus.parents`.
const PARENTS_MAX: usize = 32;
