//! Who uses the targets of a policy of which the translation does not say it.
//!
//! The translation knows the Gateways that open connections to a service that exists, for
//! policies that are valid. A policy that is rejected, or names a service that does not
//! exist, has users as well: the routes that name its targets show whose policy it is.
//! They count as in the translation: a route that is accepted at a Gateway of ours, of
//! whatever kind, but for listeners that open no connection of their own (TLS that is
//! passed through, datagrams).

use std::collections::BTreeSet;

use isthmus_config::objects::{
    AllowedNamespaces, BackendRef, BackendTargetRef, GatewayListener, HttpRoute, ParentRef,
    ParentTarget, Protocol, RouteFilter, StreamRoute,
};
use isthmus_config::{ConditionPart, ConditionType, Kind, ObjectKey};
use isthmus_model::Label;
use serde_json::Value;

use crate::status::routes::Route;
use crate::status::world::{Name, World, text};

/// The Gateways of ours with routes to a target of the policy.
pub(super) fn of(world: &World<'_>, policy: Name<'_>, observed: &Value) -> BTreeSet<ObjectKey> {
    let targets = observed.pointer("/spec/targetRefs").and_then(Value::as_array);
    let targets: BTreeSet<&str> =
        targets.into_iter().flatten().filter_map(|target| text(target, "/name")).collect();
    let is_target = |backend: &BackendRef| match &backend.target {
        BackendTargetRef::Service(service) => {
            service.namespace.as_str() == policy.namespace
                && targets.contains(service.name.as_str())
        }
        BackendTargetRef::Unsupported { .. } => false,
    };
    let mut found = BTreeSet::new();
    for (name, route) in &world.routes {
        match route {
            Route::Http(route) => {
                if backends(route.as_ref()).any(is_target) {
                    found.extend(gateways(world, *name, &route.parents, |_| true));
                }
            }
            Route::Stream(route) => {
                if route.backends.iter().any(is_target) {
                    let speaks = |parent: &ParentRef| speaks(world, *name, route.as_ref(), parent);
                    found.extend(gateways(world, *name, &route.parents, speaks));
                }
            }
        }
    }
    found
}

/// The backends of a route, with those that get copies of requests.
fn backends(route: &HttpRoute) -> impl Iterator<Item = &BackendRef> {
    route.rules.iter().flat_map(|rule| {
        let mirrors = rule.filters.iter().filter_map(|filter| match filter {
            RouteFilter::Mirror { backend, .. } => Some(backend),
            RouteFilter::Supported(_) | RouteFilter::Unsupported(_) => None,
        });
        rule.backends.iter().chain(mirrors)
    })
}

/// The Gateways of ours at which a route is accepted and whose listeners open connections.
fn gateways(
    world: &World<'_>,
    route: Name<'_>,
    parents: &[ParentRef],
    speaks: impl Fn(&ParentRef) -> bool,
) -> Vec<ObjectKey> {
    let is_accepted = |index| {
        world.conditions(route).any(|said| {
            said.part == ConditionPart::Parent(index)
                && said.condition == ConditionType::Accepted
                && said.status
        })
    };
    let parents = parents.iter().enumerate();
    let parents = parents.filter(|(index, parent)| is_accepted(*index) && speaks(parent));
    let gateways =
        parents.filter_map(|(_, parent)| world.gateway_of_parent(&parent.raw, route.namespace));
    gateways.filter_map(|gateway| gateway.key()).collect()
}

/// Whether a listener that has a stream route by one of its parents, where it is accepted,
/// opens connections of its own. A TLSRoute may be at listeners of both modes.
fn speaks(world: &World<'_>, name: Name<'_>, route: &StreamRoute, parent: &ParentRef) -> bool {
    let objects = world.inputs.objects;
    let (kind, key, listeners) = match &parent.target {
        ParentTarget::Gateway(key) => {
            let gateway = objects.gateways.get(key);
            (Kind::Gateway, key, gateway.map(|gateway| &gateway.listeners))
        }
        ParentTarget::ListenerSet(key) => {
            let set = objects.listener_sets.get(key);
            (Kind::ListenerSet, key, set.map(|set| &set.listeners))
        }
        ParentTarget::Service(_) | ParentTarget::Unsupported(_) => return false,
    };
    let owner = Name::of_key(kind, key);
    listeners.into_iter().flatten().any(|listener| {
        let is_named = parent.section.as_ref().is_none_or(|section| *section == listener.name)
            && parent.port.is_none_or(|port| port == listener.port);
        let has_common_name = listener.hostname.as_ref().is_none_or(|pattern| {
            let mut names = route.hostnames.iter();
            route.hostnames.is_empty() || names.any(|name| pattern.intersection(name).is_some())
        });
        let takes = world.listeners(owner).any(|status| {
            status.name == listener.name
                && status.supported_kinds.iter().any(|kind| kind.kind == name.kind)
        });
        let ends = match listener.protocol {
            Protocol::Http | Protocol::Https | Protocol::Tcp | Protocol::TlsTerminate => true,
            Protocol::TlsPassthrough | Protocol::Udp | Protocol::Unsupported(_) => false,
        };
        is_named
            && has_common_name
            && takes
            && ends
            && allows(world, &key.namespace, listener, &route.key.namespace)
    })
}

/// Whether a listener takes routes of a namespace.
fn allows(world: &World<'_>, own: &Label, listener: &GatewayListener, route: &Label) -> bool {
    match &listener.namespaces {
        AllowedNamespaces::All => true,
        AllowedNamespaces::None => false,
        AllowedNamespaces::Same => own == route,
        AllowedNamespaces::Selector(selector) => {
            selector.matches(&world.inputs.objects.namespace_labels(route.as_str()))
        }
    }
}
