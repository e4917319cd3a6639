//! Gives this cluster's state to peers: mutual TLS, one identity for each connection.
//!
//! Who a peer is comes from its certificate alone. Whether that identity is the controller
//! of a linked cluster is asked of the owner for each stream, so a removed link is refused
//! at once even on an open connection. A stream ends when that certificate does, with a
//! status that says so, and its connection soon after; the client has opened another one
//! by then (`client.rs`).

use std::future::ready;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::PollNext;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use isthmus_certs::peer_svid;
use isthmus_model::SpiffeId;
use isthmus_model::name::{CONTROLLER_ACCOUNT, SYSTEM_NAMESPACE};
use isthmus_runtime::{Accepting, Places, clock};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::Service;
use tonic::{Request, Response, Status, Streaming};

use super::event::{Event, FRAMES_QUEUED, SessionId};
use super::tasks::ConnectionTasks;
use super::wire::pb::federation_server::{Federation, FederationServer};
use super::wire::{self, MESSAGE_BYTES_MAX, encode_frame, pb};

/// Serves until it is aborted. An error of accept is never the end.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    events: mpsc::Sender<Event>,
) {
    let acceptor = TlsAcceptor::from(tls);
    let mut places = Places::new(CONNECTIONS_MAX, ADDRESS_CONNECTIONS_MAX);
    let mut connections = JoinSet::new();
    let mut accepting = Accepting::new(listener, "federation");
    loop {
        let (stream, from) = tokio::select! {
            // Both arms are cancel-safe; which goes first does not matter.
            accepted = accepting.next() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let place = match places.take(from.ip()) {
            Ok(place) => place,
            Err(reason) => {
                tracing::debug!(%from, %reason, "a federation connection was closed");
                continue;
            }
        };
        let (acceptor, events) = (acceptor.clone(), events.clone());
        connections.spawn(async move {
            if let Err(error) = connection(stream, acceptor, events).await {
                tracing::debug!(%error, "a federation connection ended");
            }
            drop(place);
        });
    }
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum ConnectionError {
    #[error("HTTP/2 failed: {0}")]
    Http(#[source] hyper::Error),
    #[error("the peer's certificate names no identity")]
    NoIdentity,
    #[error("no TLS handshake within {} s", HANDSHAKE_TIMEOUT.as_secs())]
    Timeout,
    #[error("the TLS handshake failed: {0}")]
    Tls(#[source] std::io::Error),
}

async fn connection(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    events: mpsc::Sender<Event>,
) -> Result<(), ConnectionError> {
    // Small messages must not wait for each other; a refusal only costs latency.
    let _ = stream.set_nodelay(true);
    let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream))
        .await
        .map_err(|_| ConnectionError::Timeout)?
        .map_err(ConnectionError::Tls)?;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let peer = peer_svid(chain).map_err(|_| ConnectionError::NoIdentity)?;
    let now = clock::now();
    // Every workload of a linked cluster could come as far as this. It is told that it is
    // refused, and keeps no place.
    let account = peer.id.namespace_and_account();
    let until = match account == Some((SYSTEM_NAMESPACE, CONTROLLER_ACCOUNT)) {
        true => clock::deadline(now, clock::wall(), peer.not_after),
        false => now.checked_add(REFUSAL),
    };
    serve_streams(stream, Sessions { peer: peer.id, until, events }).await
}

/// Serves the streams of one peer.
async fn serve_streams(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    sessions: Sessions,
) -> Result<(), ConnectionError> {
    let end = sessions.until.and_then(|until| until.checked_add(FAREWELL));
    let grpc = FederationServer::new(sessions)
        .max_decoding_message_size(REQUEST_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    // A clone of the service is cheap, and each request needs its own.
    let service = service_fn(move |request| grpc.clone().call(request));
    let serving = http2::Builder::new(ConnectionTasks::default())
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADER_BYTES_MAX)
        .keep_alive_interval(Some(KEEP_ALIVE))
        .keep_alive_timeout(KEEP_ALIVE)
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        // Which goes first does not matter: both are the end.
        outcome = serving => outcome.map_err(ConnectionError::Http),
        () = clock::sleep_until(end) => Ok(()),
    }
}

/// The service of one connection.
#[derive(Debug, Clone)]
struct Sessions {
    peer: SpiffeId,
    /// When what the peer has shown of itself ends; `None` is never.
    until: Option<Instant>,
    events: mpsc::Sender<Event>,
}

#[tonic::async_trait]
impl Federation for Sessions {
    type ReplicateStream = Pin<Box<dyn Stream<Item = Result<pb::Frame, Status>> + Send>>;

    async fn replicate(
        &self,
        request: Request<Streaming<pb::Request>>,
    ) -> Result<Response<Self::ReplicateStream>, Status> {
        let ended = || Status::unavailable("the controller is ending");
        let (frames, outgoing) = mpsc::channel(FRAMES_QUEUED);
        let (reply, answer) = oneshot::channel();
        let opened = Event::ExportOpened { peer: self.peer.clone(), frames, reply };
        self.events.send(opened).await.map_err(|_| ended())?;
        let session = answer.await.map_err(|_| ended())?.ok_or_else(|| {
            Status::permission_denied("this identity is not the controller of a linked cluster")
        })?;
        let requests = forward(request.into_inner(), session, self.events.clone());
        let events = self.events.clone();
        let frames = ReceiverStream::new(outgoing).map(move |frame| {
            // The owner looks again by itself soon; the hint only makes it sooner.
            let _ = events.try_send(Event::ExportDrained);
            Ok(encode_frame(frame))
        });
        // Requests are read as a part of the response stream, so both end together.
        let requests = futures_util::stream::once(requests).filter_map(|()| ready(None));
        Ok(Response::new(Box::pin(end_with(frames, requests, self.until))))
    }
}

/// Hands a peer's requests to the owner until there are no more.
async fn forward(
    mut requests: Streaming<pb::Request>,
    session: SessionId,
    events: mpsc::Sender<Event>,
) {
    while let Ok(Some(message)) = requests.message().await {
        let Some(request) = wire::request(message) else { continue };
        if events.send(Event::ExportRequest { session, request }).await.is_err() {
            return;
        }
    }
    // The owner may be gone, which ends everything just the same.
    let _ = events.send(Event::ExportClosed { session }).await;
}

/// Items of `frames` while `requests` runs beside it; ends with `frames`, which the owner
/// closes, and at `until` with the reason.
fn end_with<T: Send>(
    frames: impl Stream<Item = Result<T, Status>> + Send,
    requests: impl Stream<Item = Result<T, Status>> + Send,
    until: Option<Instant>,
) -> impl Stream<Item = Result<T, Status>> + Send {
    let expired = || {
        Err(Status::unauthenticated(
            "the certificate that opened this session has expired; a new one is needed",
        ))
    };
    let end = frames.map(Some).chain(futures_util::stream::once(ready(None)));
    let expiry = futures_util::stream::once(clock::sleep_until(until))
        .flat_map(move |()| futures_util::stream::iter([Some(expired()), None]));
    let live = futures_util::stream::select(end, requests.map(Some));
    // The expiry goes first: what comes after it is not for this peer any more.
    let first = |_: &mut ()| PollNext::Left;
    futures_util::stream::select_with_strategy(expiry, live, first)
        .take_while(|item| ready(item.is_some()))
        .filter_map(ready)
}

/// Connections at a time; linked clusters make one each, and two while they renew theirs.
const CONNECTIONS_MAX: usize = 2048;
/// Connections of one address at a time: those of all linked clusters come through the own
/// east-west gateway, and may all come from one of its pods. Who else finds the port has a
/// quarter of the places.
const ADDRESS_CONNECTIONS_MAX: usize = 512;
/// Streams of one connection; a peer needs one, and a second while it reconnects.
const STREAMS_MAX: u32 = 2;
/// Requests are small.
const REQUEST_BYTES_MAX: usize = 4 * 1024;
/// Bytes in the headers of a request.
const HEADER_BYTES_MAX: u32 = 16 * 1024;
/// How long a peer may take for TLS.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long somebody who is no controller may take to hear that.
const REFUSAL: Duration = Duration::from_secs(2);
/// How long the end of a stream, with its reason, may take to reach the peer.
const FAREWELL: Duration = Duration::from_secs(1);
/// How often a silent connection is probed, and how long the answer may take.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use tonic::Code;

    use super::*;

    fn hour() -> Instant {
        clock::now() + Duration::from_secs(3600)
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_at_its_time_with_the_reason_and_nothing_comes_after_it() {
        let silent = Box::pin(end_with(
            stream::pending::<Result<u32, _>>(),
            stream::pending(),
            Some(hour()),
        ));
        let all: Vec<_> = silent.collect().await;
        assert!(matches!(all.as_slice(), [Err(status)] if status.code() == Code::Unauthenticated));
        let flood = stream::repeat_with(|| Ok(7));
        let all: Vec<_> = end_with(flood, stream::pending(), Some(clock::now())).collect().await;
        assert!(matches!(all.as_slice(), [Err(_)]), "{all:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_its_owner_closes_ends_without_a_reason() {
        let frames = stream::iter([Ok(1), Ok(2)]);
        let all: Vec<_> = end_with(frames, stream::pending(), Some(hour())).collect().await;
        assert!(matches!(all.as_slice(), [Ok(1), Ok(2)]), "{all:?}");
    }
}
