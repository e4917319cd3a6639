//! Which listeners and services a route attaches to.
//!
//! Spec: Gateway API "attaching routes to gateways": the listeners that the parentRef
//! names, of those the ones that allow the route, of those the ones with a hostname in
//! common. The reason of a refusal is that of the step where none was left.

use isthmus_model::route::RouteParent;
use isthmus_model::{Hostname, ServiceKey, ServiceScope};

use crate::context::Context;
use crate::objects::{
    AllowedNamespaces, Gateway, GatewayListener, HttpRoute, Objects, ParentRef, ParentTarget,
};
use crate::translate::conditions::Problem;
use crate::translate::gateways::{Gateways, OurGateway, is_http_route};
use crate::translate::services::object_key;

/// What came of one parentRef.
pub(super) enum Attachment {
    /// The route is attached here.
    Attached(Vec<RouteParent>),
    /// The Gateway belongs to another controller, which reports on it.
    NotOurs,
    /// The route is attached nowhere.
    Refused(Problem),
}

/// Attaches a route by one of its parentRefs.
pub(super) fn attach(
    objects: &Objects,
    context: &Context,
    gateways: &Gateways<'_>,
    route: &HttpRoute,
    parent: &ParentRef,
) -> Attachment {
    let no_parent =
        |message: String| Attachment::Refused(Problem::new("NoMatchingParent", message));
    match &parent.target {
        ParentTarget::Gateway(key) => match gateways.get(key) {
            Some(gateway) => attach_to_gateway(objects, gateway, route, parent),
            None if objects.gateways.contains_key(key) => Attachment::NotOurs,
            None => no_parent(format!("Gateway {key} does not exist")),
        },
        ParentTarget::Service(service) => {
            attach_to_service(objects, context, route, parent, service)
        }
        ParentTarget::Unsupported(text) => {
            no_parent(format!("{text} is not a kind of parent here"))
        }
    }
}

fn attach_to_gateway(
    objects: &Objects,
    ours: &OurGateway<'_>,
    route: &HttpRoute,
    parent: &ParentRef,
) -> Attachment {
    let refused = |reason, message: &str| Attachment::Refused(Problem::new(reason, message));
    let named = |listener: &GatewayListener| {
        parent.section.as_ref().is_none_or(|section| *section == listener.name)
            && parent.port.is_none_or(|port| port == listener.port)
    };
    let gateway = ours.gateway;
    let mut candidates: Vec<(&GatewayListener, &Option<String>)> =
        gateway.listeners.iter().zip(&ours.resources).filter(|(l, _)| named(l)).collect();
    if candidates.is_empty() {
        return refused("NoMatchingParent", "no listener has this name and port");
    }
    candidates.retain(|(listener, _)| allows(objects, gateway, listener, route));
    if candidates.is_empty() {
        return refused("NotAllowedByListeners", "no listener allows this route");
    }
    let mut parents = Vec::new();
    let mut common = false;
    for (listener, resource) in candidates {
        let Some(hostnames) = intersection(listener.hostname.as_ref(), &route.hostnames) else {
            continue;
        };
        common = true;
        if let Some(listener) = resource.clone() {
            parents.push(RouteParent::Listener { listener, hostnames });
        }
    }
    if !common {
        let message = "no listener has a hostname in common with the route";
        return refused("NoMatchingListenerHostname", message);
    }
    // Spec: a route may be accepted by a listener that cannot be used yet.
    Attachment::Attached(parents)
}

fn allows(
    objects: &Objects,
    gateway: &Gateway,
    listener: &GatewayListener,
    route: &HttpRoute,
) -> bool {
    let kind = listener.kinds.is_empty() || listener.kinds.iter().any(is_http_route);
    let protocol = !matches!(listener.protocol, crate::objects::Protocol::Unsupported(_));
    let namespace = match &listener.namespaces {
        AllowedNamespaces::All => true,
        AllowedNamespaces::None => false,
        AllowedNamespaces::Same => route.key.namespace == gateway.key.namespace,
        AllowedNamespaces::Selector(selector) => {
            selector.matches(&objects.namespace_labels(route.key.namespace.as_str()))
        }
    };
    kind && protocol && namespace
}

/// The hostnames of a route at a listener; empty means every host, `None` means that they
/// have none in common.
fn intersection(listener: Option<&Hostname>, route: &[Hostname]) -> Option<Vec<Hostname>> {
    let Some(listener) = listener else {
        return Some(route.to_vec());
    };
    if route.is_empty() {
        return Some(vec![listener.clone()]);
    }
    let mut common: Vec<Hostname> =
        route.iter().filter_map(|hostname| listener.intersection(hostname)).collect();
    common.sort();
    common.dedup();
    (!common.is_empty()).then_some(common)
}

/// Spec: GEP-1426. A route in another namespace than the service is a consumer route,
/// which only clients of its namespace see; the data plane has no such routes.
fn attach_to_service(
    objects: &Objects,
    context: &Context,
    route: &HttpRoute,
    parent: &ParentRef,
    service: &ServiceKey,
) -> Attachment {
    let refused = |reason, message: String| Attachment::Refused(Problem::new(reason, message));
    if service.namespace != route.key.namespace {
        let message =
            format!("{service} is in another namespace: consumer routes are not supported");
        return refused("NotAllowedByListeners", message);
    }
    let local = object_key(service).and_then(|key| objects.services.get(&key));
    let ports = match service.scope {
        ServiceScope::Cluster => local.map(|service| &service.ports),
        ServiceScope::ClusterSet => context.imports.get(service).map(|import| &import.ports),
    };
    let Some(ports) = ports else {
        return refused("NoMatchingParent", format!("{service} does not exist"));
    };
    if let Some(port) = parent.port
        && !ports.iter().any(|known| known.number == port)
    {
        return refused("NoMatchingParent", format!("{service} has no port {port}"));
    }
    let attached = RouteParent::Service { service: service.clone(), port: parent.port };
    Attachment::Attached(vec![attached])
}
