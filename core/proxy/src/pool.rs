//! The connections of one worker to one endpoint.
//!
//! HTTP/1.1 connections are kept in a stack, so that the most recently used (and least
//! likely closed) goes first. HTTP/2 has one connection, whose handle is cloned; while it
//! is being opened, others wait for it instead of opening their own.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use isthmus_model::{AppProtocol, EndpointTarget};
use isthmus_runtime::{LocalTasks, clock};
use isthmus_telemetry::SpanRef;
use tokio::sync::Notify;

use crate::body::RequestBody;
use crate::connect::{
    ConnectError, Connected, Connector, Destination, Purpose, UpstreamHttp, UpstreamIo,
};
use crate::executor::HyperExecutor;
use crate::upstream_tls::UpstreamTls;

/// A way to send one request.
pub(crate) enum Sender {
    Http1(http1::SendRequest<RequestBody>),
    Http2 { sender: http2::SendRequest<RequestBody>, port: Option<u16> },
}

/// The connections of one endpoint: those without TLS of ours, and apart from them those
/// of each policy, so that a changed policy is never served by an older connection.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    plain: Rc<Lane>,
    tls: RefCell<Vec<TlsLane>>,
}

#[derive(Debug)]
struct TlsLane {
    tls: UpstreamTls,
    lane: Rc<Lane>,
    used: Instant,
}

impl Connections {
    /// The connections for a policy, or without one.
    pub(crate) fn lane(&self, tls: Option<&UpstreamTls>) -> Rc<Lane> {
        let Some(tls) = tls else { return Rc::clone(&self.plain) };
        let mut lanes = self.tls.borrow_mut();
        let used = clock::now();
        if let Some(found) = lanes.iter_mut().find(|lane| lane.tls.same(tls)) {
            // The newer snapshot's objects, so that the next look is short again.
            found.tls.clone_from(tls);
            found.used = used;
            return Rc::clone(&found.lane);
        }
        if lanes.len() >= LANES_MAX {
            lanes.remove(0);
        }
        let lane = Rc::new(Lane::default());
        lanes.push(TlsLane { tls: tls.clone(), lane: Rc::clone(&lane), used });
        lane
    }

    /// Closes connections that have been idle since before `limit`.
    pub(crate) fn close_idle(&self, now: Instant, limit: Duration) {
        self.plain.close_idle(now, limit);
        self.tls.borrow_mut().retain(|lane| {
            lane.lane.close_idle(now, limit);
            now.saturating_duration_since(lane.used) < limit || Rc::strong_count(&lane.lane) > 1
        });
    }
}

/// Idle and shared connections of one endpoint and policy.
#[derive(Default)]
pub(crate) struct Lane {
    idle: RefCell<Vec<Idle>>,
    shared: RefCell<Shared>,
}

struct Idle {
    sender: http1::SendRequest<RequestBody>,
    since: Instant,
}

#[derive(Default)]
enum Shared {
    #[default]
    None,
    Opening(Rc<Pending>),
    Open {
        sender: http2::SendRequest<RequestBody>,
        port: Option<u16>,
    },
}

/// A shared connection that is being opened.
#[derive(Default)]
struct Pending {
    done: Notify,
    /// Why it could not be opened, for everyone who waits: were each to try again, they
    /// would fail one after the other.
    error: RefCell<Option<ConnectError>>,
}

/// What opening a connection needs.
pub(crate) struct Opener<'a> {
    pub(crate) connector: &'a dyn Connector,
    pub(crate) tasks: &'a LocalTasks,
    pub(crate) connect_timeout: Duration,
}

/// A connection, and whether it has served before.
pub(crate) struct CheckedOut {
    pub(crate) sender: Sender,
    /// A reused connection may have been closed by the other side in the meantime.
    pub(crate) reused: bool,
}

impl Lane {
    /// An idle connection, the shared one, or a new one.
    pub(crate) async fn check_out(
        &self,
        to: impl FnOnce() -> Destination,
        opener: &Opener<'_>,
    ) -> Result<CheckedOut, ConnectError> {
        let to = to();
        // The purpose decides, not what happens to be open: one request must not choose
        // the protocol of another.
        let (meshed, multiplexed) = (is_meshed(&to), is_multiplexed(&to));
        if (meshed || !multiplexed)
            && let Some(sender) = self.idle_sender(opener.connect_timeout).await
        {
            return Ok(CheckedOut { sender: Sender::Http1(sender), reused: true });
        }
        if multiplexed && let Some((sender, port)) = self.shared_sender().await? {
            return Ok(CheckedOut { sender: Sender::Http2 { sender, port }, reused: true });
        }
        self.open(to, opener).await
    }

    /// Keeps a connection whose answer has been read to its end.
    pub(crate) fn check_in(
        &self,
        sender: http1::SendRequest<RequestBody>,
        now: Instant,
        idle_max: usize,
    ) {
        let mut idle = self.idle.borrow_mut();
        if !sender.is_closed() && idle.len() < idle_max {
            idle.push(Idle { sender, since: now });
        }
    }

    fn close_idle(&self, now: Instant, limit: Duration) {
        self.idle.borrow_mut().retain(|idle| {
            !idle.sender.is_closed() && now.saturating_duration_since(idle.since) < limit
        });
    }

    async fn idle_sender(&self, limit: Duration) -> Option<http1::SendRequest<RequestBody>> {
        loop {
            // The borrow ends before the wait: another request may come in meanwhile.
            let mut sender = self.idle.borrow_mut().pop()?.sender;
            if sender.is_ready() {
                return Some(sender);
            }
            // Its answer has been read; it is ready as soon as its task has run.
            if let Ok(Ok(())) = tokio::time::timeout(limit, sender.ready()).await {
                return Some(sender);
            }
        }
    }

    async fn shared_sender(&self) -> Result<Option<SharedSender>, ConnectError> {
        loop {
            let opening = match &*self.shared.borrow() {
                Shared::None => return Ok(None),
                Shared::Open { sender, .. } if sender.is_closed() => return Ok(None),
                Shared::Open { sender, port } => return Ok(Some((sender.clone(), *port))),
                Shared::Opening(pending) => Rc::clone(pending),
            };
            opening.done.notified().await;
            if let Some(error) = &*opening.error.borrow() {
                return Err(error.clone());
            }
        }
    }

    async fn open(&self, to: Destination, opener: &Opener<'_>) -> Result<CheckedOut, ConnectError> {
        let opening = is_multiplexed(&to).then(|| Opening::begin(&self.shared));
        let outcome = connect(to, opener).await;
        match (opening, &outcome) {
            (Some(opening), Ok(Sender::Http2 { sender, port })) => {
                opening.finish(Shared::Open { sender: sender.clone(), port: *port });
            }
            (Some(opening), Err(error)) => opening.fail(error.clone()),
            (Some(_), Ok(Sender::Http1(_))) | (None, _) => {}
        }
        Ok(CheckedOut { sender: outcome?, reused: false })
    }
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane").field("idle", &self.idle.borrow().len()).finish()
    }
}

fn is_meshed(to: &Destination) -> bool {
    has_proxy(&to.endpoint)
}

/// Whether a sidecar or gateway answers for the endpoint.
pub(crate) fn has_proxy(endpoint: &isthmus_model::Endpoint) -> bool {
    match &endpoint.target {
        EndpointTarget::Local { mesh, .. } => mesh.is_some() && endpoint.identity.is_some(),
        EndpointTarget::Remote { .. } => true,
    }
}

/// Whether the endpoint will be spoken to in HTTP/2.
fn is_multiplexed(to: &Destination) -> bool {
    is_meshed(to) || to.purpose == Purpose::Http { app: AppProtocol::Http2 }
}

type SharedSender = (http2::SendRequest<RequestBody>, Option<u16>);

async fn connect(to: Destination, opener: &Opener<'_>) -> Result<Sender, ConnectError> {
    let name = to.endpoint.id.to_string();
    let limit = opener.connect_timeout;
    let connecting = tokio::time::timeout(limit, opener.connector.connect(to)).await;
    let timed_out = |_| ConnectError::Timeout { to: name.clone(), limit_ms: limit.as_millis() };
    handshake(connecting.map_err(timed_out)??, opener.tasks, name).await
}

/// Marks the shared connection as being opened; wakes the waiters when it ends, also
/// when the request that opens it is given up.
struct Opening<'a> {
    slot: &'a RefCell<Shared>,
    pending: Rc<Pending>,
    finished: bool,
}

impl<'a> Opening<'a> {
    fn begin(slot: &'a RefCell<Shared>) -> Self {
        let pending = Rc::new(Pending::default());
        slot.replace(Shared::Opening(Rc::clone(&pending)));
        Self { slot, pending, finished: false }
    }

    fn fail(self, error: ConnectError) {
        self.pending.error.replace(Some(error));
        self.finish(Shared::None);
    }

    fn finish(mut self, state: Shared) {
        self.finished = true;
        self.slot.replace(state);
        self.pending.done.notify_waiters();
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        if !self.finished {
            self.slot.replace(Shared::None);
            self.pending.done.notify_waiters();
        }
    }
}

async fn handshake(
    connected: Connected,
    tasks: &LocalTasks,
    name: String,
) -> Result<Sender, ConnectError> {
    let failed = |error: hyper::Error| ConnectError::Failed { to: name, reason: error.to_string() };
    let port = match connected.http {
        UpstreamHttp::Http1 => {
            let sender = match connected.io {
                UpstreamIo::Tcp(io) => http1_handshake(io, tasks).await,
                UpstreamIo::Boxed(io) => http1_handshake(io, tasks).await,
            };
            return sender.map(Sender::Http1).map_err(failed);
        }
        UpstreamHttp::Http2 => None,
        UpstreamHttp::Mesh { port } => Some(port),
    };
    let sender = match connected.io {
        UpstreamIo::Tcp(io) => http2_handshake(io, tasks).await,
        UpstreamIo::Boxed(io) => http2_handshake(io, tasks).await,
    };
    sender.map(|sender| Sender::Http2 { sender, port }).map_err(failed)
}

pub(crate) async fn http1_handshake<T>(
    io: T,
    tasks: &LocalTasks,
) -> hyper::Result<http1::SendRequest<RequestBody>>
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) =
        http1::Builder::new().max_headers(RESPONSE_HEADERS_MAX).handshake(TokioIo::new(io)).await?;
    tasks.spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "upstream connection ended");
        }
    });
    Ok(sender)
}

async fn http2_handshake<T>(
    io: T,
    tasks: &LocalTasks,
) -> hyper::Result<http2::SendRequest<RequestBody>>
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + 'static,
{
    let (sender, connection) = http2::Builder::new(HyperExecutor::new(tasks.clone()))
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .handshake(TokioIo::new(io))
        .await?;
    tasks.spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "upstream connection ended");
        }
    });
    Ok(sender)
}

/// Shares an endpoint without touching a counter of another worker more than once for
/// each new connection.
pub(crate) fn destination(
    assignment: &isthmus_model::Assignment,
    endpoint: &Arc<isthmus_model::Endpoint>,
    purpose: Purpose,
    (span, tls): (Option<SpanRef>, Option<&UpstreamTls>),
) -> Destination {
    Destination {
        service: assignment.service.clone(),
        port: assignment.port,
        endpoint: Arc::clone(endpoint),
        purpose,
        tls: tls.cloned(),
        span,
    }
}

/// Policies and client certificates in use at a time for one endpoint.
const LANES_MAX: usize = 8;
/// Header lines of a response.
const RESPONSE_HEADERS_MAX: usize = 256;
/// What an upstream may send on one stream before we read.
const STREAM_WINDOW_BYTES: u32 = 512 * 1024;
/// What an upstream may send on one connection before we read: as much as all streams
/// together, so that clients that do not read hold up nobody else's answer.
const CONNECTION_WINDOW_BYTES: u32 = (1 << 31) - 1;
/// How often a quiet upstream connection is asked whether it lives.
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// How long it may take to answer; then its requests fail and are retried where safe.
const PING_TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use isthmus_model::endpoint::Health;
    use isthmus_model::{ClusterId, Endpoint, EndpointId, Locality, ServiceKey};

    use super::*;
    use crate::connect::LocalFuture;

    /// Refuses every connection, as soon as it is told to.
    struct Refuses {
        asked: Cell<u32>,
        go: Rc<Notify>,
    }

    impl Connector for Refuses {
        fn connect(&self, _to: Destination) -> LocalFuture<Result<Connected, ConnectError>> {
            self.asked.set(self.asked.get() + 1);
            let go = Rc::clone(&self.go);
            Box::pin(async move {
                go.notified().await;
                Err(ConnectError::NoLink { cluster: "b".into(), reason: "down".into() })
            })
        }
    }

    fn remote() -> Destination {
        let cluster = ClusterId::new("b").unwrap();
        Destination {
            service: ServiceKey::from_host("cart.shop.svc.clusterset.local").unwrap(),
            port: 80,
            endpoint: Arc::new(Endpoint {
                id: EndpointId::new("e1").unwrap(),
                target: EndpointTarget::Remote { cluster, port: 8080 },
                locality: Locality::default(),
                weight: 1,
                health: Health::Ready,
                identity: None,
                hostname: None,
            }),
            purpose: Purpose::Http { app: AppProtocol::Http },
            tls: None,
            span: None,
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn requests_that_wait_for_one_connection_fail_together() {
        let go = Rc::new(Notify::new());
        let connector = Refuses { asked: Cell::new(0), go: Rc::clone(&go) };
        let tasks = LocalTasks::default();
        let opener = Opener {
            connector: &connector,
            tasks: &tasks,
            connect_timeout: Duration::from_secs(60),
        };
        let connections = Lane::default();
        let one = || connections.check_out(remote, &opener);
        let (a, b, c, ()) = tokio::join!(one(), one(), one(), async { go.notify_one() });
        for outcome in [a, b, c] {
            assert!(matches!(outcome, Err(ConnectError::NoLink { .. })));
        }
        assert_eq!(connector.asked.get(), 1, "nobody tries again what just failed for all");
    }
}
