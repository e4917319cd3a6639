//! Bounded connections of a Unix socket: each holds a permit until it ends.

use std::io;
use std::sync::Arc;

use isthmus_runtime::Accepting;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tonic::transport::server::{Connected, UdsConnectInfo};

use crate::incoming::Incoming;

/// One connection, with what the kernel says of its caller.
pub(super) type UnixIncoming = Incoming<UnixStream, UdsConnectInfo>;

/// Accepts until the receiver is gone. An error of one accept never ends the loop.
pub(super) async fn accept(
    listener: UnixListener,
    connections_max: usize,
    sender: mpsc::Sender<io::Result<UnixIncoming>>,
) {
    let places = Arc::new(Semaphore::new(connections_max));
    let mut connections = Accepting::new(listener, "authority's socket");
    loop {
        let place = tokio::select! {
            // The end goes first; the place is free again when dropped.
            biased;
            () = sender.closed() => return,
            place = Arc::clone(&places).acquire_owned() => place,
        };
        let Ok(place) = place else { return };
        let (stream, _) = tokio::select! {
            biased;
            () = sender.closed() => return,
            accepted = connections.next() => accepted,
        };
        let caller = stream.connect_info();
        if sender.send(Ok(Incoming::new(stream, caller, place))).await.is_err() {
            return;
        }
    }
}
