//! Objects to resources of the model, with the conditions that say what came of them.
//!
//! Pure: the same objects and context give the same translation. A reference that cannot
//! be used is never left out silently: the requests that would use it are answered with
//! an error, its siblings go on working, and a condition names it.

mod attach;
mod backend_tls;
mod backends;
pub(crate) mod conditions;
mod gateways;
mod links;
mod references;
mod routes;
mod rules;
mod services;
mod streams;

use std::collections::BTreeSet;

use isthmus_model::{ObjectName, Resource};

pub use self::conditions::{ConditionPart, ConditionType, ObjectCondition};
pub use self::gateways::{ServedGateway, served_gateways};
pub(crate) use self::services::has_ready_endpoint;
pub use self::services::{LocalService, exported_services, local_services};
use crate::context::Context;
use crate::kind::ObjectRef;
use crate::objects::{Objects, RouteKind};

/// What objects mean.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Translation {
    /// The resources: listeners, certificates, routes, policies, and the services of this
    /// cluster with their endpoints.
    pub resources: Vec<Resource>,
    /// What came of each object.
    pub conditions: Vec<ObjectCondition>,
    /// What the status of every listener of ours says beside its conditions.
    pub listeners: Vec<ListenerStatus>,
    /// What the status of every Gateway of ours says beside its conditions.
    pub gateways: Vec<GatewayStatus>,
}

impl Translation {
    /// Counts a route at listeners, by their index in [`Translation::listeners`].
    fn count_route(&mut self, listeners: &BTreeSet<usize>) {
        for index in listeners {
            if let Some(status) = self.listeners.get_mut(*index) {
                status.attached_routes += 1;
            }
        }
    }
}

/// What the status of a Gateway says beside its conditions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayStatus {
    /// The Gateway.
    pub gateway: ObjectRef,
    /// How many ListenerSets it has that are accepted.
    pub attached_listener_sets: u32,
}

/// What the status of a listener says beside its conditions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerStatus {
    /// The Gateway or ListenerSet.
    pub parent: ObjectRef,
    /// The name of the listener.
    pub name: ObjectName,
    /// The kinds of routes that may attach.
    pub supported_kinds: Vec<RouteKind>,
    /// How many routes are accepted here, also when the listener itself cannot be used.
    pub attached_routes: u32,
}

/// Translates.
pub fn translate(objects: &Objects, context: &Context) -> Translation {
    let mut translation = Translation::default();
    for (_, local) in local_services(objects, context) {
        translation.resources.push(Resource::Service(local.service));
        translation.resources.push(Resource::Endpoints(local.endpoints));
    }
    services::conditions(objects, &mut translation.conditions);
    links::conditions(objects, context, &mut translation.conditions);
    let gateways = gateways::translate(objects, context, &mut translation);
    let users = routes::translate(objects, context, &gateways, &mut translation);
    streams::translate(objects, context, &gateways, &mut translation);
    backend_tls::translate(objects, &users, &mut translation);
    for policy in objects.peer_authentications.values() {
        translation.resources.push(Resource::PeerAuthentication(policy.clone()));
    }
    for condition in &mut translation.conditions {
        condition.observed_generation = objects.generation(&condition.object);
    }
    translation
}

/// The controller whose GatewayClasses are ours.
pub const CONTROLLER_NAME: &str = "isthmus.io/gateway-controller";

#[cfg(test)]
mod route_tests;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
