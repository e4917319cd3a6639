//! Bounded connections of a Unix socket: each holds a permit until it ends.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tonic::transport::server::{Connected, UdsConnectInfo};

/// One connection and its place among those allowed.
#[derive(Debug)]
pub(crate) struct Incoming {
    stream: UnixStream,
    _permit: OwnedSemaphorePermit,
}

/// Accepts until the receiver is gone. An error of one accept never ends the loop.
pub(crate) async fn accept(
    listener: UnixListener,
    connections_max: usize,
    sender: mpsc::Sender<io::Result<Incoming>>,
) {
    let places = Arc::new(Semaphore::new(connections_max));
    loop {
        let permit = tokio::select! {
            // The end goes first; the place is free again when dropped.
            biased;
            () = sender.closed() => return,
            permit = Arc::clone(&places).acquire_owned() => permit,
        };
        let Ok(permit) = permit else { return };
        let accepted = tokio::select! {
            biased;
            () = sender.closed() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                if sender.send(Ok(Incoming { stream, _permit: permit })).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                // Out of file descriptors, mostly: going on at once would spin.
                tracing::warn!(%error, "a connection to the authority could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

impl Connected for Incoming {
    type ConnectInfo = UdsConnectInfo;

    fn connect_info(&self) -> UdsConnectInfo {
        self.stream.connect_info()
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
