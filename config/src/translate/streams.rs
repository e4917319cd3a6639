//! TCPRoutes, TLSRoutes and UDPRoutes to routes of the model.

use std::collections::BTreeSet;

use isthmus_model::route::{Backend, BackendTarget};
use isthmus_model::{Resource, StreamRoute as ModelRoute, StreamRouteKind, Transport};

use crate::context::Context;
use crate::kind::Kind;
use crate::objects::{Objects, StreamRoute};
use crate::translate::Translation;
use crate::translate::attach::{Attachment, Candidate, attach};
use crate::translate::backends::Resolver;
use crate::translate::conditions::{ConditionPart, ConditionType, Problem, Report};
use crate::translate::gateways::Gateways;

/// Adds every TCPRoute, TLSRoute and UDPRoute that is attached somewhere.
pub(super) fn translate(
    objects: &Objects,
    context: &Context,
    gateways: &Gateways<'_>,
    out: &mut Translation,
) {
    let all = objects.tcp_routes.values();
    for route in all.chain(objects.tls_routes.values()).chain(objects.udp_routes.values()) {
        one(objects, context, gateways, route, out);
    }
}

fn one(
    objects: &Objects,
    context: &Context,
    gateways: &Gateways<'_>,
    route: &StreamRoute,
    out: &mut Translation,
) {
    let (kind, transport, hostnames) = match route.kind {
        StreamRouteKind::Tcp => (Kind::TcpRoute, Transport::Tcp, None),
        StreamRouteKind::Tls => (Kind::TlsRoute, Transport::Tcp, Some(route.hostnames.as_slice())),
        StreamRouteKind::Udp => (Kind::UdpRoute, Transport::Udp, None),
    };
    let namespace = &route.key.namespace;
    let candidate = Candidate { kind, namespace, hostnames };
    let resolver = Resolver { objects, context, kind, namespace, transport };
    let (backends, unusable) = backends(&resolver, route);
    let mut parents = Vec::new();
    let mut counted = BTreeSet::new();
    for (index, parent) in route.parents.iter().enumerate() {
        let part = ConditionPart::Parent(index);
        let mut report = Report::new(kind, &route.key, &mut out.conditions);
        let refusal = match attach(objects, context, gateways, candidate, parent) {
            Attachment::Attached { parents: attached, listeners } => {
                parents.extend(attached);
                counted.extend(listeners);
                None
            }
            Attachment::NotOurs => continue,
            Attachment::Refused(problem) => Some(problem),
        };
        report.outcome(&part, ConditionType::Accepted, refusal.as_ref());
        report.outcome(&part, ConditionType::ResolvedRefs, unusable.as_ref());
    }
    out.count_route(&counted);
    if !parents.is_empty() {
        out.resources.push(Resource::StreamRoute(ModelRoute {
            kind: route.kind,
            name: route.key.to_string(),
            created: route.created,
            parents,
            backends,
        }));
    }
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
