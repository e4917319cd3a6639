//! HTTPRoutes and GRPCRoutes to routes of the model.

use std::collections::{BTreeMap, BTreeSet};

use isthmus_model::route::{BackendTarget, Filter};
use isthmus_model::{HttpRoute as ModelRoute, HttpRouteKind, Resource, Rule, ServiceKey};

use crate::context::Context;
use crate::kind::{Kind, ObjectKey};
use crate::objects::{HttpRoute, Objects, ParentRef, ParentTarget};
use crate::translate::Translation;
use crate::translate::attach::{Attachment, Candidate, attach};
use crate::translate::conditions::{ConditionPart, ConditionType, Problem, Report};
use crate::translate::gateways::Gateways;
use crate::translate::rules::{RuleOutcome, rules};

/// The Gateways of ours that send requests to a service.
pub(super) type Users = BTreeMap<ServiceKey, BTreeSet<ObjectKey>>;

/// Adds every HTTPRoute and GRPCRoute that is attached somewhere, and returns which
/// Gateways use which services.
pub(super) fn translate(
    objects: &Objects,
    context: &Context,
    gateways: &Gateways<'_>,
    out: &mut Translation,
) -> Users {
    let mut users = Users::new();
    for route in objects.http_routes.values().chain(objects.grpc_routes.values()) {
        let kind = match route.kind {
            HttpRouteKind::Grpc => Kind::GrpcRoute,
            HttpRouteKind::Http => Kind::HttpRoute,
        };
        let candidate =
            Candidate { kind, namespace: &route.key.namespace, hostnames: Some(&route.hostnames) };
        let outcome = rules(objects, context, kind, route);
        let mut parents = Vec::new();
        let mut counted = BTreeSet::new();
        for (index, parent) in route.parents.iter().enumerate() {
            let part = ConditionPart::Parent(index);
            let mut report = Report::new(kind, &route.key, &mut out.conditions);
            match attach(objects, context, gateways, candidate, parent) {
                Attachment::Attached { parents: attached, listeners } => {
                    parents.extend(attached);
                    if accepted(route, &outcome, &part, &mut report) {
                        counted.extend(listeners);
                        use_services(objects, parent, &outcome.rules, &mut users);
                    }
                }
                Attachment::NotOurs => continue,
                Attachment::Refused(problem) => {
                    report.outcome(&part, ConditionType::Accepted, Some(&problem));
                }
            }
            let reference = outcome.references.first();
            report.outcome(&part, ConditionType::ResolvedRefs, reference);
        }
        out.count_route(&counted);
        if !parents.is_empty() {
            out.resources.push(Resource::HttpRoute(ModelRoute {
                kind: route.kind,
                name: route.key.to_string(),
                created: route.created,
                parents,
                rules: outcome.rules,
            }));
        }
    }
    users
}

fn use_services(objects: &Objects, parent: &ParentRef, rules: &[Rule], users: &mut Users) {
    let gateway = match &parent.target {
        ParentTarget::Gateway(key) => Some(key),
        ParentTarget::ListenerSet(key) => {
            objects.listener_sets.get(key).and_then(|set| set.gateway.as_ref())
        }
        ParentTarget::Service(_) | ParentTarget::Unsupported(_) => None,
    };
    let Some(gateway) = gateway else { return };
    for rule in rules {
        let mirrors = rule.filters.iter().filter_map(|filter| match filter {
            Filter::Mirror(mirror) => Some(&mirror.target),
            Filter::Cors(_)
            | Filter::Redirect(_)
            | Filter::RequestHeaders(_)
            | Filter::ResponseHeaders(_)
            | Filter::Rewrite(_) => None,
        });
        for target in rule.backends.iter().map(|backend| &backend.target).chain(mirrors) {
            if let BackendTarget::Service { service, .. } = target {
                users.entry(service.clone()).or_default().insert(gateway.clone());
            }
        }
    }
}

/// Spec: a route whose rules are all unusable is not accepted; one with some unusable
/// rules is, and says so with PartiallyInvalid. Returns whether the route is accepted.
fn accepted(
    route: &HttpRoute,
    outcome: &RuleOutcome,
    part: &ConditionPart,
    report: &mut Report<'_>,
) -> bool {
    let Some(first) = outcome.unsupported.first() else {
        report.outcome(part, ConditionType::Accepted, None);
        return true;
    };
    if outcome.unsupported.len() == route.rules.len() {
        report.outcome(part, ConditionType::Accepted, Some(first));
        return false;
    }
    report.outcome(part, ConditionType::Accepted, None);
    let Problem { reason, message } = first.clone();
    report.add(part, ConditionType::PartiallyInvalid, true, Problem { reason, message });
    true
}
