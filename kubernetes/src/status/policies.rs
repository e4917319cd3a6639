//! BackendTLSPolicies: what came of each at the Gateways that use its targets.

use std::collections::BTreeSet;

use isthmus_config::{CONTROLLER_NAME, ConditionPart, Kind, ObjectKey};
use serde_json::{Value, json};

use crate::status::condition::{Condition, list};
use crate::status::users;
use crate::status::world::{Name, World, gateway_reference, shared};

/// The status of a policy for services that Gateways of ours use, or used.
///
/// Spec: GEP-713 PolicyAncestorStatus; the ancestors of this policy are Gateways.
pub(super) fn status(world: &World<'_>, name: Name<'_>, observed: &Value) -> Option<Value> {
    let known = name.key().and_then(|key| world.inputs.objects.backend_tls_policies.get(&key));
    let ancestors = world.parts(name).into_iter().filter_map(|part| match part {
        ConditionPart::Ancestor(gateway) => Some(gateway.clone()),
        ConditionPart::Listener(_) | ConditionPart::Object | ConditionPart::Parent(_) => None,
    });
    let mut ancestors: BTreeSet<ObjectKey> = ancestors.collect();
    let rejection = world.rejection((name, Kind::BackendTlsPolicy), observed, known.is_some());
    if rejection.is_none() && known.is_none() {
        // Observed, and not translated yet.
        return None;
    }
    // A target that does not exist is used by nobody as far as the translation goes, but
    // the routes that name it show whose policy it is.
    let of_object = world.said(name, &ConditionPart::Object).into_iter().next();
    if rejection.is_some() || of_object.is_some() {
        ancestors.extend(users::of(world, name, observed));
    }
    let entries = ancestors.iter().filter_map(|gateway| {
        let conditions = match &rejection {
            Some(rejection) => {
                let (message, generation) = (rejection.message.clone(), rejection.generation);
                vec![Condition::no("Accepted", "Invalid", message, generation)]
            }
            None => {
                let mut said = world.said(name, &ConditionPart::Ancestor(gateway.clone()));
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

/// Spec: `maxItems` of `PolicyStatus.ancestors`.
const ANCESTORS_MAX: usize = 16;
