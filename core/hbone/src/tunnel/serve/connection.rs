//! The loop that serves one connection.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use h2::server::{Builder, Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::{Request, Response, StatusCode};
use isthmus_model::SpiffeId;
use isthmus_runtime::{Stop, clock};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use crate::mesh::{MeshConnection, MeshProtocol};
use crate::tunnel::keepalive::peer_silent;
use crate::tunnel::reset_budget::{ResetBudget, Spend};
use crate::tunnel::serve::admit::{Refusal, admit};
use crate::tunnel::serve::{ConnectRequest, ServeEnd, ServeLimits, ServeOutcome, Verdict};
use crate::tunnel::stream::TunnelStream;
use crate::wire::{
    FRAME_BYTES_MAX, LOCAL_RESETS_MAX, PENDING_RESETS_MAX, REMEMBERED_RESET_AGE,
    REMEMBERED_RESETS_MAX, SEND_BUFFER_BYTES_MAX,
};

/// See [`crate::serve_connect`].
pub(crate) async fn run<IO, H, D, T, R>(
    connection: MeshConnection<IO>,
    limits: &ServeLimits,
    handler: H,
    stop: Stop,
) -> ServeOutcome
where
    IO: AsyncRead + AsyncWrite + Unpin,
    H: Fn(ConnectRequest) -> D,
    D: Future<Output = Verdict<T>>,
    T: FnOnce(TunnelStream) -> R,
    R: Future<Output = ()>,
{
    let MeshConnection { stream, peer, protocol } = connection;
    let mut tally = Tally::new();
    if protocol != MeshProtocol::Connect {
        return tally.outcome(ServeEnd::WrongProtocol);
    }
    let _guard = stop.guard();
    let preface = builder(limits).handshake(stream);
    let mut http = match tokio::time::timeout(limits.preface_timeout, preface).await {
        Ok(Ok(http)) => http,
        Ok(Err(error)) => return tally.outcome(failed(error)),
        Err(_) => return tally.outcome(ServeEnd::PrefaceTimeout),
    };
    let mut streams = FuturesUnordered::new();
    let mut draining = pin!(drain_begins(stop.clone()));
    let mut forced = pin!(drain_forced(stop.clone()));
    let mut silent = pin!(peer_silent(http.ping_pong(), limits.keepalive));
    let mut idle = pin!(tokio::time::sleep(limits.idle_timeout));
    let mut is_draining = false;
    let end = loop {
        // Ends come before work, so that a busy connection can still be ended.
        tokio::select! {
            biased;
            () = &mut forced => break ServeEnd::Forced,
            () = &mut draining, if !is_draining => {
                is_draining = true;
                http.graceful_shutdown();
            }
            () = &mut silent => break ServeEnd::Silent,
            work = next_work(&mut http, &mut streams) => match work {
                Work::Ended(ended) => {
                    if tally.count(ended) == Spend::Exhausted {
                        break ServeEnd::ResetFlood;
                    }
                    if streams.is_empty() {
                        idle.as_mut().reset(Instant::now() + limits.idle_timeout);
                    }
                }
                Work::Incoming(_, mut respond) if streams.len() >= limits.streams_max as usize => {
                    respond.send_reset(Reason::REFUSED_STREAM);
                    tally.refused += 1;
                }
                Work::Incoming(request, respond) => {
                    let (decision, body) = decide(*request, &peer, &handler);
                    streams.push(serve_stream(decision, body, respond, limits.verdict_timeout));
                }
                Work::Failed(error) => break failed(error),
                Work::HungUp if is_draining => break ServeEnd::Drained,
                Work::HungUp => break ServeEnd::Closed,
            },
            () = &mut idle, if streams.is_empty() => break ServeEnd::Idle,
        }
    };
    if let Some(reason) = abort_reason(&end) {
        streams.clear();
        abort(http, reason).await;
    } else {
        // The tunnels learn that the connection is gone, and pass on what they have.
        drop(http);
        let rest = async { while streams.next().await.map(|e| tally.count(e)).is_some() {} };
        tokio::select! {
            () = rest => {}
            () = &mut forced => {}
            () = tokio::time::sleep(limits.linger_timeout) => {}
        }
    }
    tally.outcome(end)
}

/// What happens on a connection.
enum Work {
    Ended(StreamEnd),
    Failed(h2::Error),
    HungUp,
    Incoming(Box<Request<RecvStream>>, SendResponse<Bytes>),
}

/// How one stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StreamEnd {
    Refused,
    ResetEarly,
    Served,
}

/// Counts what a connection did.
#[derive(Debug)]
struct Tally {
    served: u64,
    refused: u64,
    reset_early: u64,
    resets: ResetBudget,
}

impl Tally {
    fn new() -> Self {
        let resets = ResetBudget::new(clock::now());
        Self { served: 0, refused: 0, reset_early: 0, resets }
    }

    fn count(&mut self, end: StreamEnd) -> Spend {
        match end {
            StreamEnd::Refused => self.refused += 1,
            StreamEnd::ResetEarly => {
                self.reset_early += 1;
                return self.resets.spend(clock::now());
            }
            StreamEnd::Served => self.served += 1,
        }
        Spend::Allowed
    }

    fn outcome(self, end: ServeEnd) -> ServeOutcome {
        let Self { served, refused, reset_early, resets: _ } = self;
        ServeOutcome { served, refused, reset_early, end }
    }
}

/// Moves the connection and its streams until something happens.
///
/// They take turns at being polled first: both spend the same cooperative budget, and
/// neither busy streams nor a busy socket may use it up every time.
async fn next_work<IO, F>(
    http: &mut Connection<IO, Bytes>,
    streams: &mut FuturesUnordered<F>,
) -> Work
where
    IO: AsyncRead + AsyncWrite + Unpin,
    F: Future<Output = StreamEnd>,
{
    let none_open = streams.is_empty();
    tokio::select! {
        Some(ended) = streams.next() => Work::Ended(ended),
        incoming = poll_fn(|cx| http.poll_accept(cx)) => match incoming {
            Some(Ok((request, respond))) => Work::Incoming(Box::new(request), respond),
            // A peer that hangs up without open tunnels may do so abruptly.
            Some(Err(error)) if error.is_io() && none_open => Work::HungUp,
            Some(Err(error)) => Work::Failed(error),
            None => Work::HungUp,
        },
    }
}

/// Calls the handler for a request that it may see.
fn decide<H, D>(
    request: Request<RecvStream>,
    peer: &SpiffeId,
    handler: &H,
) -> (Result<D, Refusal>, RecvStream)
where
    H: Fn(ConnectRequest) -> D,
{
    let admitted = admit(&request);
    let (head, body) = request.into_parts();
    let decision = admitted.map(|authority| {
        handler(ConnectRequest { authority, headers: head.headers, peer: peer.clone() })
    });
    (decision, body)
}

async fn serve_stream<D, T, R>(
    decision: Result<D, Refusal>,
    body: RecvStream,
    mut respond: SendResponse<Bytes>,
    verdict_timeout: Duration,
) -> StreamEnd
where
    D: Future<Output = Verdict<T>>,
    T: FnOnce(TunnelStream) -> R,
    R: Future<Output = ()>,
{
    let verdict = match decision {
        Err(Refusal { status, reason }) => Verdict::Refuse { status, reason },
        Ok(decision) => tokio::select! {
            // A stream that is already reset must not start the handler's work.
            biased;
            _ = poll_fn(|cx| respond.poll_reset(cx)) => return StreamEnd::ResetEarly,
            verdict = tokio::time::timeout(verdict_timeout, decision) => verdict.unwrap_or_else(
                |_| Verdict::refuse(StatusCode::GATEWAY_TIMEOUT, "no verdict in time"),
            ),
        },
    };
    match verdict {
        Verdict::Accept { headers, tunnel } => {
            let mut response = Response::new(());
            *response.headers_mut() = headers;
            match respond.send_response(response, false) {
                Ok(send) => {
                    tunnel(TunnelStream::accepted(send, body)).await;
                    StreamEnd::Served
                }
                Err(_) => StreamEnd::ResetEarly,
            }
        }
        Verdict::Refuse { status, reason } => {
            let response = Refusal { status, reason }.response();
            match respond.send_response(response, true) {
                Ok(_) => StreamEnd::Refused,
                Err(_) => StreamEnd::ResetEarly,
            }
        }
    }
}

async fn drain_begins(mut stop: Stop) {
    stop.draining().await;
}

async fn drain_forced(mut stop: Stop) {
    stop.forced().await;
}

/// The code to cut a connection with; `None` for one that is cut already.
fn abort_reason(end: &ServeEnd) -> Option<Reason> {
    match end {
        ServeEnd::Forced | ServeEnd::Idle => Some(Reason::NO_ERROR),
        ServeEnd::ResetFlood => Some(Reason::ENHANCE_YOUR_CALM),
        ServeEnd::Closed
        | ServeEnd::Drained
        | ServeEnd::Failed { .. }
        | ServeEnd::PrefaceTimeout
        | ServeEnd::Silent
        | ServeEnd::WrongProtocol => None,
    }
}

/// Tells the peer why, as far as it still reads.
async fn abort<IO>(mut http: Connection<IO, Bytes>, reason: Reason)
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    http.abrupt_shutdown(reason);
    let closed = poll_fn(|cx| http.poll_closed(cx));
    // The peer may be the reason for the abort, so neither its error nor its silence counts.
    let _ = tokio::time::timeout(GOODBYE_TIMEOUT, closed).await;
}

fn failed(error: h2::Error) -> ServeEnd {
    ServeEnd::Failed { source: Arc::new(error) }
}

fn builder(limits: &ServeLimits) -> Builder {
    let mut builder = Builder::new();
    builder
        .initial_window_size(limits.stream_window_bytes)
        .initial_connection_window_size(limits.connection_window_bytes)
        .max_concurrent_streams(limits.streams_max)
        .max_frame_size(FRAME_BYTES_MAX)
        .max_header_list_size(limits.header_list_bytes_max)
        .max_send_buffer_size(SEND_BUFFER_BYTES_MAX)
        .max_concurrent_reset_streams(REMEMBERED_RESETS_MAX)
        .reset_stream_duration(REMEMBERED_RESET_AGE)
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .max_local_error_reset_streams(Some(LOCAL_RESETS_MAX));
    builder
}

/// Time for the last frame of a connection that we cut.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);
