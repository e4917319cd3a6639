//! TCPRoutes, TLSRoutes and UDPRoutes to routes of the model.

use isthmus_model::route::{Backend, BackendTarget};
use isthmus_model::{Resource, StreamRoute as ModelRoute, StreamRouteKind, Transport};

use crate::kind::{Kind, ObjectRef};
use crate::objects::StreamRoute;
use crate::translate::attach::{Attachment, Candidate, attach};
use crate::translate::backends::Resolver;
use crate::translate::conditions::{ConditionPart, ConditionType, Problem, Report};
use crate::translate::outcome::{RouteOutcome, Surroundings};

/// Translates one TCPRoute, TLSRoute or UDPRoute.
pub(super) fn translate(around: Surroundings<'_>, route: &StreamRoute) -> RouteOutcome {
    let objects = around.objects;
    let (kind, transport, hostnames) = match route.kind {
        StreamRouteKind::Tcp => (Kind::TcpRoute, Transport::Tcp, None),
        StreamRouteKind::Tls => (Kind::TlsRoute, Transport::Tcp, Some(route.hostnames.as_slice())),
        StreamRouteKind::Udp => (Kind::UdpRoute, Transport::Udp, None),
    };
    let namespace = &route.key.namespace;
    let candidate = Candidate { kind, namespace, hostnames };
    let resolver = Resolver { objects, context: around.context, kind, namespace, transport };
    let (backends, unusable) = backends(&resolver, route);
    let mut outcome = RouteOutcome::new(ObjectRef::namespaced(kind, &route.key), objects);
    let mut conditions = Vec::new();
    let mut parents = Vec::new();
    for (index, parent) in route.parents.iter().enumerate() {
        let part = ConditionPart::Parent(index);
        let mut report = Report::new(kind, &route.key, &mut conditions);
        let refusal = match attach(around, candidate, parent) {
            Attachment::Attached { parents: attached, listeners, speaks_to_backends } => {
                parents.extend(attached);
                outcome.count(listeners);
                if speaks_to_backends {
                    outcome.use_gateway(objects, parent);
                }
                None
            }
            Attachment::NotOurs => continue,
            Attachment::Refused(problem) => Some(problem),
        };
        report.outcome(&part, ConditionType::Accepted, refusal.as_ref());
        report.outcome(&part, ConditionType::ResolvedRefs, unusable.as_ref());
    }
    outcome.say(conditions);
    if !outcome.gateways.is_empty() {
        outcome.use_services(backends.iter().map(|backend| &backend.target));
    }
    if !parents.is_empty() {
        let route = ModelRoute {
            kind: route.kind,
            name: route.key.to_string(),
            created: route.created,
            parents,
            backends,
        };
        outcome.resource = Some(Resource::StreamRoute(route).into());
    }
    outcome
}

/// The backends, and the first problem of one that cannot be used: its share is refused.
fn backends(resolver: &Resolver<'_>, route: &StreamRoute) -> (Vec<Backend>, Option<Problem>) {
    let mut unusable = None;
    let mut backends = Vec::with_capacity(route.backends.len());
    for (index, backend) in route.backends.iter().enumerate() {
        let target = resolver.target(backend).unwrap_or_else(|problem| {
            let message = format!("rules[0].backendRefs[{index}]: {}", problem.message);
            unusable.get_or_insert_with(|| Problem::new(problem.reason, message.clone()));
            BackendTarget::Invalid { reason: message }
        });
        backends.push(Backend { target, weight: backend.weight, filters: Vec::new() });
    }
    (backends, unusable)
}
