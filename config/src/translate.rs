//! Objects to resources of the model, with the conditions that say what came of them.
//!
//! Pure: the same objects and context give the same translation. A reference that cannot
//! be used is never left out silently: the requests that would use it are answered with
//! an error, its siblings go on working, and a condition names it.

mod attach;
pub(crate) mod conditions;
mod gateways;
mod links;
mod references;
mod routes;
mod rules;
mod services;

use isthmus_model::Resource;

pub use self::conditions::{ConditionPart, ConditionType, ObjectCondition};
pub(crate) use self::services::has_ready_endpoint;
pub use self::services::{LocalService, local_services};
use crate::context::Context;
use crate::objects::Objects;

/// What objects mean.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Translation {
    /// The resources: listeners, certificates, routes, policies, and the services of this
    /// cluster with their endpoints.
    pub resources: Vec<Resource>,
    /// What came of each object.
    pub conditions: Vec<ObjectCondition>,
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
    routes::translate(objects, context, &gateways, &mut translation);
    for policy in objects.peer_authentications.values() {
        translation.resources.push(Resource::PeerAuthentication(policy.clone()));
    }
    translation
}

/// The controller whose GatewayClasses are ours.
pub const CONTROLLER_NAME: &str = "isthmus.io/gateway-controller";

#[cfg(test)]
mod tests;
