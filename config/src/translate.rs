//! Objects to resources of the model, with the conditions that say what came of them.
//!
//! Pure: the same objects and context give the same translation. A reference that cannot
//! be used is never left out silently: the requests that would use it are answered with
//! an error, its siblings go on working, and a condition names it.
//!
//! A state of a large cluster differs from the one before in a few objects. So a
//! [`Translator`] keeps what it has made of each Service and each route, and makes anew
//! only what depends on what has changed. It is a matter of cost alone: [`translate()`] is
//! a translator without a past, and one with any past gives the same.

mod attach;
mod backend_tls;
mod backends;
pub(crate) mod conditions;
mod gateways;
mod kept;
mod links;
mod outcome;
mod references;
mod routes;
mod rules;
mod services;
mod streams;
mod translator;

use std::sync::Arc;

use isthmus_model::{ObjectName, Resource, ResourceKey};

pub use self::conditions::{ConditionPart, ConditionType, ObjectCondition};
pub use self::gateways::{ServedGateway, served_gateways};
pub(crate) use self::services::has_ready_endpoint;
pub use self::services::{LocalService, exported_services, local_services};
pub use self::translator::Translator;
use crate::context::Context;
use crate::kind::ObjectRef;
use crate::objects::{Objects, RouteKind};

/// What objects mean.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Translation {
    /// The resources: listeners, certificates, routes, policies, and the services of this
    /// cluster with their endpoints.
    pub resources: Vec<Named>,
    /// What came of each object.
    pub conditions: Vec<ObjectCondition>,
    /// What the status of every listener of ours says beside its conditions.
    pub listeners: Vec<ListenerStatus>,
    /// What the status of every Gateway of ours says beside its conditions.
    pub gateways: Vec<GatewayStatus>,
}

impl Translation {
    /// Counts a route at listeners, by their index in [`Translation::listeners`].
    fn count_route(&mut self, listeners: &[usize]) {
        for index in listeners {
            if let Some(status) = self.listeners.get_mut(*index) {
                status.attached_routes += 1;
            }
        }
    }
}

/// A resource with its key, which is text that is made once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// [`Resource::key`] of the resource.
    pub key: ResourceKey,
    /// The resource. That of a Service or a route is the same pointer in one translation of
    /// a [`Translator`] and the next, for as long as it is equal.
    pub resource: Arc<Resource>,
}

impl Named {
    /// The one of before, where it is equal.
    fn or_same(self, before: Option<Self>) -> Self {
        before.filter(|before| *before == self).unwrap_or(self)
    }
}

impl From<Resource> for Named {
    fn from(resource: Resource) -> Self {
        Self { key: resource.key(), resource: Arc::new(resource) }
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

/// Translates one state alone.
pub fn translate(objects: &Objects, context: &Context) -> Translation {
    Translator::default().translate(objects, context)
}

/// The controller whose GatewayClasses are ours.
pub const CONTROLLER_NAME: &str = "isthmus.io/gateway-controller";

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
