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
//! An edit changes few statuses of many, so [`Statuses`] keeps what it has made for as long
//! as it holds.
//!
//! `lastTransitionTime` is not written here: [`crate::apply::StatusPlanner`] adds it.

mod condition;

pub mod features;

mod gateways;

mod kept;

mod policies;

pub mod release;

mod routes;

mod users;

mod world;

use std::collections::BTreeMap;
use std::sync::Arc;

use isthmus_config::translate::{GatewayStatus, ListenerStatus};
use isthmus_config::{ConfigError, ObjectCondition, ObjectKey, Objects};
use serde_json::Value;

use crate::provision::place::GatewayPlace;
pub use crate::status::kept::Statuses;

/// The group of the objects whose status is made here; others need not be handed over.
pub const GROUP: &str = world::GATEWAY_GROUP;

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
    /// of ours may be among them; they are passed over, at a price.
    pub observed: &'i [Arc<Value>],
    /// The objects that validation rejects.
    pub rejected: &'i [ConfigError],
    /// The annotation [`release::ANNOTATION`] of the CRD of GatewayClass; `None`
    /// where it is not known, and then nothing is said of it.
    pub bundle_version: Option<&'i str>,
}

/// The types of the top-level conditions that [`Statuses`] writes, for
/// [`crate::apply::StatusPlanner`].
pub const OWN_CONDITIONS: &[&str] = &[
    "Accepted",
    "InsecureFrontendValidationMode",
    "Programmed",
    "ResolvedRefs",
    "SupportedVersion",
];

#[cfg(test)]
mod tests;
