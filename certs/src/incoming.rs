//! A connection that holds its place among those allowed until it ends.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tonic::transport::server::Connected;

/// A stream, whom it is with, and its place.
#[derive(Debug)]
pub(crate) struct Incoming<S, P, H = OwnedSemaphorePermit> {
    stream: S,
    peer: P,
    _place: H,
}

impl<S, P, H> Incoming<S, P, H> {
    /// A connection whose requests carry `peer` among their extensions.
    pub(crate) fn new(stream: S, peer: P, place: H) -> Self {
        Self { stream, peer, _place: place }
    }
}

impl<S, P: Clone + Send + Sync + 'static, H> Connected for Incoming<S, P, H> {
    type ConnectInfo = P;

    fn connect_info(&self) -> P {
        self.peer.clone()
    }
}

impl<S: AsyncRead + Unpin, P: Unpin, H: Unpin> AsyncRead for Incoming<S, P, H> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin, P: Unpin, H: Unpin> AsyncWrite for Incoming<S, P, H> {
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
