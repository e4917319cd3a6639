//! Bounded TLS connections: each holds a permit from accept to its end.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use isthmus_runtime::Accepting;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::incoming::Incoming;

/// One connection after its handshake.
pub(super) type TlsIncoming = Incoming<TlsStream<TcpStream>, Peer>;

/// Where a request came from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) IpAddr);

/// Accepts until the receiver is gone. An error of one accept never ends the loop, and a
/// slow handshake keeps nobody else waiting.
pub(super) async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    connections_max: usize,
    sender: mpsc::Sender<io::Result<TlsIncoming>>,
) {
    let places = Arc::new(Semaphore::new(connections_max));
    let mut connections = Accepting::new(listener, "authority for pods");
    let mut handshakes = JoinSet::new();
    loop {
        let (stream, from) = tokio::select! {
            // The end goes first; each arm is cancel-safe.
            biased;
            () = sender.closed() => return,
            Some(_) = handshakes.join_next() => continue,
            accepted = connections.next() => accepted,
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            tracing::debug!("too many connections to the authority; one was closed");
            continue;
        };
        let (acceptor, sender) = (acceptor.clone(), sender.clone());
        handshakes.spawn(async move {
            if let Some(stream) = handshake(stream, &acceptor, from).await {
                let peer = Peer(from.ip().to_canonical());
                // The server may be ending, and the connection with it.
                let _ = sender.send(Ok(Incoming::new(stream, peer, place))).await;
            }
        });
    }
}

async fn handshake(
    stream: TcpStream,
    acceptor: &TlsAcceptor,
    from: SocketAddr,
) -> Option<TlsStream<TcpStream>> {
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            tracing::debug!(%from, %error, "no TLS with a caller of the authority");
            None
        }
        Err(_) => {
            tracing::debug!(%from, "a caller of the authority was too slow for TLS");
            None
        }
    }
}

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
