//! Which listeners and services a route attaches to.
//!
//! Spec: Gateway API "attaching routes to gateways": the listeners that the parentRef
//! names, of those the ones that allow the route, of those the ones with a hostname in
//! common. The reason of a refusal is that of the step where none was left.

use isthmus_model::route::RouteParent;
use isthmus_model::{Hostname, Label, ServiceKey, ServiceScope};

use crate::kind::{Kind, ObjectKey};
use crate::objects::{AllowedNamespaces, Objects, ParentRef, ParentTarget, Protocol};
use crate::translate::conditions::Problem;
use crate::translate::gateways::{Found, ListenerOwner, OurListener};
use crate::translate::outcome::Surroundings;
use crate::translate::services::object_key;

/// A route that wants to be attached.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate<'r> {
    /// Its kind.
    pub(super) kind: Kind,
    /// Its namespace.
    pub(super) namespace: &'r Label,
    /// Its hostnames; `None` for kinds that have none, for which those of listeners do not
    /// count.
    pub(super) hostnames: Option<&'r [Hostname]>,
}

/// What came of one parentRef.
pub(super) enum Attachment {
    /// The route is attached here.
    Attached {
        /// Where it is served.
        parents: Vec<RouteParent>,
        /// The listeners it counts at, also those that cannot be used: indexes for
        /// [`crate::translate::Translation::count_route`].
        listeners: Vec<usize>,
        /// Whether a listener ends what clients speak and opens connections of its own to
        /// the backends, by their BackendTLSPolicy; what is passed through has no use for
        /// one.
        speaks_to_backends: bool,
    },
    /// The Gateway belongs to another controller, which reports on it.
    NotOurs,
    /// The route is attached nowhere.
    Refused(Problem),
}

/// Attaches a route by one of its parentRefs.
pub(super) fn attach(
    around: Surroundings<'_>,
    route: Candidate<'_>,
    parent: &ParentRef,
) -> Attachment {
    let no_parent =
        |message: String| Attachment::Refused(Problem::new("NoMatchingParent", message));
    match &parent.target {
        ParentTarget::Gateway(key) => attach_to(around, (Kind::Gateway, key), route, parent),
        ParentTarget::ListenerSet(key) => {
            attach_to(around, (Kind::ListenerSet, key), route, parent)
        }
        ParentTarget::Service(service) => attach_to_service(around, route, parent, service),
        ParentTarget::Unsupported(text) => {
            no_parent(format!("{text} is not a kind of parent here"))
        }
    }
}

/// Attaches a route to listeners of a Gateway or ListenerSet.
fn attach_to(
    around: Surroundings<'_>,
    (kind, key): (Kind, &ObjectKey),
    route: Candidate<'_>,
    parent: &ParentRef,
) -> Attachment {
    let owner = match around.gateways.find(kind, key) {
        Found::Ours(owner) => owner,
        Found::NotOurs => return Attachment::NotOurs,
        Found::Absent => {
            let problem = Problem::new("NoMatchingParent", format!("{kind} {key} does not exist"));
            return Attachment::Refused(problem);
        }
    };
    let refused = |reason, message: &str| Attachment::Refused(Problem::new(reason, message));
    let named = |ours: &&OurListener<'_>| {
        parent.section.as_ref().is_none_or(|section| *section == ours.listener.name)
            && parent.port.is_none_or(|port| port == ours.listener.port)
    };
    let mut candidates: Vec<&OurListener<'_>> = owner.listeners.iter().filter(named).collect();
    if candidates.is_empty() {
        return refused("NoMatchingParent", "no listener has this name and port");
    }
    candidates.retain(|ours| allows(around.objects, owner, ours, route));
    if candidates.is_empty() {
        return refused("NotAllowedByListeners", "no listener allows this route");
    }
    let mut parents = Vec::new();
    let mut listeners = Vec::new();
    let mut speaks_to_backends = false;
    for ours in candidates {
        let common = match route.hostnames {
            Some(hostnames) => intersection(ours.listener.hostname.as_ref(), hostnames),
            None => Some(Vec::new()),
        };
        let Some(hostnames) = common else { continue };
        listeners.push(ours.status);
        speaks_to_backends |= match &ours.listener.protocol {
            Protocol::Http | Protocol::Https | Protocol::Tcp | Protocol::TlsTerminate => true,
            Protocol::TlsPassthrough | Protocol::Udp | Protocol::Unsupported(_) => false,
        };
        if let Some(listener) = ours.resource.clone() {
            parents.push(RouteParent::Listener { listener, hostnames });
        }
    }
    if listeners.is_empty() {
        let message = "no listener has a hostname in common with the route";
        return refused("NoMatchingListenerHostname", message);
    }
    // Spec: a route may be accepted by a listener that cannot be used yet.
    Attachment::Attached { parents, listeners, speaks_to_backends }
}

fn allows(
    objects: &Objects,
    owner: &ListenerOwner<'_>,
    ours: &OurListener<'_>,
    route: Candidate<'_>,
) -> bool {
    let kind = ours.kinds.iter().any(|kind| kind.kind == route.kind.label());
    let namespace = match &ours.listener.namespaces {
        AllowedNamespaces::All => true,
        AllowedNamespaces::None => false,
        AllowedNamespaces::Same => *route.namespace == owner.key.namespace,
        AllowedNamespaces::Selector(selector) => {
            selector.matches(&objects.namespace_labels(route.namespace.as_str()))
        }
    };
    kind && namespace
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
    around: Surroundings<'_>,
    route: Candidate<'_>,
    parent: &ParentRef,
    service: &ServiceKey,
) -> Attachment {
    let refused = |reason, message: String| Attachment::Refused(Problem::new(reason, message));
    if !matches!(route.kind, Kind::GrpcRoute | Kind::HttpRoute) {
        let message = format!("a {} cannot be attached to {service}", route.kind);
        return refused("NoMatchingParent", message);
    }
    if service.namespace != *route.namespace {
        let message =
            format!("{service} is in another namespace: consumer routes are not supported");
        return refused("NotAllowedByListeners", message);
    }
    let local = object_key(service).and_then(|key| around.objects.services.get(&key));
    let ports = match service.scope {
        ServiceScope::Cluster => local.map(|service| &service.ports),
        ServiceScope::ClusterSet => around.context.imports.get(service).map(|import| &import.ports),
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
    // No Gateway is on the way.
    Attachment::Attached {
        parents: vec![attached],
        listeners: Vec::new(),
        speaks_to_backends: false,
    }
}
