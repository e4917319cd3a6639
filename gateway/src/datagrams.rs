//! UDP listeners: sessions by the client's address.
//!
//! The first datagram of a client chooses a backend by weight and an endpoint in its
//! nearest tier; a socket of its own, connected to that endpoint, carries the session in
//! both directions until nothing has moved for [`IDLE_TIMEOUT`]. Replies leave by the
//! listener's socket, so that the client sees the address that it asked. The kernel gives
//! one client's datagrams to one worker (SO_REUSEPORT), so workers share nothing.
//!
//! A session ends early when its endpoint refuses datagrams, or when a new snapshot no
//! longer has that endpoint in use; the next datagram begins another. When the drain
//! begins no session is begun, and those that are quiet for [`DRAIN_QUIET`] end.
//!
//! Limits: [`SESSIONS_MAX`] sessions of one listener and worker. Endpoints of other
//! clusters get no datagrams, since links carry streams alone. A socket bound to the
//! address `0.0.0.0` or `::` of a host with several addresses replies from the one that the
//! system's routes choose.

mod session;

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use isthmus_model::snapshot::FrontKey;
use isthmus_model::{Assignment, Endpoint, EndpointTarget, ServiceKey, Snapshot, Trail};
use isthmus_proxy::{Client, Worker};
use isthmus_runtime::LocalTasks;
use isthmus_telemetry::{Protocol, ResponseFlag};
use tokio::net::UdpSocket;

use crate::datagrams::session::Session;
use crate::streams::{Refusal, StreamChoice, refused, route_stream};

/// A UDP listener on one worker. Dropping what [`DatagramFront::run`] returns ends its
/// sessions, so that the address is free at once.
pub(crate) struct DatagramFront {
    worker: Rc<Worker>,
    key: FrontKey,
    listener: Rc<UdpSocket>,
    sessions: Sessions,
    tasks: LocalTasks,
    /// Replies are read into it, one at a time.
    scratch: Rc<RefCell<Box<[u8]>>>,
}

/// The sessions of one listener on one worker, by the client's address.
pub(crate) type Sessions = Rc<RefCell<HashMap<SocketAddr, Rc<Session>>>>;

/// Where a new session goes.
#[derive(Debug, Clone)]
pub(crate) struct Chosen {
    pub(crate) route: String,
    pub(crate) service: ServiceKey,
    pub(crate) port: u16,
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) address: SocketAddr,
}

impl DatagramFront {
    /// Serves the listener at `key` by this worker's socket.
    pub(crate) fn new(worker: Rc<Worker>, key: FrontKey, listener: UdpSocket) -> Self {
        Self {
            worker,
            key,
            listener: Rc::new(listener),
            sessions: Sessions::default(),
            tasks: LocalTasks::default(),
            scratch: Rc::new(RefCell::new(vec![0; DATAGRAM_BYTES_MAX].into_boxed_slice())),
        }
    }

    /// Takes datagrams until it is dropped.
    pub(crate) async fn run(self) {
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        loop {
            match self.listener.recv_from(&mut buffer).await {
                Ok((size, client)) => self.take(client, &buffer[..size]).await,
                Err(error) => {
                    tracing::warn!(%error, "cannot receive datagrams; trying again");
                    tokio::time::sleep(ERROR_PAUSE).await;
                }
            }
        }
    }

    async fn take(&self, client: SocketAddr, datagram: &[u8]) {
        let session = match self.current(client) {
            Some(session) => session,
            None => match self.begin(client) {
                Ok(session) => session,
                Err(Dropped) => return,
            },
        };
        if session.send(datagram).await.is_err() {
            // The endpoint has refused an earlier datagram (ICMP).
            session.fail();
        }
    }

    /// The client's session, if its endpoint is still in use.
    fn current(&self, client: SocketAddr) -> Option<Rc<Session>> {
        let session = Rc::clone(self.sessions.borrow().get(&client)?);
        let snapshot = self.worker.pin();
        let current = session
            .is_current(snapshot.generation, |chosen| is_in_use(&snapshot, self.key, chosen));
        if current {
            return Some(session);
        }
        self.sessions.borrow_mut().remove(&client);
        session.end();
        None
    }

    fn begin(&self, address: SocketAddr) -> Result<Rc<Session>, Dropped> {
        let client = Client { address, tls: false, identity: Rc::from(""), server_name: None };
        let refuse = |why: Refusal<'_>| {
            refused(&self.worker, &client, Protocol::Udp, why);
            Dropped
        };
        if self.worker.stop().is_draining() {
            return Err(refuse(DRAINING));
        }
        if self.sessions.borrow().len() >= SESSIONS_MAX {
            return Err(refuse(TOO_MANY));
        }
        let chosen = self.choose(&refuse)?;
        let generation = self.worker.pin().generation;
        let made = Session::open(&self.worker, address, chosen, generation);
        let session = Rc::new(made.map_err(|error| {
            let detail = &error.to_string();
            refuse(Refusal { route: "", flag: ResponseFlag::UpstreamConnectFailure, detail })
        })?);
        self.sessions.borrow_mut().insert(address, Rc::clone(&session));
        let replies = Rc::clone(&session).run(
            Rc::clone(&self.listener),
            Rc::clone(&self.sessions),
            Rc::clone(&self.scratch),
        );
        self.tasks.spawn(replies);
        Ok(session)
    }

    fn choose(&self, refuse: &impl Fn(Refusal<'_>) -> Dropped) -> Result<Chosen, Dropped> {
        let snapshot = self.worker.pin();
        let entry = snapshot.front(&self.key).and_then(|front| front.listener(""));
        let entry = entry.ok_or_else(|| refuse(NO_LISTENER))?;
        let random = self.worker.random();
        match route_stream(&snapshot, entry, "", random, &mut Trail::off()) {
            StreamChoice::Forward { route, assignment } => {
                let random = self.worker.random();
                let (endpoint, address) = pick(assignment, random)
                    .ok_or_else(|| refuse(Refusal { route: &route.name, ..NO_ENDPOINT }))?;
                Ok(Chosen {
                    route: route.name.clone(),
                    service: assignment.service.clone(),
                    port: assignment.port,
                    endpoint: Arc::clone(endpoint),
                    address,
                })
            }
            StreamChoice::Refuse { route, flag, detail } => {
                let route = route.map_or("", |route| route.name.as_str());
                Err(refuse(Refusal { route, flag, detail }))
            }
        }
    }
}

/// A datagram that was dropped, and recorded.
struct Dropped;

/// An endpoint of the nearest tier that has local ones, in proportion to their weights.
fn pick(assignment: &Assignment, random: u32) -> Option<(&Arc<Endpoint>, SocketAddr)> {
    assignment.tiers.iter().find_map(|tier| {
        let local = || tier.members.iter().filter_map(|index| local(assignment, *index));
        let total: u64 = local().map(|(endpoint, _)| u64::from(endpoint.weight.max(1))).sum();
        let mut point = (u64::from(random) * total) >> 32;
        local().find(|(endpoint, _)| {
            let weight = u64::from(endpoint.weight.max(1));
            let chosen = point < weight;
            point = point.saturating_sub(weight);
            chosen
        })
    })
}

fn local(assignment: &Assignment, index: u32) -> Option<(&Arc<Endpoint>, SocketAddr)> {
    let endpoint = assignment.endpoints.get(usize::try_from(index).ok()?)?;
    match &endpoint.target {
        EndpointTarget::Local { address, .. } => Some((endpoint, *address)),
        EndpointTarget::Remote { .. } => None,
    }
}

/// Whether a session may stay where it is: its route is still the listener's, and the
/// endpoint still takes datagrams there.
fn is_in_use(snapshot: &Snapshot, key: FrontKey, chosen: &Chosen) -> bool {
    let route = snapshot
        .front(&key)
        .and_then(|front| front.listener(""))
        .and_then(|entry| entry.stream_route(""));
    let Some(route) = route else { return false };
    let is_backend = route.backends.iter().any(|backend| {
        backend.weight > 0
            && matches!(&backend.target, isthmus_model::BackendTarget::Service { service, port }
                if *service == chosen.service && *port == chosen.port)
    });
    let assignment =
        snapshot.service(&chosen.service).and_then(|entry| entry.datagram_assignment(chosen.port));
    let Some(assignment) = assignment.filter(|_| is_backend) else { return false };
    let mut members = assignment.tiers.iter().flat_map(|tier| &tier.members);
    members.any(|index| {
        local(assignment, *index).is_some_and(|(endpoint, address)| {
            endpoint.id == chosen.endpoint.id && address == chosen.address
        })
    })
}

/// A socket of this process for one endpoint.
pub(crate) fn connected(to: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = match to {
        SocketAddr::V4(_) => (std::net::Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = std::net::UdpSocket::bind(any)?;
    socket.set_nonblocking(true)?;
    socket.connect(to)?;
    UdpSocket::from_std(socket)
}

const NO_LISTENER: Refusal<'static> =
    Refusal { detail: "no listener is left at this address", ..Refusal::NO_LISTENER };
const NO_ENDPOINT: Refusal<'static> = Refusal {
    route: "",
    flag: ResponseFlag::NoHealthyUpstream,
    detail: "no endpoint of this cluster is usable",
};
const TOO_MANY: Refusal<'static> = Refusal {
    route: "",
    flag: ResponseFlag::Overload,
    detail: "the limit of UDP sessions of the listener is reached",
};
const DRAINING: Refusal<'static> =
    Refusal { route: "", flag: ResponseFlag::Draining, detail: "this process is ending" };
/// Sessions of one listener and worker; each has a socket. Datagrams of further clients
/// are dropped and recorded.
pub(crate) const SESSIONS_MAX: usize = 4096;
/// Silence in both directions that ends a session.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// The same while the process drains.
pub(crate) const DRAIN_QUIET: Duration = Duration::from_secs(1);
/// The largest datagram that UDP has.
const DATAGRAM_BYTES_MAX: usize = 65_535;
const ERROR_PAUSE: Duration = Duration::from_millis(50);
