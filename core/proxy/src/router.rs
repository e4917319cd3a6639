//! The seam to routing: what a role decides for a request.
//!
//! Ingress, outbound and inbound differ in how they route and in nothing else. The same
//! routers serve requests and `isthmus explain`.

use std::sync::Arc;

use http::StatusCode;
use isthmus_model::decision::decide;
use isthmus_model::route::{Backend, BackendTarget, Redirect};
use isthmus_model::table::Matched;
use isthmus_model::{
    Assignment, Certificate, Decision, RequestHead, ServiceKey, Snapshot, Step, Trail,
};
use isthmus_telemetry::{HopRole, ResponseFlag};

use crate::canonical::Authority;

/// Decides where the requests of one listener go.
pub trait Router {
    /// The hop, for records.
    fn role(&self) -> HopRole;

    /// The service that `authority` names, for roles that fetch services on demand.
    fn service(&self, authority: &Authority) -> Option<ServiceKey>;

    /// Routes a request.
    fn route<'s>(
        &'s self,
        snapshot: &'s Snapshot,
        input: &RouteInput<'_>,
        trail: &mut Trail,
    ) -> Route<'s>;

    /// What backends behind a [`isthmus_model::BackendTls`] are shown for requests to a
    /// host; by default nothing.
    fn backend_certificate<'s>(
        &self,
        _snapshot: &'s Snapshot,
        _host: &str,
    ) -> Option<&'s Arc<Certificate>> {
        None
    }

    /// The port that redirects without a port of their own keep.
    fn listener_port(&self) -> u16;
}

/// A request as a router sees it.
#[derive(Debug, Clone, Copy)]
pub struct RouteInput<'a> {
    /// The canonical head.
    pub head: RequestHead<'a>,
    /// The port in the request's authority.
    pub port: Option<u16>,
    /// The server name of the client's TLS handshake.
    pub server_name: Option<&'a str>,
    /// The application's port that a mesh client asked for.
    pub mesh_port: Option<u16>,
    /// Uniform over all values, for weights.
    pub random: u32,
}

/// Where a request goes.
#[derive(Debug, Clone)]
pub enum Route<'s> {
    /// To an endpoint of this assignment.
    Forward {
        /// The rule, if a route matched.
        matched: Option<&'s Matched>,
        /// The backend, if a route matched.
        backend: Option<&'s Backend>,
        /// The endpoints.
        assignment: Target<'s>,
    },
    /// Answered with a redirect.
    Redirect {
        /// The rule.
        matched: &'s Matched,
        /// The redirect.
        redirect: &'s Redirect,
    },
    /// Answered with an error.
    Refuse {
        /// The rule, if a route matched.
        matched: Option<&'s Matched>,
        /// The status.
        status: StatusCode,
        /// Why, for records.
        flag: ResponseFlag,
        /// Why, in words.
        detail: &'s str,
    },
}

/// The endpoints that a request may go to.
#[derive(Debug, Clone)]
pub enum Target<'s> {
    /// Of this worker alone, for example the application behind a sidecar.
    Own(Arc<Assignment>),
    /// Of the snapshot; borrowed, since its count is shared with other workers.
    Shared(&'s Arc<Assignment>),
}

impl std::ops::Deref for Target<'_> {
    type Target = Arc<Assignment>;

    fn deref(&self) -> &Arc<Assignment> {
        match self {
            Self::Own(assignment) => assignment,
            Self::Shared(assignment) => assignment,
        }
    }
}

impl<'s> Route<'s> {
    /// No route matches.
    pub fn not_found(detail: &'s str) -> Self {
        let (status, flag) = (StatusCode::NOT_FOUND, ResponseFlag::NoRoute);
        Self::Refuse { matched: None, status, flag, detail }
    }

    /// What a matched rule comes to.
    pub fn of_rule(
        snapshot: &'s Snapshot,
        matched: &'s Matched,
        random: u32,
        trail: &mut Trail,
    ) -> Self {
        match decide(matched, random, trail) {
            Decision::Redirect { matched, redirect } => Self::Redirect { matched, redirect },
            Decision::NoRoute => Self::not_found("no route"),
            Decision::NoBackend { matched } => Self::unusable(matched, "the rule has no backend"),
            Decision::Forward { matched, backend } => match &backend.target {
                BackendTarget::Invalid { reason } => Self::unusable(matched, reason),
                BackendTarget::Service { service, port } => {
                    match snapshot.assignment(service, *port) {
                        Some(assignment) => Self::Forward {
                            matched: Some(matched),
                            backend: Some(backend),
                            assignment: Target::Shared(assignment),
                        },
                        None => Self::unusable(matched, "the backend's service or port is gone"),
                    }
                }
            },
        }
    }

    /// A backend that cannot be used: 500, as the Gateway API asks for.
    fn unusable(matched: &'s Matched, detail: &'s str) -> Self {
        Self::Refuse {
            matched: Some(matched),
            status: StatusCode::INTERNAL_SERVER_ERROR,
            flag: ResponseFlag::NoHealthyUpstream,
            detail,
        }
    }
}

/// Writes the endpoints of an assignment into a trail, near ones first.
pub fn explain_assignment(assignment: &Assignment, trail: &mut Trail) {
    trail.note(|| Step {
        stage: "service",
        object: format!("{} port {}", assignment.service, assignment.port),
        outcome: format!(
            "{} endpoints in {} tiers",
            assignment.endpoints.len(),
            assignment.tiers.len()
        ),
    });
    for (number, tier) in assignment.tiers.iter().enumerate() {
        for index in &tier.members {
            let Some(endpoint) = assignment.endpoints.get(*index as usize) else { continue };
            trail.note(|| Step {
                stage: "endpoint",
                object: format!("{} ({})", endpoint.id, endpoint.locality),
                outcome: format!(
                    "tier {number}: {:?}, {:?}{}{}{}",
                    tier.distance.closeness,
                    tier.distance.link,
                    if tier.distance.unheard { ", its controller is silent" } else { "" },
                    if tier.distance.draining { ", draining" } else { "" },
                    if number == 0 { ", takes requests now" } else { "" },
                ),
            });
        }
    }
}
