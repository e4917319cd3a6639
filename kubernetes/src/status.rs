//! What came of the user's objects, as statuses for server-side apply. Pure.
//!
//! The translation says what came of each object that is valid; the cluster says whether
//! the processes that it asks for run; validation says what is wrong with the rest. This
//! module joins the three. It never guesses: an object that belongs to another
//! controller, or whose Gateway nobody has made, gets no word from us.
//!
//! `status.parents` and `status.ancestors` are lists that controllers share and that the
//! server does not merge. So the entries of others are repeated as they are observed,
//! each at its place, and ours are put in, replaced and taken out between them.
//!
//! An object whose newest version is rejected says so with that version's generation,
//! and which version is in use meanwhile. The parts of its status that come from the
//! version in use keep that version's generation.
//!
//! `lastTransitionTime` is not written here: [`crate::apply::plan_status`] adds it.

mod condition;

pub mod features;

mod gateways;

mod policies;

pub mod release;

mod routes;

mod world;

use std::collections::BTreeMap;

use isthmus_config::translate::{GatewayStatus, ListenerStatus};
use isthmus_config::{ConfigError, ObjectCondition, ObjectKey, Objects};
use serde_json::Value;

use crate::provision::place::GatewayPlace;
use crate::status::world::World;

/// What statuses are made from.
#[derive(Debug, Clone, Copy)]
pub struct StatusInputs<'i> {
    /// The valid objects, as they were translated.
    pub objects: &'i Objects,
    /// What the translation says of them.
    pub conditions: &'i [ObjectCondition],
    /// What it says of listeners beside conditions.
    pub listeners: &'i [ListenerStatus],
    /// What it says of Gateways beside conditions.
    pub gateways: &'i [GatewayStatus],
    /// Where clients reach the Gateways of ours.
    pub places: &'i BTreeMap<ObjectKey, GatewayPlace>,
    /// The objects as the server has them, with their status. Kinds that have no status
    /// of ours may be among them.
    pub observed: &'i [&'i Value],
    /// The objects that validation rejects.
    pub rejected: &'i [ConfigError],
    /// The annotation [`release::ANNOTATION`] of the CRD of GatewayClass; `None`
    /// where it is not known, and then nothing is said of it.
    pub bundle_version: Option<&'i str>,
}

/// The statuses that are to be applied: names and `status` of every object of ours that
/// is observed, ordered by kind, namespace and name.
pub fn desired(inputs: &StatusInputs<'_>) -> Vec<Value> {
    let world = World::new(inputs);
    let mut statuses = Vec::new();
    for (object, observed) in &world.observed {
        let status = match object.kind.as_str() {
            "BackendTLSPolicy" => policies::status(&world, object, observed),
            "GRPCRoute" | "HTTPRoute" | "TCPRoute" | "TLSRoute" | "UDPRoute" => {
                routes::status(&world, object, observed)
            }
            "Gateway" => gateways::gateway(&world, object, observed),
            "GatewayClass" => gateways::class(&world, object, observed),
            "ListenerSet" => gateways::listener_set(&world, object, observed),
            _ => None,
        };
        statuses.extend(status.map(|status| world::with_status(observed, status)));
    }
    statuses
}

/// The types of the top-level conditions that [`desired`] writes, for
/// [`crate::apply::plan_status`].
pub const OWN_CONDITIONS: &[&str] = &[
    "Accepted",
    "InsecureFrontendValidationMode",
    "Programmed",
    "ResolvedRefs",
    "SupportedVersion",
];

#[cfg(test)]
mod tests;
