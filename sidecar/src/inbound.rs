//! Routes what others send to the application: only to the application's own address, and
//! only to ports that it may be reached at.
//!
//! A mesh client names the port ([`isthmus_proxy::MESH_PORT_HEADER`], or the port of a
//! CONNECT); it can never name an address, so nothing else on the host can be reached
//! through a sidecar.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::StatusCode;
use isthmus_model::endpoint::PortEndpoints;
use isthmus_model::policy::mtls_mode;
use isthmus_model::service::{ServicePort, Transport};
use isthmus_model::{
    AppProtocol, Assignment, Endpoint, EndpointId, EndpointTarget, Health, Label, Locality,
    MtlsMode, ServiceKey, Snapshot, Step, Trail,
};
use isthmus_proxy::canonical::Authority;
use isthmus_proxy::{Route, RouteInput, Router, Target};
use isthmus_telemetry::{HopRole, ResponseFlag};

use crate::options::Workload;

/// The router of a sidecar's inbound side.
#[derive(Debug)]
pub struct InboundRouter {
    workload: Workload,
    service: ServiceKey,
    /// Ports of the sidecar itself on the application's address: never forwarded to.
    own_ports: Vec<u16>,
    locality: Locality,
}

impl InboundRouter {
    /// Routes to this workload; `own` are the addresses that the sidecar listens on.
    pub fn new(workload: Workload, locality: Locality, own: &[SocketAddr]) -> Self {
        let own_ports = own.iter().map(SocketAddr::port).collect();
        let name = Label::new(&workload.name).or_else(|_| Label::new("workload"));
        // The name is for records only; a name that is no label is replaced.
        let name = name.unwrap_or_else(|_| workload.namespace.clone());
        let service = ServiceKey::cluster(workload.namespace.clone(), name);
        Self { workload, service, own_ports, locality }
    }

    /// The application's endpoint for a port that a client asked for.
    pub fn application(&self, port: Option<u16>) -> Option<Arc<Assignment>> {
        let port = match (port, self.workload.ports.as_slice()) {
            (Some(port), []) if !self.own_ports.contains(&port) && !is_reserved(port) => port,
            (Some(port), allowed) if allowed.contains(&port) => port,
            (None, [first, ..]) => *first,
            (Some(_) | None, _) => return None,
        };
        let address = SocketAddr::new(self.workload.application, port);
        Some(Arc::new(application(&self.service, address, &self.locality)))
    }

    /// What policy demands of a client of this port.
    pub fn mode(&self, snapshot: &Snapshot, port: u16) -> (MtlsMode, Option<String>) {
        let namespace = self.workload.namespace.as_str();
        mtls_mode(snapshot.policies(), namespace, &self.workload.labels, port)
    }

    /// The port that plaintext clients reach.
    pub fn plaintext_port(&self) -> u16 {
        self.workload.ports.first().copied().unwrap_or(0)
    }

    /// The address of the application.
    pub fn address(&self) -> IpAddr {
        self.workload.application
    }
}

impl Router for InboundRouter {
    fn role(&self) -> HopRole {
        HopRole::Inbound
    }

    fn service(&self, _authority: &Authority) -> Option<ServiceKey> {
        None
    }

    fn route<'s>(
        &'s self,
        _snapshot: &'s Snapshot,
        input: &RouteInput<'_>,
        trail: &mut Trail,
    ) -> Route<'s> {
        let Some(assignment) = self.application(input.mesh_port) else {
            return Route::Refuse {
                matched: None,
                status: StatusCode::FORBIDDEN,
                flag: ResponseFlag::Refused,
                detail: "the workload may not be reached at that port",
            };
        };
        trail.note(|| Step {
            stage: "inbound",
            object: format!("workload {}/{}", self.workload.namespace, self.workload.name),
            outcome: format!("port {} of the application", assignment.port),
        });
        Route::Forward { matched: None, backend: None, assignment: Target::Own(assignment) }
    }

    fn listener_port(&self) -> u16 {
        self.plaintext_port()
    }
}

/// Ports of sidecars by convention, which no application is reached at.
fn is_reserved(port: u16) -> bool {
    matches!(port, 15000..=15099 | 15443)
}

fn application(service: &ServiceKey, address: SocketAddr, locality: &Locality) -> Assignment {
    let port = ServicePort {
        name: None,
        number: address.port(),
        transport: Transport::Tcp,
        app: AppProtocol::Http,
        app_protocol: None,
    };
    let endpoints = EndpointId::new("application")
        .map(|id| Endpoint {
            id,
            target: EndpointTarget::Local { address, mesh: None },
            locality: locality.clone(),
            weight: 1,
            health: Health::Ready,
            identity: None,
            hostname: None,
        })
        .into_iter()
        .collect();
    let group = PortEndpoints { port: address.port(), transport: Transport::Tcp, endpoints };
    Assignment::build(service, &port, Some(&group), locality, &Default::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn router(ports: Vec<u16>) -> InboundRouter {
        let workload = Workload {
            name: "pay".into(),
            namespace: Label::new("shop").unwrap(),
            labels: Default::default(),
            application: "127.0.0.9".parse().unwrap(),
            ports,
        };
        let own = ["127.0.0.9:9999".parse().unwrap()];
        InboundRouter::new(workload, Locality::default(), &own)
    }

    #[test]
    fn only_the_applications_ports_can_be_reached() {
        let reach = |ports: &[u16], port| {
            let found = router(ports.to_vec()).application(port)?;
            match &found.endpoints[0].target {
                EndpointTarget::Local { address, .. } => Some(address.to_string()),
                EndpointTarget::Remote { .. } => None,
            }
        };
        assert_eq!(reach(&[80, 81], Some(81)).unwrap(), "127.0.0.9:81");
        assert_eq!(reach(&[80, 81], None).unwrap(), "127.0.0.9:80");
        assert_eq!(reach(&[80], Some(22)), None);
        assert_eq!(reach(&[], Some(22)).unwrap(), "127.0.0.9:22");
        for own in [15000, 15008, 15020, 9999] {
            assert_eq!(reach(&[], Some(own)), None);
        }
        assert_eq!(reach(&[], None), None);
    }
}
