//! GatewayClasses, Gateways and ListenerSets.

use isthmus_config::translate::ListenerStatus;
use isthmus_config::{ConditionPart, Kind};
use serde_json::{Value, json};

use crate::provision::place::{GatewayPlace, PlaceAddress};
use crate::status::condition::{Condition, list};
use crate::status::features::SUPPORTED_FEATURES;
use crate::status::release;
use crate::status::world::{Name, Rejection, World, generation};

/// The status of a GatewayClass of ours.
pub(super) fn class(world: &World<'_>, name: Name<'_>, observed: &Value) -> Option<Value> {
    if !world.is_our_class(observed) {
        return None;
    }
    let classes = &world.inputs.objects.gateway_classes;
    let is_kept = classes.keys().any(|key| key.as_str() == name.name);
    let rejection = world.rejection((name, Kind::GatewayClass), observed, is_kept);
    let (mut conditions, generation) = match rejection {
        Some(Rejection { message, generation }) => {
            (vec![Condition::no("Accepted", "Unsupported", message, generation)], generation)
        }
        None => {
            let said = world.said(name, &ConditionPart::Object);
            let generation = said.first()?.generation;
            (said, generation)
        }
    };
    conditions.extend(world.inputs.bundle_version.map(|version| supported(version, generation)));
    let features: Vec<Value> =
        SUPPORTED_FEATURES.iter().map(|feature| json!({ "name": feature })).collect();
    Some(json!({ "conditions": list(conditions), "supportedFeatures": features }))
}

/// Spec: GatewayClassConditionType SupportedVersion: about the CRDs that are installed,
/// read from their annotation. Other versions have our best effort, so `Accepted` does not
/// depend on it.
fn supported(version: &str, generation: i64) -> Condition {
    if release::is_supported(version) {
        return Condition::yes("SupportedVersion", generation);
    }
    let (first, last) = (release::MINORS.start(), release::MINORS.end());
    let message = format!(
        "the CRDs of Gateway API are of version {version}; versions 1.{first} to 1.{last} are \
         supported, others are used as far as they agree"
    );
    Condition::no("SupportedVersion", "UnsupportedVersion", message, generation)
}

/// The status of a Gateway of ours.
pub(super) fn gateway(world: &World<'_>, name: Name<'_>, observed: &Value) -> Option<Value> {
    if !world.is_our_gateway(observed) {
        return None;
    }
    let key = name.key();
    let known = key.as_ref().and_then(|key| world.inputs.objects.gateways.get(key));
    let place = key.as_ref().and_then(|key| world.inputs.places.get(key));
    let conditions = match world.rejection((name, Kind::Gateway), observed, known.is_some()) {
        Some(rejection) => invalid(&rejection),
        None => {
            let mut said = world.said(name, &ConditionPart::Object);
            if said.is_empty() {
                return None;
            }
            if let Some((reason, message)) = missing(place) {
                withdraw(&mut said, reason, &message);
            }
            said
        }
    };
    let mut status = json!({
        "addresses": place.map(addresses).unwrap_or_default(),
        "conditions": list(conditions),
        "listeners": listeners(world, name),
    });
    let mut sets = world.inputs.gateways.iter();
    let sets = sets.find(|status| Name::of_reference(&status.gateway) == name);
    let sets = sets.map_or(0, |status| status.attached_listener_sets);
    // CRDs of older versions do not have the field, and the server refuses what they do
    // not have.
    if sets > 0 || observed.pointer("/status/attachedListenerSets").is_some() {
        status["attachedListenerSets"] = json!(sets);
    }
    Some(status)
}

/// The status of a ListenerSet of a Gateway of ours.
pub(super) fn listener_set(world: &World<'_>, name: Name<'_>, observed: &Value) -> Option<Value> {
    let gateway = world.our_gateway_of(observed)?;
    let known = name.key().and_then(|key| world.inputs.objects.listener_sets.get(&key));
    let parent = gateway.key();
    let parent_known =
        parent.as_ref().is_some_and(|key| world.inputs.objects.gateways.contains_key(key));
    let shown = format!("Gateway {}/{}", gateway.namespace, gateway.name);
    let conditions = match world.rejection((name, Kind::ListenerSet), observed, known.is_some()) {
        Some(rejection) => invalid(&rejection),
        None if !parent_known => {
            // A Gateway that is only not translated yet gets here for a moment, too.
            world.rejection((gateway, Kind::Gateway), observed, false)?;
            let message = format!("{shown} is not valid");
            let no = |kind| {
                Condition::no(kind, "ParentNotAccepted", message.clone(), generation(observed))
            };
            vec![no("Accepted"), no("Programmed")]
        }
        None => {
            let mut said = world.said(name, &ConditionPart::Object);
            if said.is_empty() {
                return None;
            }
            let place = parent.as_ref().and_then(|key| world.inputs.places.get(key));
            if let Some((_, message)) = missing(place) {
                withdraw(&mut said, "Pending", &format!("{shown}: {message}"));
            }
            said
        }
    };
    Some(json!({ "conditions": list(conditions), "listeners": listeners(world, name) }))
}

/// What is said of a Gateway or ListenerSet whose newest version is rejected.
fn invalid(rejection: &Rejection) -> Vec<Condition> {
    let no = |kind| Condition::no(kind, "Invalid", rejection.message.clone(), rejection.generation);
    vec![no("Accepted"), no("Programmed")]
}

/// Says that what is programmed cannot be reached, with a reason; leaves what is not
/// programmed for a reason of its own.
fn withdraw(conditions: &mut [Condition], reason: &'static str, message: &str) {
    for condition in conditions {
        if condition.kind == "Programmed" && condition.status {
            *condition = Condition::no("Programmed", reason, message, condition.generation);
        }
    }
}

/// Why clients cannot reach a Gateway: reason and message.
fn missing(place: Option<&GatewayPlace>) -> Option<(&'static str, String)> {
    let Some(place) = place else {
        return Some(("Pending", "what serves the Gateway is not made yet".to_owned()));
    };
    if let Some(problem) = &place.problem {
        return Some((problem.reason, problem.message.clone()));
    }
    if place.addresses.is_empty() {
        let message = "the Gateway's Service has no address yet";
        return Some(("AddressNotAssigned", message.to_owned()));
    }
    (place.pods_available == 0)
        .then(|| ("Pending", "no pod that serves the Gateway is available yet".to_owned()))
}

/// Spec: GatewayStatus.addresses: the type is always written, since readers pass over an
/// address without one.
fn addresses(place: &GatewayPlace) -> Vec<Value> {
    let address = |address: &PlaceAddress| match address {
        PlaceAddress::Hostname(name) => json!({ "type": "Hostname", "value": name }),
        PlaceAddress::Ip(ip) => json!({ "type": "IPAddress", "value": ip.to_string() }),
    };
    place.addresses.iter().take(ADDRESSES_MAX).map(address).collect()
}

fn listeners(world: &World<'_>, owner: Name<'_>) -> Vec<Value> {
    let one = |status: &ListenerStatus| {
        let kinds = status.supported_kinds.iter();
        let kinds = kinds.map(|kind| json!({ "group": kind.group, "kind": kind.kind }));
        json!({
            "name": status.name.as_str(),
            "supportedKinds": kinds.collect::<Vec<_>>(),
            "attachedRoutes": status.attached_routes,
            "conditions": list(world.said(owner, &ConditionPart::Listener(status.name.clone()))),
        })
    };
    world.listeners(owner).take(LISTENERS_MAX).map(one).collect()
}

/// Spec: `maxItems` of `GatewayStatus.addresses`.
const ADDRESSES_MAX: usize = 16;
/// Spec: `maxItems` of `GatewayStatus.listeners` and `ListenerSetStatus.listeners`.
const LISTENERS_MAX: usize = 64;
