//! Rules of a route: which backends its references mean and which filters it has.
//!
//! Nothing that the user wrote is skipped: a rule with a filter that the data plane does
//! not have answers with 500, since forwarding without the filter could, for example,
//! leave out an authentication.

use isthmus_model::route::{Backend, BackendTarget, Filter, Rule};
use isthmus_model::{Label, ServiceKey, ServiceScope, Transport};

use crate::context::Context;
use crate::kind::{GATEWAY_GROUP, MCS_GROUP};
use crate::objects::{
    BackendRef, BackendTargetRef, HttpRoute, HttpRule, Objects, RouteFilter, ServiceType,
};
use crate::translate::conditions::Problem;
use crate::translate::references::{Referent, Referrer, is_allowed};
use crate::translate::services::object_key;

/// The rules of a route in the model, and what cannot be used of them.
pub(super) struct RuleOutcome {
    pub(super) rules: Vec<Rule>,
    /// One for each rule that answers with 500 because of what it asks for.
    pub(super) unsupported: Vec<Problem>,
    /// References that cannot be used.
    pub(super) references: Vec<Problem>,
}

/// Translates the rules of a route.
pub(super) fn rules(objects: &Objects, context: &Context, route: &HttpRoute) -> RuleOutcome {
    let mut work = Work {
        objects,
        context,
        namespace: &route.key.namespace,
        outcome: RuleOutcome { rules: Vec::new(), unsupported: Vec::new(), references: Vec::new() },
    };
    for (index, rule) in route.rules.iter().enumerate() {
        let rule = work.rule(index, rule);
        work.outcome.rules.push(rule);
    }
    work.outcome
}

struct Work<'w> {
    objects: &'w Objects,
    context: &'w Context,
    namespace: &'w Label,
    outcome: RuleOutcome,
}

impl Work<'_> {
    fn rule(&mut self, index: usize, rule: &HttpRule) -> Rule {
        let (filters, backends) = match supported(&rule.filters) {
            Ok(filters) => {
                let backends = rule.backends.iter().enumerate();
                let backends = backends.map(|(at, backend)| self.backend(index, at, backend));
                (filters, backends.collect())
            }
            Err(kind) => {
                let reason =
                    format!("rules[{index}] has a filter of type {kind}, which is not supported");
                self.outcome.unsupported.push(Problem::new("UnsupportedValue", reason.clone()));
                let target = BackendTarget::Invalid { reason };
                (Vec::new(), vec![Backend { target, weight: 1, filters: Vec::new() }])
            }
        };
        Rule {
            name: rule.name.clone(),
            matches: rule.matches.clone(),
            filters,
            backends,
            timeouts: rule.timeouts,
            retry: None,
        }
    }

    fn backend(&mut self, rule: usize, at: usize, backend: &BackendRef) -> Backend {
        let resolved = self.target(backend).and_then(|target| {
            let filters = backend_filters(&backend.filters)?;
            Ok((target, filters))
        });
        let (target, filters) = resolved.unwrap_or_else(|problem| {
            let reason = format!("rules[{rule}].backendRefs[{at}]: {}", problem.message);
            self.outcome.references.push(Problem::new(problem.reason, reason.clone()));
            (BackendTarget::Invalid { reason }, Vec::new())
        });
        Backend { target, weight: backend.weight, filters }
    }

    fn target(&self, backend: &BackendRef) -> Result<BackendTarget, Problem> {
        let service = match &backend.target {
            BackendTargetRef::Service(service) => service,
            BackendTargetRef::Unsupported { kind, .. } => {
                let message = format!("{kind} is not a kind of backend here");
                return Err(Problem::new("InvalidKind", message));
            }
        };
        let (group, kind) = match service.scope {
            ServiceScope::Cluster => ("", "Service"),
            ServiceScope::ClusterSet => (MCS_GROUP, "ServiceImport"),
        };
        let from = Referrer { group: GATEWAY_GROUP, kind: "HTTPRoute", namespace: self.namespace };
        let to =
            Referent { group, kind, namespace: &service.namespace, name: service.name.as_str() };
        if !is_allowed(self.objects, from, to) {
            let message = format!("no ReferenceGrant allows the reference to {service}");
            return Err(Problem::new("RefNotPermitted", message));
        }
        let not_found = |message: String| Problem::new("BackendNotFound", message);
        let port = backend.port.ok_or_else(|| not_found("the port is required".into()))?;
        let ports = self.ports(service)?;
        if !ports.iter().any(|known| known.number == port && known.transport == Transport::Tcp) {
            return Err(not_found(format!("{service} has no TCP port {port}")));
        }
        Ok(BackendTarget::Service { service: service.clone(), port })
    }

    fn ports(&self, service: &ServiceKey) -> Result<&[isthmus_model::ServicePort], Problem> {
        let not_found = || Problem::new("BackendNotFound", format!("{service} does not exist"));
        if service.scope == ServiceScope::ClusterSet {
            return match self.context.imports.get(service) {
                Some(import) => Ok(&import.ports),
                None => Err(not_found()),
            };
        }
        let local = object_key(service).and_then(|key| self.objects.services.get(&key));
        let local = local.ok_or_else(not_found)?;
        if let ServiceType::ExternalName(_) = &local.service_type {
            let message = format!("{service} is of type ExternalName, which is not routed to");
            return Err(Problem::new("UnsupportedValue", message));
        }
        Ok(&local.ports)
    }
}

/// The filters of a rule, or the type of the first that the data plane does not have.
fn supported(filters: &[RouteFilter]) -> Result<Vec<Filter>, &'static str> {
    let supported = filters.iter().map(|filter| match filter {
        RouteFilter::Supported(filter) => Ok(filter.clone()),
        RouteFilter::Unsupported(kind) => Err(*kind),
    });
    supported.collect()
}

/// Of one backend only headers can be changed.
fn backend_filters(filters: &[RouteFilter]) -> Result<Vec<Filter>, Problem> {
    let unsupported = |kind: &str| {
        let message = format!("a filter of type {kind} is not supported on a backend");
        Problem::new("UnsupportedValue", message)
    };
    let filters = supported(filters).map_err(unsupported)?;
    for filter in &filters {
        match filter {
            Filter::RequestHeaders(_) | Filter::ResponseHeaders(_) => {}
            Filter::Cors(_) => return Err(unsupported("CORS")),
            Filter::Mirror(_) => return Err(unsupported("RequestMirror")),
            Filter::Redirect(_) => return Err(unsupported("RequestRedirect")),
            Filter::Rewrite(_) => return Err(unsupported("URLRewrite")),
        }
    }
    Ok(filters)
}
