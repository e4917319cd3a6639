//! What a sidecar's mesh, inbound and TCP ports do with a connection.

use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use isthmus_certs::peer_id;
use isthmus_hbone::{
    MeshAcceptor, MeshConnection, MeshProtocol, ServeLimits, TunnelStream, Verdict, serve_connect,
};
use isthmus_model::{MtlsMode, Snapshot, SpiffeId};
use isthmus_proxy::{Client, Worker, serve_stream, tcp};
use isthmus_runtime::{clock, error_chain};
use isthmus_telemetry::{AccessRecord, HopRole, Protocol, ResponseFlag};
use rustls::ServerConfig;
use tokio::net::TcpStream;

use crate::inbound::InboundRouter;

/// What the inbound side of one worker has.
pub(crate) struct Inbound {
    pub(crate) worker: Rc<Worker>,
    pub(crate) router: Rc<InboundRouter>,
    pub(crate) tls: Arc<ServerConfig>,
}

/// Serves one connection to the mesh port.
pub(crate) async fn serve_mesh(inbound: Rc<Inbound>, stream: TcpStream, address: SocketAddr) {
    let acceptor = MeshAcceptor::new(Arc::clone(&inbound.tls), peer_id);
    match acceptor.accept(stream).await {
        Ok(connection) => serve_connection(inbound, connection, address).await,
        Err(error) => {
            let detail = error_chain(&error);
            tracing::debug!(error = %detail, %address, "mTLS handshake failed");
            refused(&inbound, address, ResponseFlag::AuthenticationFailed, &detail);
        }
    }
}

async fn serve_connection(
    inbound: Rc<Inbound>,
    connection: MeshConnection<TcpStream>,
    address: SocketAddr,
) {
    let client = Client {
        address,
        tls: true,
        identity: Rc::from(connection.peer.as_str()),
        server_name: None,
    };
    match connection.protocol {
        MeshProtocol::Http => {
            let router = Rc::clone(&inbound.router);
            serve_stream(Rc::clone(&inbound.worker), connection.stream, client, router).await;
        }
        MeshProtocol::Connect => {
            let stop = inbound.worker.stop().clone();
            let handler = |request: isthmus_hbone::ConnectRequest| {
                let (inbound, client) = (Rc::clone(&inbound), client.clone());
                async move { tunnel(inbound, client, request.authority.port()) }
            };
            let _in_flight = stop.guard();
            serve_connect(connection, &ServeLimits::default(), handler, stop).await;
        }
    }
}

/// Decides on a CONNECT: the port counts, the host is the client's business.
fn tunnel(
    inbound: Rc<Inbound>,
    client: Client,
    port: u16,
) -> Verdict<impl FnOnce(TunnelStream) -> std::pin::Pin<Box<dyn Future<Output = ()>>>> {
    let Some(assignment) = inbound.router.application(Some(port)) else {
        return Verdict::refuse(StatusCode::FORBIDDEN, "the workload has no such port");
    };
    Verdict::accept(move |stream: TunnelStream| {
        let worker = Rc::clone(&inbound.worker);
        let relay = tcp::relay(worker, client, stream, HopRole::Inbound, assignment);
        Box::pin(relay) as std::pin::Pin<Box<dyn Future<Output = ()>>>
    })
}

/// Serves one connection to the inbound port: mTLS, or plaintext if policy lets it.
pub(crate) async fn serve_inbound(inbound: Rc<Inbound>, stream: TcpStream, address: SocketAddr) {
    let mut first = [0u8; 1];
    let peeked = tokio::time::timeout(FIRST_BYTE_TIMEOUT, stream.peek(&mut first)).await;
    match peeked {
        Ok(Ok(1)) if first[0] == TLS_HANDSHAKE => serve_mesh(inbound, stream, address).await,
        Ok(Ok(1)) => serve_plaintext(inbound, stream, address).await,
        Ok(Ok(_) | Err(_)) | Err(_) => {}
    }
}

async fn serve_plaintext(inbound: Rc<Inbound>, stream: TcpStream, address: SocketAddr) {
    let port = inbound.router.plaintext_port();
    let (mode, policy) = inbound.router.mode(&inbound.worker.pin(), port);
    if mode == MtlsMode::Strict {
        let policy = policy.unwrap_or_default();
        let detail = format!("PeerAuthentication {policy} is STRICT and the client has no mTLS");
        refused(&inbound, address, ResponseFlag::AuthenticationFailed, &detail);
        return;
    }
    let client = Client { address, tls: false, identity: Rc::from(""), server_name: None };
    let router = Rc::clone(&inbound.router);
    serve_stream(Rc::clone(&inbound.worker), stream, client, router).await;
}

/// Records a connection that ended before a request.
fn refused(inbound: &Inbound, address: SocketAddr, flag: ResponseFlag, detail: &str) {
    inbound.worker.record(&AccessRecord {
        client: Some(address),
        flag,
        detail,
        ..AccessRecord::new(HopRole::Inbound, Protocol::Tcp, clock::wall())
    });
}

/// Serves one connection of an opaque outbound forward.
pub(crate) async fn serve_forward(
    worker: Rc<Worker>,
    stream: TcpStream,
    address: SocketAddr,
    forward: Rc<crate::options::TcpForward>,
    identity: Option<SpiffeId>,
) {
    let find = |snapshot: &Snapshot| snapshot.assignment(&forward.service, forward.port).cloned();
    let mut found = find(&worker.pin());
    if found.is_none() {
        worker.want(&forward.service).await;
        found = find(&worker.pin());
    }
    let Some(assignment) = found else {
        tracing::debug!(service = %forward.service, port = forward.port, "no such service");
        return;
    };
    let identity = identity.map_or_else(|| Rc::from(""), |id| Rc::from(id.as_str()));
    let client = Client { address, tls: false, identity, server_name: None };
    tcp::relay(worker, client, stream, HopRole::Outbound, assignment).await;
}

/// The first byte of a TLS connection. Spec: RFC 8446 section 5.1.
const TLS_HANDSHAKE: u8 = 22;
/// Time for the first byte of a connection to the inbound port.
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(10);
