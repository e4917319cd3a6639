//! Bounded TLS connections: each holds a permit from accept to its end.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

/// One connection after its handshake, and its place among those allowed.
#[derive(Debug)]
pub(super) struct Incoming {
    stream: TlsStream<TcpStream>,
    peer: IpAddr,
    _permit: OwnedSemaphorePermit,
}

/// Where a request came from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) IpAddr);

/// Accepts until the receiver is gone. An error of one accept never ends the loop, and a
/// slow handshake keeps nobody else waiting.
pub(super) async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    connections_max: usize,
    sender: mpsc::Sender<io::Result<Incoming>>,
) {
    let places = Arc::new(Semaphore::new(connections_max));
    let mut handshakes = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            // The end goes first; each arm is cancel-safe.
            biased;
            () = sender.closed() => return,
            Some(_) = handshakes.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, from)) => {
                let Ok(permit) = Arc::clone(&places).try_acquire_owned() else {
                    tracing::debug!("too many connections to the authority; one was closed");
                    continue;
                };
                let (acceptor, sender) = (acceptor.clone(), sender.clone());
                handshakes.spawn(async move {
                    if let Some(stream) = handshake(stream, &acceptor, from).await {
                        let incoming = Incoming { stream, peer: from.ip(), _permit: permit };
                        // The server may be ending, and the connection with it.
                        let _ = sender.send(Ok(incoming)).await;
                    }
                });
            }
            Err(error) => {
                // Out of file descriptors, mostly: going on at once would spin.
                tracing::warn!(%error, "a connection to the authority could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
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

impl Connected for Incoming {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        Peer(self.peer.to_canonical())
    }
}

impl AsyncRead for Incoming {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Incoming {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
