//! What happens to a request: the head that routing looks at, the decision, and the
//! trail that `isthmus explain` prints.
//!
//! There is one routing function for both uses. With [`Trail::off`] it records nothing
//! and allocates nothing; with [`Trail::on`] each choice is written down with the object
//! that caused it.

use http::{HeaderMap, Method};
use serde::Serialize;

use crate::route::{Backend, Redirect};
use crate::table::Matched;

/// The canonical request as routing sees it.
#[derive(Debug, Clone, Copy)]
pub struct RequestHead<'a> {
    /// The method, case-sensitive.
    pub method: &'a Method,
    /// The host: lower case, no port, no trailing dot.
    pub host: &'a str,
    /// The path: begins with `/`, normalised.
    pub path: &'a str,
    /// The query, without `?`.
    pub query: Option<&'a str>,
    /// The headers.
    pub headers: &'a HeaderMap,
}

/// What happens to a request.
#[derive(Debug, Clone, Copy)]
pub enum Decision<'s> {
    /// A rule matched and its share of requests goes to this backend.
    Forward {
        /// The rule.
        matched: &'s Matched,
        /// The backend.
        backend: &'s Backend,
    },
    /// A rule matched and has no backend that can be used: answered with 500.
    NoBackend {
        /// The rule.
        matched: &'s Matched,
    },
    /// No rule matched: answered with 404.
    NoRoute,
    /// A rule matched and answers with a redirect.
    Redirect {
        /// The rule.
        matched: &'s Matched,
        /// The redirect.
        redirect: &'s Redirect,
    },
}

/// One line of an explanation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// The part of the product that decided: `listener`, `route`, `backend`, `endpoint`, …
    pub stage: &'static str,
    /// The object that caused the decision.
    pub object: String,
    /// What was decided and why.
    pub outcome: String,
}

/// Records why a request goes where it goes, or nothing.
#[derive(Debug, Default)]
pub struct Trail {
    steps: Option<Vec<Step>>,
}

impl Trail {
    /// Records nothing.
    pub fn off() -> Self {
        Self { steps: None }
    }

    /// Records each step.
    pub fn on() -> Self {
        Self { steps: Some(Vec::new()) }
    }

    /// Whether steps are recorded.
    pub fn is_on(&self) -> bool {
        self.steps.is_some()
    }

    /// Records a step; the closure runs only when the trail is on.
    pub fn note(&mut self, step: impl FnOnce() -> Step) {
        if let Some(steps) = &mut self.steps
            && steps.len() < STEPS_MAX
        {
            steps.push(step());
        }
    }

    /// The steps so far.
    pub fn into_steps(self) -> Vec<Step> {
        self.steps.unwrap_or_default()
    }

    pub(crate) fn candidate(&mut self, route: &str, rule: usize, accepted: bool) {
        self.note(|| Step {
            stage: "route",
            object: format!("HTTPRoute {route} rule {rule}"),
            outcome: if accepted {
                "matches".into()
            } else {
                "path matches, another condition does not".into()
            },
        });
    }
}

/// Chooses what a matched rule does; `random` is uniform over all values.
///
/// Weights are shares of requests; a rule without backends, or with weights of zero only,
/// has none.
pub fn decide<'s>(matched: &'s Matched, random: u32, trail: &mut Trail) -> Decision<'s> {
    let rule = matched.rule();
    let redirect = rule.filters.iter().find_map(|filter| match filter {
        crate::route::Filter::Redirect(redirect) => Some(redirect),
        crate::route::Filter::Cors(_)
        | crate::route::Filter::Mirror(_)
        | crate::route::Filter::RequestHeaders(_)
        | crate::route::Filter::ResponseHeaders(_)
        | crate::route::Filter::Rewrite(_) => None,
    });
    if let Some(redirect) = redirect {
        return Decision::Redirect { matched, redirect };
    }
    let backend = match rule.backends.as_slice() {
        [only] if only.weight > 0 => Some(only),
        several => weighted(several, random),
    };
    trail.note(|| Step {
        stage: "backend",
        object: format!("HTTPRoute {} rule {}", matched.route.name, matched.rule_index),
        outcome: match backend {
            Some(backend) => format!("{} (weight {})", describe(backend), backend.weight),
            None => "no backend with a weight above 0: answered with 500".into(),
        },
    });
    match backend {
        Some(backend) => Decision::Forward { matched, backend },
        None => Decision::NoBackend { matched },
    }
}

/// Picks a backend in proportion to the weights; `random` is uniform over all values.
///
/// `None` when there is no backend, or weights of zero only.
pub fn weighted(backends: &[Backend], random: u32) -> Option<&Backend> {
    let total: u64 = backends.iter().map(|backend| u64::from(backend.weight)).sum();
    if total == 0 {
        return None;
    }
    // Scales the random number to 0..total without the bias of a remainder.
    let mut point = (u64::from(random) * total) >> 32;
    backends.iter().find(|backend| {
        let weight = u64::from(backend.weight);
        let chosen = point < weight;
        point = point.saturating_sub(weight);
        chosen
    })
}

fn describe(backend: &Backend) -> String {
    match &backend.target {
        crate::route::BackendTarget::Invalid { reason } => format!("unusable: {reason}"),
        crate::route::BackendTarget::Service { service, port } => format!("{service} port {port}"),
    }
}

const STEPS_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::BackendTarget;

    fn backend(weight: u32) -> Backend {
        let target = BackendTarget::Invalid { reason: weight.to_string() };
        Backend { target, weight, filters: vec![] }
    }

    #[test]
    fn shares_follow_the_weights_exactly_over_the_whole_range() {
        let backends = [backend(70), backend(0), backend(30)];
        let mut counts = [0u32; 3];
        let step = u32::MAX / 1000;
        for n in 0..1000 {
            let chosen = weighted(&backends, n * step).unwrap();
            let at = backends.iter().position(|b| std::ptr::eq(b, chosen)).unwrap();
            counts[at] += 1;
        }
        assert_eq!(counts[1], 0);
        assert!((699..=701).contains(&counts[0]), "{counts:?}");
    }

    #[test]
    fn zero_weights_leave_no_backend() {
        assert!(weighted(&[backend(0), backend(0)], 5).is_none());
        assert!(weighted(&[], 5).is_none());
        assert!(weighted(&[backend(1), backend(0)], u32::MAX).is_some());
    }
}
