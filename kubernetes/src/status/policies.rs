//! BackendTLSPolicies: what came of each at the Gateways that use its targets.

use std::collections::BTreeSet;
use std::sync::Arc;

use isthmus_config::objects::{BackendTargetRef, HttpRoute};
use isthmus_config::{CONTROLLER_NAME, ConditionPart, Kind, ObjectKey};
use serde_json::{Value, json};

use crate::status::condition::{Condition, list};
use crate::status::world::{Name, World, gateway_reference, shared, text};

/// The status of a policy for services that Gateways of ours use, or used.
///
/// Spec: GEP-713 PolicyAncestorStatus; the ancestors of this policy are Gateways.
pub(super) fn status(world: &World<'_>, name: &Name, observed: &Value) -> Option<Value> {
    let reference = name.reference(Kind::BackendTlsPolicy);
    let known = name.key().and_then(|key| world.inputs.objects.backend_tls_policies.get(&key));
    let ancestors = world.parts(&reference).into_iter().filter_map(|part| match part {
        ConditionPart::Ancestor(gateway) => Some(gateway.clone()),
        ConditionPart::Listener(_) | ConditionPart::Object | ConditionPart::Parent(_) => None,
    });
    let mut ancestors: BTreeSet<ObjectKey> = ancestors.collect();
    let rejection = world.rejection(&reference, observed, known.is_some());
    if rejection.is_none() && known.is_none() {
        // Observed, and not translated yet.
        return None;
    }
    // A target that does not exist is used by nobody as far as the translation goes, but
    // the routes that name it show whose policy it is.
    let of_object = world.said(&reference, &ConditionPart::Object).into_iter().next();
    if rejection.is_some() || of_object.is_some() {
        ancestors.extend(users(world, name, observed));
    }
    let entries = ancestors.iter().filter_map(|gateway| {
        let conditions = match &rejection {
            Some(rejection) => {
                let (message, generation) = (rejection.message.clone(), rejection.generation);
                vec![Condition::no("Accepted", "Invalid", message, generation)]
            }
            None => {
                let mut said = world.said(&reference, &ConditionPart::Ancestor(gateway.clone()));
                match &of_object {
                    Some(problem) if said.is_empty() => said.push(problem.clone()),
                    Some(problem) => add_to_accepted(&mut said, problem),
                    None => {}
                }
                said
            }
        };
        (!conditions.is_empty()).then(|| {
            json!({
                "ancestorRef": gateway_reference(gateway),
                "controllerName": CONTROLLER_NAME,
                "conditions": list(conditions),
            })
        })
    });
    let entries = entries.collect();
    let ancestors = shared(observed, "/status/ancestors", "ancestorRef", entries, ANCESTORS_MAX)?;
    Some(json!({ "ancestors": ancestors }))
}

/// Names a target that does not exist beside one that does.
fn add_to_accepted(conditions: &mut [Condition], problem: &Condition) {
    for condition in conditions {
        if condition.kind == "Accepted" && condition.status {
            condition.message = format!("not for every target: {}", problem.message);
        }
    }
}

/// The Gateways of ours with routes that name a target of the policy.
fn users(world: &World<'_>, policy: &Name, observed: &Value) -> BTreeSet<ObjectKey> {
    let targets = observed.pointer("/spec/targetRefs").and_then(Value::as_array);
    let targets: BTreeSet<&str> =
        targets.into_iter().flatten().filter_map(|target| text(target, "/name")).collect();
    let is_target = |target: &BackendTargetRef| match target {
        BackendTargetRef::Service(service) => {
            service.namespace.as_str() == policy.namespace
                && targets.contains(service.name.as_str())
        }
        BackendTargetRef::Unsupported { .. } => false,
    };
    let objects = world.inputs.objects;
    let routes = objects.http_routes.values().chain(objects.grpc_routes.values());
    let routes = routes.filter(|route: &&Arc<HttpRoute>| {
        let mut backends = route.rules.iter().flat_map(|rule| &rule.backends);
        backends.any(|backend| is_target(&backend.target))
    });
    let mut found = BTreeSet::new();
    for route in routes {
        for parent in &route.parents {
            let gateway = world.gateway_of_parent(&parent.raw, route.key.namespace.as_str());
            found.extend(gateway.and_then(|gateway| gateway.key()));
        }
    }
    found
}

/// Spec: `maxItems` of `PolicyStatus.ancestors`.
const ANCESTORS_MAX: usize = 16;
