//! From local sidecars into a link.
//!
//! A sidecar asks with CONNECT for a service, a cluster and an endpoint. The gateway
//! opens a stream only to what this cluster imports: the endpoint must stand in the
//! snapshot as one of that cluster. Names of this cluster, addresses, and transit from
//! one peer to another are refused.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use http::StatusCode;
use isthmus_certs::peer_id;
use isthmus_hbone::wire::{CLUSTER_HEADER, ENDPOINT_HEADER};
use isthmus_hbone::{
    ConnectRequest, MeshAcceptor, ServeLimits, SpliceLimits, TunnelStream, Verdict, serve_connect,
    splice,
};
use isthmus_link::{LinkStream, StreamHeader};
use isthmus_model::name::{CONTROLLER_ACCOUNT, SYSTEM_NAMESPACE};
use isthmus_model::{ClusterId, EndpointId, ServiceKey, ServiceScope, Snapshot};
use isthmus_proxy::{Worker, accept_each};
use isthmus_runtime::error_chain;
use isthmus_telemetry::{IncomingTrace, ResponseFlag};
use tokio::net::{TcpListener, TcpStream};

use crate::eastwest::{Shared, link_trace};
use crate::relay_log::RelayLog;

/// Accepts sidecars until the drain begins.
pub(crate) async fn accept(worker: Rc<Worker>, shared: Arc<Shared>, listener: TcpListener) {
    let owner = Rc::clone(&worker);
    let serve =
        move |stream, address| serve(Rc::clone(&owner), Arc::clone(&shared), stream, address);
    accept_each(worker, listener, serve).await;
}

async fn serve(worker: Rc<Worker>, shared: Arc<Shared>, stream: TcpStream, address: SocketAddr) {
    let acceptor = MeshAcceptor::new(Arc::clone(&shared.server), peer_id);
    let connection = match acceptor.accept(stream).await {
        Ok(connection) => connection,
        Err(error) => {
            tracing::debug!(error = %error_chain(&error), %address, "mTLS handshake failed");
            return;
        }
    };
    let stop = worker.stop().clone();
    let handler = |request| decide(Rc::clone(&worker), Arc::clone(&shared), request);
    serve_connect(connection, &ServeLimits::default(), handler, stop).await;
}

type Tunnel = Box<dyn FnOnce(TunnelStream) -> Pin<Box<dyn Future<Output = ()>>>>;

/// Where a CONNECT leads.
struct Asked {
    service: ServiceKey,
    port: u16,
    cluster: ClusterId,
    endpoint: EndpointId,
}

async fn decide(
    worker: Rc<Worker>,
    shared: Arc<Shared>,
    request: ConnectRequest,
) -> Verdict<Tunnel> {
    let asked = match read(&request) {
        Ok(asked) => asked,
        Err(reason) => return Verdict::refuse(StatusCode::BAD_REQUEST, reason),
    };
    let incoming = IncomingTrace::from_headers(&request.headers);
    let context = worker.recorder().begin_trace_from(incoming);
    let mut log = RelayLog::begin(&worker, asked.service.clone());
    log.span = Some(context.span_ref());
    log.source_cluster = shared.cluster.to_string();
    let is_controller =
        request.peer.namespace_and_account() == Some((SYSTEM_NAMESPACE, CONTROLLER_ACCOUNT));
    log.source_identity = Some(request.peer);
    log.destination_cluster = asked.cluster.to_string();
    log.endpoint = asked.endpoint.to_string();
    // Controllers of linked clusters are for the own controller alone.
    if asked.service.namespace.as_str() == SYSTEM_NAMESPACE && !is_controller {
        let reason = "only the controller reaches other clusters' controllers";
        log.refused(ResponseFlag::Refused, reason);
        return Verdict::refuse(StatusCode::FORBIDDEN, reason);
    }
    if !is_imported(&worker.pin(), &asked) {
        let reason = "the endpoint is not imported from that cluster";
        log.refused(ResponseFlag::Refused, reason);
        return Verdict::refuse(StatusCode::FORBIDDEN, reason);
    }
    let mut header = StreamHeader::new(asked.service, asked.port);
    header.endpoint = Some(asked.endpoint);
    header.trace = log.span.as_ref().map(link_trace);
    match shared.links.set().open(&asked.cluster, header).await {
        Ok(stream) => {
            let tunnel: Tunnel = Box::new(move |tunnel| Box::pin(carry(log, tunnel, stream)));
            Verdict::accept(tunnel)
        }
        Err(error) => {
            let reason = error_chain(&error);
            log.refused(ResponseFlag::LinkDown, &reason);
            Verdict::refuse(StatusCode::SERVICE_UNAVAILABLE, reason)
        }
    }
}

fn read(request: &ConnectRequest) -> Result<Asked, String> {
    let (service, port) =
        request.authority.as_service().ok_or("the authority is not the name of a service")?;
    if service.scope != ServiceScope::ClusterSet {
        return Err("only names of the clusterset can be reached through a link".into());
    }
    let header = |name: &'static str| {
        let value = request.headers.get(name).ok_or_else(|| format!("{name} is missing"))?;
        value.to_str().map_err(|_| format!("{name} is not text"))
    };
    let cluster = ClusterId::new(header(CLUSTER_HEADER)?).map_err(|e| e.to_string())?;
    let endpoint = EndpointId::new(header(ENDPOINT_HEADER)?).map_err(|e| e.to_string())?;
    Ok(Asked { service: service.clone(), port, cluster, endpoint })
}

/// Whether the snapshot has this endpoint as one of that cluster, in use or not.
fn is_imported(snapshot: &Snapshot, asked: &Asked) -> bool {
    let Some(assignment) = snapshot.assignment(&asked.service, asked.port) else { return false };
    assignment.endpoints.iter().any(|endpoint| {
        endpoint.id == asked.endpoint && endpoint.remote_cluster() == Some(&asked.cluster)
    })
}

async fn carry(mut log: RelayLog, mut tunnel: TunnelStream, mut stream: LinkStream) {
    log.opened();
    let outcome = splice(&mut tunnel, &mut stream, &SpliceLimits::default()).await;
    log.ended(&outcome);
}
