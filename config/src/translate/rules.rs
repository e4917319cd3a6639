//! Rules of a route: which backends its references mean and which filters it has.
//!
//! Nothing that the user wrote is skipped: a rule with a filter that the data plane does
//! not have answers with 500, since forwarding without the filter could, for example,
//! leave out an authentication.

use isthmus_model::Transport;
use isthmus_model::route::{Backend, BackendTarget, Filter, Mirror, Rule};

use crate::context::Context;
use crate::kind::Kind;
use crate::objects::{BackendRef, HttpRoute, HttpRule, Objects, RouteFilter};
use crate::translate::backends::Resolver;
use crate::translate::conditions::Problem;

/// The rules of a route in the model, and what cannot be used of them.
pub(super) struct RuleOutcome {
    pub(super) rules: Vec<Rule>,
    /// One for each rule that answers with 500 because of what it asks for.
    pub(super) unsupported: Vec<Problem>,
    /// References that cannot be used.
    pub(super) references: Vec<Problem>,
}

/// Translates the rules of a route.
pub(super) fn rules(
    objects: &Objects,
    context: &Context,
    kind: Kind,
    route: &HttpRoute,
) -> RuleOutcome {
    let mut work = Work {
        resolver: Resolver {
            objects,
            context,
            kind,
            namespace: &route.key.namespace,
            transport: Transport::Tcp,
        },
        outcome: RuleOutcome { rules: Vec::new(), unsupported: Vec::new(), references: Vec::new() },
    };
    for (index, rule) in route.rules.iter().enumerate() {
        let rule = work.rule(index, rule);
        work.outcome.rules.push(rule);
    }
    work.outcome
}

struct Work<'w> {
    resolver: Resolver<'w>,
    outcome: RuleOutcome,
}

impl Work<'_> {
    fn rule(&mut self, index: usize, rule: &HttpRule) -> Rule {
        let (filters, backends) = match self.filters(index, &rule.filters) {
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
            retry: rule.retry.clone(),
        }
    }

    /// The filters of a rule, or the type of the first that the data plane does not have.
    fn filters(
        &mut self,
        rule: usize,
        filters: &[RouteFilter],
    ) -> Result<Vec<Filter>, &'static str> {
        let mut found = Vec::with_capacity(filters.len());
        for (at, filter) in filters.iter().enumerate() {
            match filter {
                RouteFilter::Mirror { backend, fraction } => {
                    found.extend(self.mirror(rule, at, backend, *fraction));
                }
                RouteFilter::Supported(filter) => found.push(filter.clone()),
                RouteFilter::Unsupported(kind) => return Err(kind),
            }
        }
        Ok(found)
    }

    /// Spec: HTTPRequestMirrorFilter: a mirror to what cannot be used is dropped and named
    /// in ResolvedRefs; the request itself goes on.
    fn mirror(
        &mut self,
        rule: usize,
        at: usize,
        backend: &BackendRef,
        fraction: (u32, u32),
    ) -> Option<Filter> {
        match self.resolver.target(backend) {
            Ok(target) => Some(Filter::Mirror(Mirror { target, fraction })),
            Err(Problem { reason, message }) => {
                let message = format!("rules[{rule}].filters[{at}]: {message}");
                self.outcome.references.push(Problem::new(reason, message));
                None
            }
        }
    }

    fn backend(&mut self, rule: usize, at: usize, backend: &BackendRef) -> Backend {
        let resolved = self.resolver.target(backend).and_then(|target| {
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
}

/// Of one backend only headers can be changed.
fn backend_filters(filters: &[RouteFilter]) -> Result<Vec<Filter>, Problem> {
    let unsupported = |kind: &str| {
        let message = format!("a filter of type {kind} is not supported on a backend");
        Err(Problem::new("UnsupportedValue", message))
    };
    let mut found = Vec::with_capacity(filters.len());
    for filter in filters {
        let filter = match filter {
            RouteFilter::Mirror { .. } => return unsupported("RequestMirror"),
            RouteFilter::Supported(filter) => filter,
            RouteFilter::Unsupported(kind) => return unsupported(kind),
        };
        match filter {
            Filter::RequestHeaders(_) | Filter::ResponseHeaders(_) => found.push(filter.clone()),
            Filter::Cors(_) => return unsupported("CORS"),
            Filter::Mirror(_) => return unsupported("RequestMirror"),
            Filter::Redirect(_) => return unsupported("RequestRedirect"),
            Filter::Rewrite(_) => return unsupported("URLRewrite"),
        }
    }
    Ok(found)
}
