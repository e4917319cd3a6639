//! Answers for a destination that has no sidecar: the source's mTLS ends here, as the
//! gateway's own identity, and goes on in plaintext inside this cluster.
//!
//! The endpoint was published with the gateway's identity, so the source knows that it
//! talks to a gateway and not to the workload.

use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use http::StatusCode;
use isthmus_certs::{Expected, peer_id};
use isthmus_hbone::wire::{ALPN_CONNECT, ALPN_HTTP};
use isthmus_hbone::{
    MeshAcceptor, MeshProtocol, ServeLimits, TunnelStream, Verdict, serve_connect,
};
use isthmus_link::IncomingStream;
use isthmus_model::endpoint::PortEndpoints;
use isthmus_model::service::{ServicePort, Transport};
use isthmus_model::{
    AppProtocol, Assignment, Endpoint, EndpointId, EndpointTarget, Health, Locality, ServiceKey,
    Snapshot, Step, Trail,
};
use isthmus_proxy::canonical::Authority;
use isthmus_proxy::{Client, Route, RouteInput, Router, Target, Worker, serve_stream, tcp};
use isthmus_runtime::error_chain;
use isthmus_telemetry::HopRole;

use crate::eastwest::Shared;

/// Serves one stream whose destination is a plain address of this cluster.
pub(crate) async fn serve(
    worker: Rc<Worker>,
    shared: &Shared,
    stream: IncomingStream,
    address: SocketAddr,
) {
    let router = StandIn::new(&worker.pin(), &stream, address);
    // The source must be of the cluster whose link this is.
    let expected = Expected::InTrustDomain(stream.peer_id.trust_domain().clone());
    let alpn: [&[u8]; 2] = [ALPN_HTTP, ALPN_CONNECT];
    let config = match shared.tls.server_config_expecting(&alpn, expected) {
        Ok(config) => config,
        Err(error) => {
            tracing::error!(%error, "the gateway cannot stand in for a workload");
            return;
        }
    };
    let Ok(accepted) = stream.accept().await else { return };
    let connection = match MeshAcceptor::new(config, peer_id).accept(accepted).await {
        Ok(connection) => connection,
        Err(error) => {
            tracing::debug!(error = %error_chain(&error), "a source's mTLS failed");
            return;
        }
    };
    let client = Client {
        // The source is in another cluster: its address means nothing here.
        address: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        tls: true,
        identity: Rc::from(connection.peer.as_str()),
        server_name: None,
    };
    match connection.protocol {
        MeshProtocol::Http => {
            serve_stream(worker, connection.stream, client, Rc::new(router)).await;
        }
        MeshProtocol::Connect => {
            let (stop, assignment) = (worker.stop().clone(), router.assignment);
            let handler = |request: isthmus_hbone::ConnectRequest| {
                let (worker, client) = (Rc::clone(&worker), client.clone());
                let assignment = Arc::clone(&assignment);
                async move {
                    if request.authority.port() != address.port() {
                        return Verdict::refuse(StatusCode::FORBIDDEN, "no such port");
                    }
                    Verdict::accept(move |stream: TunnelStream| {
                        tcp::relay(worker, client, stream, HopRole::EastWest, assignment)
                    })
                }
            };
            serve_connect(connection, &ServeLimits::default(), handler, stop).await;
        }
    }
}

/// Routes everything to the one destination of the stream.
struct StandIn {
    assignment: Arc<Assignment>,
}

impl StandIn {
    fn new(snapshot: &Snapshot, stream: &IncomingStream, address: SocketAddr) -> Self {
        let header = &stream.header;
        let known = snapshot.assignment(&header.service, header.port);
        let port = ServicePort {
            name: None,
            number: header.port,
            transport: Transport::Tcp,
            app: known.map_or(AppProtocol::Http, |assignment| assignment.app),
            app_protocol: None,
        };
        let id = header.endpoint.clone().or_else(|| EndpointId::new("destination").ok());
        let endpoint = |id: EndpointId| Endpoint {
            id,
            target: EndpointTarget::Local { address, mesh: None },
            locality: Locality::default(),
            weight: 1,
            health: Health::Ready,
            identity: None,
            hostname: None,
        };
        let group = PortEndpoints {
            port: header.port,
            transport: Transport::Tcp,
            endpoints: id.map(endpoint).into_iter().collect(),
        };
        let locality = Locality::default();
        let assignment =
            Assignment::build(&header.service, &port, Some(&group), &locality, &Default::default());
        Self { assignment: Arc::new(assignment) }
    }
}

impl Router for StandIn {
    fn role(&self) -> HopRole {
        HopRole::EastWest
    }

    fn service(&self, _authority: &Authority) -> Option<ServiceKey> {
        None
    }

    fn route<'s>(
        &'s self,
        _snapshot: &'s Snapshot,
        _input: &RouteInput<'_>,
        trail: &mut Trail,
    ) -> Route<'s> {
        trail.note(|| Step {
            stage: "standin",
            object: self.assignment.service.to_string(),
            outcome: "the gateway stands in for a workload without a sidecar".into(),
        });
        let assignment = Target::Own(Arc::clone(&self.assignment));
        Route::Forward { matched: None, backend: None, assignment }
    }

    fn listener_port(&self) -> u16 {
        self.assignment.port
    }
}
