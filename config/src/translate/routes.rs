//! HTTPRoutes and GRPCRoutes to routes of the model.

use isthmus_model::{HttpRoute as ModelRoute, HttpRouteKind, Resource};

use crate::kind::{Kind, ObjectRef};
use crate::objects::HttpRoute;
use crate::translate::attach::{Attachment, Candidate, attach};
use crate::translate::conditions::{ConditionPart, ConditionType, Problem, Report};
use crate::translate::outcome::{RouteOutcome, Surroundings, mirrored};
use crate::translate::rules::{RuleOutcome, rules};

/// Translates one HTTPRoute or GRPCRoute.
pub(super) fn translate(around: Surroundings<'_>, route: &HttpRoute) -> RouteOutcome {
    let objects = around.objects;
    let kind = match route.kind {
        HttpRouteKind::Grpc => Kind::GrpcRoute,
        HttpRouteKind::Http => Kind::HttpRoute,
    };
    let candidate =
        Candidate { kind, namespace: &route.key.namespace, hostnames: Some(&route.hostnames) };
    let found = rules(objects, around.context, kind, route);
    let mut outcome = RouteOutcome::new(ObjectRef::namespaced(kind, &route.key), objects);
    let mut conditions = Vec::new();
    let mut parents = Vec::new();
    for (index, parent) in route.parents.iter().enumerate() {
        let part = ConditionPart::Parent(index);
        let mut report = Report::new(kind, &route.key, &mut conditions);
        match attach(around, candidate, parent) {
            Attachment::Attached { parents: attached, listeners, .. } => {
                parents.extend(attached);
                if accepted(route, &found, &part, &mut report) {
                    outcome.count(listeners);
                    outcome.use_gateway(objects, parent);
                }
            }
            Attachment::NotOurs => continue,
            Attachment::Refused(problem) => {
                report.outcome(&part, ConditionType::Accepted, Some(&problem));
            }
        }
        report.outcome(&part, ConditionType::ResolvedRefs, found.references.first());
    }
    outcome.say(conditions);
    if !outcome.gateways.is_empty() {
        for rule in &found.rules {
            outcome.use_services(rule.backends.iter().map(|backend| &backend.target));
            outcome.use_services(rule.filters.iter().filter_map(mirrored));
        }
    }
    if !parents.is_empty() {
        let route = ModelRoute {
            kind: route.kind,
            name: route.key.to_string(),
            created: route.created,
            parents,
            rules: found.rules,
        };
        outcome.resource = Some(Resource::HttpRoute(route).into());
    }
    outcome
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
