//! Bounded TLS connections: each holds a permit from accept to its end.
//!
//! One address has few of them: a pod that opens connections and says nothing must not keep
//! every other pod from its certificate.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use isthmus_runtime::Accepting;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
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
    let mut addresses = Addresses::default();
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
        let peer = Peer(from.ip().to_canonical());
        let Some(own_place) = addresses.place(peer.0) else {
            tracing::debug!(%from, "too many connections of one address; one was closed");
            continue;
        };
        let (acceptor, sender) = (acceptor.clone(), sender.clone());
        handshakes.spawn(async move {
            if let Some(stream) = handshake(stream, &acceptor, from).await {
                let incoming = Incoming::new(stream, peer, place).with_own_place(own_place);
                // The server may be ending, and the connection with it.
                let _ = sender.send(Ok(incoming)).await;
            }
        });
    }
}

/// The places of each address that has a connection.
#[derive(Debug, Default)]
struct Addresses {
    places: BTreeMap<IpAddr, Arc<Semaphore>>,
}

impl Addresses {
    /// A place for one more connection of an address, if it may have one.
    fn place(&mut self, address: IpAddr) -> Option<OwnedSemaphorePermit> {
        if self.places.len() >= ADDRESSES_SWEEP {
            // A permit keeps its semaphore, so one that is held here only has none.
            self.places.retain(|_, places| Arc::strong_count(places) > 1);
        }
        let new = || Arc::new(Semaphore::new(CONNECTIONS_OF_ADDRESS_MAX));
        let places = self.places.entry(address).or_insert_with(new);
        Arc::clone(places).try_acquire_owned().ok()
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
/// Addresses at which those without a connection are forgotten.
const ADDRESSES_SWEEP: usize = 4096;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn address(n: u32) -> IpAddr {
        Ipv4Addr::from_bits(0x0a00_0000 + n).into()
    }

    #[test]
    fn one_address_cannot_take_the_places_of_others() {
        let mut addresses = Addresses::default();
        let mut own: Vec<_> =
            (0..CONNECTIONS_OF_ADDRESS_MAX).map(|_| addresses.place(address(1)).unwrap()).collect();
        assert!(addresses.place(address(1)).is_none());
        assert!(addresses.place(address(2)).is_some());
        own.pop();
        assert!(addresses.place(address(1)).is_some(), "an ended connection gives its place back");
    }

    #[test]
    fn addresses_without_a_connection_are_forgotten() {
        let mut addresses = Addresses::default();
        let held = addresses.place(address(0));
        for n in 1..=u32::try_from(ADDRESSES_SWEEP).unwrap() {
            drop(addresses.place(address(n)));
        }
        assert!(held.is_some() && addresses.places.len() < 3, "{}", addresses.places.len());
        assert!(addresses.places.contains_key(&address(0)));
    }
}
