//! Bounded TLS connections: each holds a permit from accept to its end.
//!
//! One address has few of them: a pod that opens connections and says nothing must not keep
//! every other pod from its certificate.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use isthmus_runtime::{Accepting, Place, Places};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::incoming::Incoming;

/// One connection after its handshake.
pub(super) type TlsIncoming = Incoming<TlsStream<TcpStream>, Peer, Place>;

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
    let mut places = Places::new(connections_max, CONNECTIONS_OF_ADDRESS_MAX);
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
        let peer = Peer(from.ip().to_canonical());
        let place = match places.take(peer.0) {
            Ok(place) => place,
            Err(reason) => {
                tracing::debug!(%from, %reason, "a connection to the authority was closed");
                continue;
            }
        };
        let (acceptor, sender) = (acceptor.clone(), sender.clone());
        handshakes.spawn(async move {
            if let Some(stream) = handshake(stream, &acceptor, from).await {
                let incoming = Incoming::new(stream, peer, place);
                // The server may be ending, and the connection with it.
                let _ = sender.send(Ok(incoming)).await;
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

/// Connections of one address at a time: one for each pod of a node that hides its pods
/// behind its own address, and far below what all may have.
const CONNECTIONS_OF_ADDRESS_MAX: usize = 128;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
