//! One UDP socket: what we know is answered in the loop, what we forward in tasks.

use std::hash::RandomState;
use std::net::SocketAddr;
use std::sync::Arc;

use isthmus_runtime::{Stop, clock};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use crate::metrics::Count;
use crate::rate::{Rate, RateLimiter};
use crate::server::FORWARDS_IN_FLIGHT_MAX;
use crate::server::reply::Transport;
use crate::server::responder::{Pending, Responder, Step};
use crate::wire::{Inspection, inspect, truncated};

pub(super) async fn serve(
    socket: UdpSocket,
    responder: Arc<Responder>,
    rate_per_source: u32,
    mut stop: Stop,
) {
    let guard = stop.guard();
    let socket = Arc::new(socket);
    let mut limiter = RateLimiter::new(clock::now(), rate_per_source, RandomState::new());
    let mut forwards = JoinSet::new();
    let mut buffer = vec![0; QUERY_BYTES_MAX];
    loop {
        let received = tokio::select! {
            // The end first, then answers that are ready, then new work.
            biased;
            () = stop.draining() => break,
            Some(_) = forwards.join_next() => continue,
            received = socket.recv_from(&mut buffer) => received,
        };
        // An error here is the echo of an earlier answer to a client that is gone.
        let Ok((length, source)) = received else { continue };
        let packet = buffer.get(..length).unwrap_or_default();
        if source.port() == 0 {
            continue;
        }
        match limiter.check(clock::now(), source.ip()) {
            Rate::Pass => {}
            Rate::Silent => {
                responder.metrics().add(Count::DroppedRate);
                continue;
            }
            Rate::Slip => {
                slip(&socket, &responder, packet, source).await;
                continue;
            }
        }
        match responder.step(packet, source, Transport::Udp) {
            Step::Silent => {}
            Step::Send(bytes) => send(&socket, &bytes, source).await,
            Step::Forward(pending) if forwards.len() >= FORWARDS_IN_FLIGHT_MAX => {
                send(&socket, &responder.overloaded(&pending), source).await;
            }
            Step::Forward(pending) => {
                forwards.spawn(forward(
                    Arc::clone(&socket),
                    Arc::clone(&responder),
                    pending,
                    source,
                ));
            }
        }
    }
    tokio::select! {
        biased;
        () = stop.forced() => {}
        () = async { while forwards.join_next().await.is_some() {} } => {}
    }
    drop(guard);
}

async fn forward(
    socket: Arc<UdpSocket>,
    responder: Arc<Responder>,
    pending: Box<Pending>,
    source: SocketAddr,
) {
    let bytes = responder.finish(*pending).await;
    send(&socket, &bytes, source).await;
}

/// Tells a genuine client to use TCP; is not larger than what was received.
async fn slip(socket: &UdpSocket, responder: &Responder, packet: &[u8], source: SocketAddr) {
    let Inspection::Accept { question_end } = inspect(packet) else {
        responder.metrics().add(Count::DroppedRate);
        return;
    };
    if let Some(bytes) = truncated(packet, question_end) {
        responder.metrics().add(Count::TruncatedByRate);
        send(socket, &bytes, source).await;
    }
}

async fn send(socket: &UdpSocket, bytes: &[u8], source: SocketAddr) {
    if let Err(error) = socket.send_to(bytes, source).await {
        tracing::debug!(%error, "answer not sent");
    }
}

/// Bytes of a query that are read; a longer one is cut and thus malformed.
pub(super) const QUERY_BYTES_MAX: usize = 4096;
