//! What came of one route, of whatever kind.

use std::collections::{BTreeMap, BTreeSet};

use isthmus_model::ServiceKey;
use isthmus_model::route::{BackendTarget, Filter};

use crate::context::Context;
use crate::kind::{ObjectKey, ObjectRef};
use crate::objects::{Objects, ParentRef, ParentTarget};
use crate::translate::conditions::ObjectCondition;
use crate::translate::gateways::Gateways;
use crate::translate::{Named, Translation};

/// What routes are attached to and refer to.
#[derive(Clone, Copy)]
pub(super) struct Surroundings<'s> {
    pub(super) objects: &'s Objects,
    pub(super) context: &'s Context,
    pub(super) gateways: &'s Gateways<'s>,
}

/// What came of one route.
#[derive(Debug)]
pub(super) struct RouteOutcome {
    pub(super) object: ObjectRef,
    /// `metadata.generation` of the route, which its conditions name.
    pub(super) generation: i64,
    pub(super) conditions: Vec<ObjectCondition>,
    /// The listeners that it counts at, each once: indexes for
    /// [`Translation::count_route`].
    pub(super) listeners: Vec<usize>,
    /// The Gateways of ours that open connections of their own to its backends.
    pub(super) gateways: BTreeSet<ObjectKey>,
    /// Those backends.
    pub(super) services: BTreeSet<ServiceKey>,
    /// The route in the model; `None` when it is served nowhere.
    pub(super) resource: Option<Named>,
}

impl RouteOutcome {
    /// Nothing yet.
    pub(super) fn new(object: ObjectRef, objects: &Objects) -> Self {
        Self {
            generation: objects.generation(&object),
            object,
            conditions: Vec::new(),
            listeners: Vec::new(),
            gateways: BTreeSet::new(),
            services: BTreeSet::new(),
            resource: None,
        }
    }

    /// Counts the route at listeners.
    pub(super) fn count(&mut self, listeners: Vec<usize>) {
        self.listeners.extend(listeners);
        self.listeners.sort_unstable();
        self.listeners.dedup();
    }

    /// Notes the Gateway of a parent whose listeners open connections to the backends.
    pub(super) fn use_gateway(&mut self, objects: &Objects, parent: &ParentRef) {
        let gateway = match &parent.target {
            ParentTarget::Gateway(key) => Some(key),
            ParentTarget::ListenerSet(key) => {
                objects.listener_sets.get(key).and_then(|set| set.gateway.as_ref())
            }
            ParentTarget::Service(_) | ParentTarget::Unsupported(_) => None,
        };
        self.gateways.extend(gateway.cloned());
    }

    /// Notes the services behind targets.
    pub(super) fn use_services<'t>(&mut self, targets: impl Iterator<Item = &'t BackendTarget>) {
        for target in targets {
            if let BackendTarget::Service { service, .. } = target {
                self.services.insert(service.clone());
            }
        }
    }

    /// Takes the conditions of the route, which are of its version.
    pub(super) fn say(&mut self, conditions: Vec<ObjectCondition>) {
        self.conditions = conditions;
        for condition in &mut self.conditions {
            condition.observed_generation = self.generation;
        }
    }

    /// Puts what came of the route into a translation.
    pub(super) fn add_to(&self, out: &mut Translation) {
        out.conditions.extend_from_slice(&self.conditions);
        out.count_route(&self.listeners);
        out.resources.extend(self.resource.clone());
    }
}

/// The target of a filter that sends requests somewhere.
pub(super) fn mirrored(filter: &Filter) -> Option<&BackendTarget> {
    match filter {
        Filter::Mirror(mirror) => Some(&mirror.target),
        Filter::Cors(_)
        | Filter::Redirect(_)
        | Filter::RequestHeaders(_)
        | Filter::ResponseHeaders(_)
        | Filter::Rewrite(_) => None,
    }
}

/// The Gateways of ours that open connections to a service.
#[derive(Debug, Default)]
pub(super) struct Users(BTreeMap<ServiceKey, BTreeSet<ObjectKey>>);

impl Users {
    /// The Gateways that use one of the services.
    pub(super) fn new<'r>(
        services: &BTreeSet<ServiceKey>,
        routes: impl Iterator<Item = &'r RouteOutcome>,
    ) -> Self {
        let mut users = Self::default();
        if services.is_empty() {
            return users;
        }
        for route in routes {
            for service in route.services.intersection(services) {
                let known = users.0.entry(service.clone()).or_default();
                known.extend(route.gateways.iter().cloned());
            }
        }
        users
    }

    /// The Gateways that use a service, in order.
    pub(super) fn of(&self, service: &ServiceKey) -> impl Iterator<Item = &ObjectKey> {
        self.0.get(service).into_iter().flatten()
    }
}
