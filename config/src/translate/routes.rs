//! HTTPRoutes to routes of the model.

use isthmus_model::{HttpRoute as ModelRoute, HttpRouteKind, Resource};

use crate::context::Context;
use crate::kind::Kind;
use crate::objects::{HttpRoute, Objects};
use crate::translate::Translation;
use crate::translate::attach::{Attachment, attach};
use crate::translate::conditions::{ConditionPart, ConditionType, Problem, Report};
use crate::translate::gateways::Gateways;
use crate::translate::rules::{RuleOutcome, rules};

/// Adds every HTTPRoute that is attached somewhere.
pub(super) fn translate(
    objects: &Objects,
    context: &Context,
    gateways: &Gateways<'_>,
    out: &mut Translation,
) {
    for route in objects.http_routes.values() {
        let outcome = rules(objects, context, route);
        let mut parents = Vec::new();
        for (index, parent) in route.parents.iter().enumerate() {
            let part = ConditionPart::Parent(index);
            let mut report = Report::new(Kind::HttpRoute, &route.key, &mut out.conditions);
            match attach(objects, context, gateways, route, parent) {
                Attachment::Attached(attached) => {
                    parents.extend(attached);
                    accepted(route, &outcome, &part, &mut report);
                }
                Attachment::NotOurs => continue,
                Attachment::Refused(problem) => {
                    report.outcome(&part, ConditionType::Accepted, Some(&problem));
                }
            }
            let reference = outcome.references.first();
            report.outcome(&part, ConditionType::ResolvedRefs, reference);
        }
        if !parents.is_empty() {
            out.resources.push(Resource::HttpRoute(ModelRoute {
                kind: HttpRouteKind::Http,
                name: route.key.to_string(),
                created: route.created,
                parents,
                rules: outcome.rules,
            }));
        }
    }
}

/// Spec: a route whose rules are all unusable is not accepted; one with some unusable
/// rules is, and says so with PartiallyInvalid.
fn accepted(
    route: &HttpRoute,
    outcome: &RuleOutcome,
    part: &ConditionPart,
    report: &mut Report<'_>,
) {
    let Some(first) = outcome.unsupported.first() else {
        return report.outcome(part, ConditionType::Accepted, None);
    };
    if outcome.unsupported.len() == route.rules.len() {
        return report.outcome(part, ConditionType::Accepted, Some(first));
    }
    report.outcome(part, ConditionType::Accepted, None);
    let Problem { reason, message } = first.clone();
    report.add(part, ConditionType::PartiallyInvalid, true, Problem { reason, message });
}
