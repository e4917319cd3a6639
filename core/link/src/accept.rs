//! Accept loops: one for each listening socket, with a bound on handshakes in flight.

use std::sync::Arc;

use isthmus_runtime::{Accepting, clock};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::control::Established;
use crate::error::HandshakeError;
use crate::handshake;
use crate::link::Command;
use crate::peer::Peer;
use crate::proto::selector::Transport;
use crate::proto::session::CloseCode;
use crate::shared::{Phase, Shared};
use crate::status::count;
use crate::task::LinkTask;

/// Takes QUIC connections until the set drains.
///
/// The endpoint goes on serving the connections it has; the set closes it at the end.
pub(crate) async fn run_quic(shared: Arc<Shared>, endpoint: quinn::Endpoint) {
    let mut phase = shared.phase.subscribe();
    let mut handshakes = JoinSet::new();
    loop {
        tokio::select! {
            // The end first; finished handshakes before new ones keep the bound honest.
            biased;
            () = draining(&mut phase) => break,
            Some(_) = handshakes.join_next() => {}
            incoming = endpoint.accept() => match incoming {
                Some(incoming) => admit(&shared, &mut handshakes, incoming),
                None => break,
            },
        }
    }
    endpoint.set_server_config(None);
    handshakes.shutdown().await;
}

fn admit(shared: &Arc<Shared>, handshakes: &mut JoinSet<()>, incoming: quinn::Incoming) {
    let max = shared.limits.handshakes;
    if handshakes.len() >= max {
        count(&shared.counters.handshakes_dropped);
        incoming.refuse();
        return;
    }
    // Spec: RFC 9000 section 8.1.2: under load a client must show that it can receive at
    // its address, so that forged addresses cost no handshake.
    if handshakes.len() >= max / 2 && incoming.may_retry() {
        // An error means that the token was just validated, which `may_retry` excludes.
        let _ = incoming.retry();
        return;
    }
    let shared = Arc::clone(shared);
    handshakes.spawn(async move {
        let result = handshake::accept_quic(&shared, incoming).await;
        conclude(&shared, Transport::Quic, result);
    });
}

/// Takes TCP connections until the set drains.
pub(crate) async fn run_tcp(shared: Arc<Shared>, listener: tokio::net::TcpListener) {
    let mut phase = shared.phase.subscribe();
    let mut handshakes = JoinSet::new();
    let mut accepting = Accepting::new(listener, "link");
    loop {
        tokio::select! {
            // As in `run_quic`.
            biased;
            () = draining(&mut phase) => break,
            Some(_) = handshakes.join_next() => {}
            (socket, address) = accepting.next() => {
                if handshakes.len() >= shared.limits.handshakes {
                    count(&shared.counters.handshakes_dropped);
                    continue;
                }
                let shared = Arc::clone(&shared);
                handshakes.spawn(async move {
                    let result = handshake::accept_tcp(&shared, socket, address).await;
                    conclude(&shared, Transport::Tcp, result);
                });
            }
        }
    }
    drop(accepting);
    handshakes.shutdown().await;
}

/// Starts the task of an accepted connection, or counts why there is none.
fn conclude(
    shared: &Arc<Shared>,
    transport: Transport,
    result: Result<(Established, Arc<Peer>), HandshakeError>,
) {
    let transport = transport.label();
    match result {
        Ok((established, peer)) => {
            let (task, link) = LinkTask::new(shared, &peer, established, None);
            if !peer.add(clock::now(), &link, shared.limits.connections_per_peer) {
                link.command(Command::Close(CloseCode::Limit));
            }
            shared.tasks.spawn(task.run());
            shared.notify();
        }
        Err(error) => {
            count(&shared.counters.handshakes_failed);
            if error.is_authentication() {
                count(&shared.counters.auth_failures);
                tracing::warn!(transport, %error, "link connection refused");
            } else {
                tracing::debug!(transport, %error, "link handshake failed");
            }
        }
    }
}

async fn draining(phase: &mut watch::Receiver<Phase>) {
    // An error means that the set is gone, which ends the loop just the same.
    let _ = phase.wait_for(|phase| *phase != Phase::Running).await;
}
