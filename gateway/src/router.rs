//! Routes what comes from outside, by the listeners and routes of one bound address.

use std::sync::Arc;

use http::StatusCode;
use isthmus_model::snapshot::{FrontKey, Routed};
use isthmus_model::{Certificate, ServiceKey, Snapshot, Step, Trail};
use isthmus_proxy::canonical::Authority;
use isthmus_proxy::{Route, RouteInput, Router, explain_assignment};
use isthmus_telemetry::{HopRole, ResponseFlag};

/// The router of one bound address.
#[derive(Debug, Clone)]
pub struct IngressRouter {
    key: FrontKey,
    port: u16,
}

impl IngressRouter {
    /// Routes for a bound address; `port` is the one that clients see.
    pub fn new(key: FrontKey, port: u16) -> Self {
        Self { key, port }
    }
}

impl Router for IngressRouter {
    fn role(&self) -> HopRole {
        HopRole::Ingress
    }

    fn service(&self, _authority: &Authority) -> Option<ServiceKey> {
        None
    }

    fn route<'s>(
        &'s self,
        snapshot: &'s Snapshot,
        input: &RouteInput<'_>,
        trail: &mut Trail,
    ) -> Route<'s> {
        let Some(front) = snapshot.front(&self.key) else {
            return Route::not_found("no listener is left at this address");
        };
        if let Some(name) = input.server_name
            && !same_listener(front, name, input.head.host)
        {
            // RFC 9110 section 15.5.20. The TLS policy of one listener must not let a
            // request in at another.
            trail.note(|| Step {
                stage: "listener",
                object: format!("server name {name}"),
                outcome: format!("belongs to another listener than {}", input.head.host),
            });
            return Route::Refuse {
                matched: None,
                status: StatusCode::MISDIRECTED_REQUEST,
                flag: ResponseFlag::Malformed,
                detail: "the host belongs to another listener than the TLS server name",
            };
        }
        match front.route(&input.head, trail) {
            Routed::NoListener => Route::not_found("no listener takes this host"),
            Routed::NoRule { .. } => Route::not_found("no route matches this request"),
            Routed::Rule { matched, .. } => {
                let route = Route::of_rule(snapshot, matched, input.random, trail);
                if let Route::Forward { assignment, .. } = &route {
                    explain_assignment(assignment, trail);
                }
                route
            }
        }
    }

    fn backend_certificate<'s>(
        &self,
        snapshot: &'s Snapshot,
        host: &str,
    ) -> Option<&'s Arc<Certificate>> {
        let listener = &snapshot.front(&self.key)?.listener(host)?.listener;
        snapshot.certificate(listener.backend_certificate.as_deref()?)
    }

    fn listener_port(&self) -> u16 {
        self.port
    }
}

fn same_listener(front: &isthmus_model::snapshot::Front, name: &str, host: &str) -> bool {
    let name = name.to_ascii_lowercase();
    if name == host {
        return true;
    }
    let listener = |host: &str| front.listener(host).map(|entry| entry.listener.name.as_str());
    listener(&name) == listener(host)
}
