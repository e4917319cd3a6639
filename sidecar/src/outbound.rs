//! Routes what the application calls: the host names a service, routes attached to the
//! service may split it, and the nearest usable endpoint answers.

use http::StatusCode;
use isthmus_model::snapshot::ServiceRule;
use isthmus_model::{Label, ServiceKey, ServiceScope, Snapshot, Step, Trail};
use isthmus_proxy::canonical::Authority;
use isthmus_proxy::{Route, RouteInput, Router, Target, explain_assignment};
use isthmus_telemetry::{HopRole, ResponseFlag};

/// The router of a sidecar's outbound side.
#[derive(Debug)]
pub struct OutboundRouter {
    namespace: Label,
    port: u16,
}

impl OutboundRouter {
    /// Routes for a workload of this namespace; `port` is the proxy's own.
    pub fn new(namespace: Label, port: u16) -> Self {
        Self { namespace, port }
    }

    /// Reads a host as a service: the full name in either scope, or for this cluster's
    /// Services `<name>.<namespace>.svc`, `<name>.<namespace>` and `<name>`.
    pub fn service_of(&self, host: &str) -> Option<ServiceKey> {
        if let Some(key) = ServiceKey::from_host(host) {
            return Some(key);
        }
        let short = host.strip_suffix(".svc").unwrap_or(host);
        let (name, namespace) = match short.split_once('.') {
            Some((name, namespace)) => (name, Label::new(namespace).ok()?),
            None => (short, self.namespace.clone()),
        };
        Some(ServiceKey { scope: ServiceScope::Cluster, namespace, name: Label::new(name).ok()? })
    }
}

impl Router for OutboundRouter {
    fn role(&self) -> HopRole {
        HopRole::Outbound
    }

    fn service(&self, authority: &Authority) -> Option<ServiceKey> {
        self.service_of(&authority.host)
    }

    fn route<'s>(
        &'s self,
        snapshot: &'s Snapshot,
        input: &RouteInput<'_>,
        trail: &mut Trail,
    ) -> Route<'s> {
        let Some(key) = self.service_of(input.head.host) else {
            return Route::not_found("the host is not the name of a service");
        };
        let port = input.port.unwrap_or(HTTP_PORT);
        let Some(entry) = snapshot.service(&key) else {
            return Route::not_found("no such service is known to this workload");
        };
        trail.note(|| Step {
            stage: "host",
            object: entry.service.key.to_string(),
            outcome: format!("{} port {port} names it", input.head.host),
        });
        match snapshot.service_rule(&key, port, &input.head, trail) {
            ServiceRule::Matched(matched) => {
                return Route::of_rule(snapshot, matched, input.random, trail);
            }
            ServiceRule::NoMatch => {
                return Route::not_found("routes are attached to the service and none matches");
            }
            ServiceRule::NoRoutes => {}
        }
        match entry.assignment(port) {
            Some(assignment) => {
                explain_assignment(assignment, trail);
                Route::Forward {
                    matched: None,
                    backend: None,
                    assignment: Target::Shared(assignment),
                }
            }
            None => Route::Refuse {
                matched: None,
                status: StatusCode::NOT_FOUND,
                flag: ResponseFlag::NoRoute,
                detail: "the service has no such TCP port",
            },
        }
    }

    fn listener_port(&self) -> u16 {
        self.port
    }
}

const HTTP_PORT: u16 = 80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_mean_services_of_this_cluster() {
        let router = OutboundRouter::new(Label::new("shop").unwrap(), 15001);
        let host = |text: &str| router.service_of(text).map(|key| key.host());
        assert_eq!(host("cart").unwrap(), "cart.shop.svc.cluster.local");
        assert_eq!(host("cart.other").unwrap(), "cart.other.svc.cluster.local");
        assert_eq!(host("cart.other.svc").unwrap(), "cart.other.svc.cluster.local");
        let full = "cart.other.svc.clusterset.local";
        assert_eq!(host(full).unwrap(), full);
        assert_eq!(host("www.example.com"), None);
    }
}
