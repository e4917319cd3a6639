//! One tunnel as a byte stream.
//!
//! Rules that a relay relies on:
//!
//! - `shutdown` sends END_STREAM and leaves reading open; END_STREAM from the peer is the
//!   end of data and leaves writing open.
//! - A stream that is reset, or whose connection dies, *fails* to be read after the data
//!   that had arrived; it never looks like a clean end.
//! - Dropping a stream before both directions have ended resets it (`CANCEL`); what was
//!   written just before may be lost. After both have ended nothing is lost, so a relay
//!   reads to the end, shuts down, and then drops.
//! - Writing waits for the peer's windows and for the local send buffer; the peer is
//!   given new window only for bytes that have been read from here.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::client::ResponseFuture;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::tunnel::client::Slot;
use crate::tunnel::error::TunnelError;
use crate::wire::{FRAME_BYTES_MAX, REFUSED_REASON_BYTES_MAX, REFUSED_REASON_HEADER};

/// The bytes of one CONNECT stream.
pub struct TunnelStream {
    send: SendStream<Bytes>,
    recv: Receiving,
    chunk: Bytes,
    write_closed: bool,
    _slot: Option<Slot>,
}

enum Receiving {
    /// The peer has not answered the CONNECT.
    Waiting(ResponseFuture),
    Open(RecvStream),
    /// All data has been read.
    Ended,
    Refused(StatusCode),
}

impl TunnelStream {
    /// The server's end, after the answer has been sent.
    pub(crate) fn accepted(send: SendStream<Bytes>, recv: RecvStream) -> Self {
        let recv = Receiving::Open(recv);
        Self { send, recv, chunk: Bytes::new(), write_closed: false, _slot: None }
    }

    /// The client's end, before the peer has answered.
    pub(crate) fn requested(send: SendStream<Bytes>, answer: ResponseFuture, slot: Slot) -> Self {
        let recv = Receiving::Waiting(answer);
        Self { send, recv, chunk: Bytes::new(), write_closed: false, _slot: Some(slot) }
    }

    /// Waits for the peer's answer to the CONNECT; at once if it is known.
    ///
    /// # Errors
    ///
    /// [`TunnelError::Refused`], [`TunnelError::Reset`], [`TunnelError::AtCapacity`] or
    /// [`TunnelError::ConnectionGone`].
    ///
    /// # Cancel safety
    ///
    /// May be dropped and called again.
    pub async fn answered(&mut self) -> Result<(), TunnelError> {
        std::future::poll_fn(|cx| self.poll_answer(cx)).await
    }

    /// Ends both directions at once; the peer's reads and writes fail.
    pub fn reset(&mut self) {
        self.write_closed = true;
        self.send.send_reset(Reason::CANCEL);
    }

    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TunnelError>> {
        match &mut self.recv {
            Receiving::Waiting(answer) => {
                let response = ready!(Pin::new(answer).poll(cx))
                    .map_err(|error| TunnelError::from_stream(error, 1))?;
                let (head, body) = response.into_parts();
                if head.status.is_success() {
                    self.recv = Receiving::Open(body);
                    return Poll::Ready(Ok(()));
                }
                self.recv = Receiving::Refused(head.status);
                let (status, reason) = (head.status, refused_reason(&head.headers));
                Poll::Ready(Err(TunnelError::Refused { status, reason }))
            }
            Receiving::Open(_) | Receiving::Ended => Poll::Ready(Ok(())),
            Receiving::Refused(status) => {
                Poll::Ready(Err(TunnelError::Refused { status: *status, reason: String::new() }))
            }
        }
    }

    /// Why a stream that takes no more data does not.
    fn poll_write_error(&mut self, cx: &mut Context<'_>) -> io::Error {
        match self.send.poll_reset(cx) {
            // The peer has all it wants, or we ended the stream ourselves.
            Poll::Pending | Poll::Ready(Ok(Reason::NO_ERROR)) => io::ErrorKind::BrokenPipe.into(),
            Poll::Ready(Ok(reason)) => reset_error(h2::Error::from(reason)),
            Poll::Ready(Err(error)) => io_error(error),
        }
    }
}

impl AsyncRead for TunnelStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let budget = ready!(tokio::task::coop::poll_proceed(cx));
        loop {
            ready!(this.poll_answer(cx)).map_err(refusal_error)?;
            let Receiving::Open(recv) = &mut this.recv else {
                return Poll::Ready(Ok(()));
            };
            if buffer.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            if this.chunk.has_remaining() {
                let count = this.chunk.len().min(buffer.remaining());
                buffer.put_slice(&this.chunk[..count]);
                this.chunk.advance(count);
                // Fails only for more bytes than have arrived.
                let _ = recv.flow_control().release_capacity(count);
                budget.made_progress();
                return Poll::Ready(Ok(()));
            }
            match ready!(recv.poll_data(cx)) {
                Some(Ok(chunk)) => this.chunk = chunk,
                Some(Err(error)) => return Poll::Ready(Err(io_error(error))),
                None => this.recv = Receiving::Ended,
            }
        }
    }
}

impl AsyncWrite for TunnelStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.write_closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let budget = ready!(tokio::task::coop::poll_proceed(cx));
        let wanted = data.len().min(FRAME_BYTES_MAX as usize);
        this.send.reserve_capacity(wanted);
        // `poll_capacity` reports growth only, so what is already there is looked at
        // first.
        let granted = match this.send.capacity() {
            0 => match ready!(this.send.poll_capacity(cx)) {
                Some(Ok(granted)) => granted,
                Some(Err(_)) | None => return Poll::Ready(Err(this.poll_write_error(cx))),
            },
            granted => granted,
        };
        let count = granted.min(wanted);
        let chunk = Bytes::copy_from_slice(&data[..count]);
        if this.send.send_data(chunk, false).is_err() {
            return Poll::Ready(Err(this.poll_write_error(cx)));
        }
        budget.made_progress();
        Poll::Ready(Ok(count))
    }

    /// Does nothing: the connection's driver sends queued frames by itself.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.write_closed {
            return Poll::Ready(Ok(()));
        }
        if this.send.send_data(Bytes::new(), true).is_err() {
            return Poll::Ready(Err(this.poll_write_error(cx)));
        }
        this.write_closed = true;
        Poll::Ready(Ok(()))
    }
}

impl fmt::Debug for TunnelStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TunnelStream")
            .field("id", &self.send.stream_id())
            .field("write_closed", &self.write_closed)
            .finish_non_exhaustive()
    }
}

/// The peer's words, made harmless for logs: visible ASCII, bounded.
fn refused_reason(headers: &HeaderMap) -> String {
    let value = headers.get(REFUSED_REASON_HEADER).and_then(|value| value.to_str().ok());
    value.unwrap_or_default().chars().take(REFUSED_REASON_BYTES_MAX).collect()
}

fn io_error(error: h2::Error) -> io::Error {
    if error.is_reset() {
        return reset_error(error);
    }
    io::Error::new(io::ErrorKind::ConnectionAborted, error)
}

fn reset_error(error: h2::Error) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, error)
}

fn refusal_error(error: TunnelError) -> io::Error {
    let kind = match &error {
        TunnelError::Reset { .. } => io::ErrorKind::ConnectionReset,
        TunnelError::ConnectionGone { .. } => io::ErrorKind::ConnectionAborted,
        TunnelError::AtCapacity { .. }
        | TunnelError::Authority { .. }
        | TunnelError::Connect { .. }
        | TunnelError::Refused { .. }
        | TunnelError::Request { .. }
        | TunnelError::Timeout { .. } => io::ErrorKind::ConnectionRefused,
    };
    io::Error::new(kind, error)
}
