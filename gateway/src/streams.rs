//! TCP listeners, and the choice of a backend for everything that is not HTTP.
//!
//! A connection (or a UDP session) has no request to look at: the listener and, for TLS,
//! the server name decide. [`route_stream`] is that decision, for the data plane and for
//! `isthmus explain` alike. What has no route, or whose share falls to a backend that
//! cannot be used, is closed and recorded with its flag.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use isthmus_model::decision::weighted;
use isthmus_model::snapshot::{FrontKey, ListenerEntry};
use isthmus_model::{
    Assignment, BackendTarget, Listener, ListenerProtocol, ServiceKey, Snapshot, Step, StreamRoute,
    Trail,
};
use isthmus_proxy::tcp::{Leg, relay_leg};
use isthmus_proxy::{Client, UpstreamTls, Worker, explain_assignment};
use isthmus_runtime::clock;
use isthmus_telemetry::{AccessRecord, HopRole, Protocol, ResponseFlag};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// Where a connection or a UDP session goes.
#[derive(Debug, Clone)]
pub enum StreamChoice<'s> {
    /// To an endpoint of this assignment.
    Forward {
        /// The route.
        route: &'s Arc<StreamRoute>,
        /// The endpoints.
        assignment: &'s Arc<Assignment>,
    },
    /// Nowhere: it is closed, or its datagrams are dropped.
    Refuse {
        /// The route, if one was found.
        route: Option<&'s Arc<StreamRoute>>,
        /// Why, for records.
        flag: ResponseFlag,
        /// Why, in words.
        detail: &'s str,
    },
}

/// Chooses the backend of a connection (or UDP session) at a listener.
///
/// `server_name` is that of the client's TLS handshake in lower case, empty for TCP and
/// UDP; `random` is uniform over all values.
///
/// Spec: Gateway API BackendRef weight; TCPRoute, TLSRoute and UDPRoute: the share of an
/// invalid backend is refused.
pub fn route_stream<'s>(
    snapshot: &'s Snapshot,
    entry: &'s ListenerEntry,
    server_name: &str,
    random: u32,
    trail: &mut Trail,
) -> StreamChoice<'s> {
    let Some(route) = entry.stream_route(server_name) else {
        return refuse(None, ResponseFlag::NoRoute, "no route is attached to the listener");
    };
    let backend = weighted(&route.backends, random);
    trail.note(|| Step {
        stage: "route",
        object: format!("{} {}", route.kind.label(), route.name),
        outcome: match backend {
            Some(backend) => format!("is the oldest here; weight {}", backend.weight),
            None => "has no backend with a weight above 0: refused".into(),
        },
    });
    let Some(backend) = backend else {
        let detail = "the route has no backend with a weight above 0";
        return refuse(Some(route), ResponseFlag::NoRoute, detail);
    };
    let (service, port) = match &backend.target {
        BackendTarget::Invalid { reason } => {
            return refuse(Some(route), ResponseFlag::NoRoute, reason);
        }
        BackendTarget::Service { service, port } => (service, *port),
    };
    match assignment(snapshot, entry.listener.protocol, service, port) {
        Some(assignment) => {
            explain_assignment(assignment, trail);
            StreamChoice::Forward { route, assignment }
        }
        None => {
            let detail = "the backend's service or port is gone";
            refuse(Some(route), ResponseFlag::NoRoute, detail)
        }
    }
}

fn refuse<'s>(
    route: Option<&'s Arc<StreamRoute>>,
    flag: ResponseFlag,
    detail: &'s str,
) -> StreamChoice<'s> {
    StreamChoice::Refuse { route, flag, detail }
}

/// The endpoints of a backend, over the transport that the listener's clients use.
pub(crate) fn assignment<'s>(
    snapshot: &'s Snapshot,
    protocol: ListenerProtocol,
    service: &ServiceKey,
    port: u16,
) -> Option<&'s Arc<Assignment>> {
    let entry = snapshot.service(service)?;
    match protocol {
        ListenerProtocol::Udp => entry.datagram_assignment(port),
        ListenerProtocol::Http
        | ListenerProtocol::Https
        | ListenerProtocol::Tcp
        | ListenerProtocol::TlsPassthrough
        | ListenerProtocol::TlsTerminate => entry.assignment(port),
    }
}

/// Serves one accepted connection of a TCP listener.
pub(crate) async fn serve(
    worker: Rc<Worker>,
    key: FrontKey,
    stream: TcpStream,
    address: SocketAddr,
) {
    let client = Client { address, tls: false, identity: Rc::from(""), server_name: None };
    let Some(_place) = worker.admit() else {
        return refused(&worker, &client, Protocol::Tcp, Refusal::OVERLOAD);
    };
    carry(&worker, key, client, stream, Protocol::Tcp).await;
}

/// Relays a connection by the route of its listener, which is chosen anew from the
/// current snapshot, or records why it is closed.
pub(crate) async fn carry<S>(
    worker: &Rc<Worker>,
    key: FrontKey,
    client: Client,
    stream: S,
    protocol: Protocol,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let chosen = {
        let snapshot = worker.pin();
        let name = client.server_name.as_deref().unwrap_or("");
        let entry = snapshot.front(&key).and_then(|front| front.listener(name));
        let Some(entry) = entry else {
            return refused(worker, &client, protocol, Refusal::NO_LISTENER);
        };
        match route_stream(&snapshot, entry, name, worker.random(), &mut Trail::off()) {
            StreamChoice::Forward { route, assignment } => {
                let tls = upstream_tls(&snapshot, &entry.listener, assignment);
                (route.name.clone(), Arc::clone(assignment), tls)
            }
            StreamChoice::Refuse { route, flag, detail } => {
                let route = route.map_or("", |route| route.name.as_str());
                return refused(worker, &client, protocol, Refusal { route, flag, detail });
            }
        }
    };
    let (route, assignment, tls) = chosen;
    let leg = Leg { role: HopRole::Ingress, protocol, route, tls };
    relay_leg(Rc::clone(worker), client, stream, leg, assignment).await;
}

/// The TLS towards plain endpoints of an assignment, where the bytes are clear here: what
/// is passed through has the client's own.
///
/// Spec: Gateway API BackendTLSPolicy.
fn upstream_tls(
    snapshot: &Snapshot,
    listener: &Listener,
    assignment: &Assignment,
) -> Option<UpstreamTls> {
    match listener.protocol {
        ListenerProtocol::Tcp | ListenerProtocol::TlsTerminate => {}
        ListenerProtocol::Http
        | ListenerProtocol::Https
        | ListenerProtocol::TlsPassthrough
        | ListenerProtocol::Udp => return None,
    }
    let policy = snapshot.backend_tls(&assignment.service, assignment.port)?;
    let shown = listener.backend_certificate.as_deref();
    let certificate = shown.and_then(|name| snapshot.certificate(name).cloned());
    Some(UpstreamTls { policy: Arc::clone(policy), certificate })
}

/// Why a connection or datagram was not carried.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Refusal<'a> {
    pub(crate) route: &'a str,
    pub(crate) flag: ResponseFlag,
    pub(crate) detail: &'a str,
}

impl Refusal<'static> {
    /// The worker has as many connections as it may.
    pub(crate) const OVERLOAD: Self = Self {
        route: "",
        flag: ResponseFlag::Overload,
        detail: "the limit of connections of the worker is reached",
    };
    /// No listener of the address takes the server name.
    pub(crate) const NO_LISTENER: Self = Self {
        route: "",
        flag: ResponseFlag::NoRoute,
        detail: "no listener takes this server name",
    };
}

/// Records a connection or datagram that is not carried; it counts as opened and ended.
pub(crate) fn refused(worker: &Worker, client: &Client, protocol: Protocol, why: Refusal<'_>) {
    let snapshot = worker.pin();
    let record = AccessRecord {
        client: Some(client.address),
        authority: client.server_name.as_deref().unwrap_or("").as_bytes(),
        route: why.route,
        source_cluster: snapshot.node.cluster.as_str(),
        flag: why.flag,
        detail: why.detail,
        ..AccessRecord::new(HopRole::Ingress, protocol, clock::wall())
    };
    worker.recorder().connection_opened(&record);
    worker.record(&record);
    tracing::debug!(client = %client.address, flag = why.flag.name(), why.detail, "refused");
}
