//! The bytes of a client connection on their way to hyper: read into the worker's one
//! buffer, looked at by the guard, timed by the watch.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::rt::ReadBufCursor;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::guard::Guard;
use crate::watch::Watch;

/// A client connection as hyper sees it.
pub(crate) struct ClientIo<S> {
    stream: S,
    /// Bytes that were read to find out what the client speaks.
    prefix: Bytes,
    /// Present for HTTP/1.1.
    guard: Option<Guard>,
    watch: Rc<Watch>,
    scratch: Rc<RefCell<Box<[u8]>>>,
}

impl<S> ClientIo<S> {
    pub(crate) fn new(
        stream: S,
        prefix: Bytes,
        guard: Option<Guard>,
        watch: Rc<Watch>,
        scratch: Rc<RefCell<Box<[u8]>>>,
    ) -> Self {
        Self { stream, prefix, guard, watch, scratch }
    }

    /// Gives the stream back, for a protocol that is not HTTP.
    pub(crate) fn into_stream(self) -> S {
        self.stream
    }

    fn inspect(&mut self, data: &mut [u8]) {
        let phase = match &mut self.guard {
            Some(guard) => {
                guard.inspect(data);
                self.watch.refusal.set(guard.refusal());
                guard.phase()
            }
            // Frames of HTTP/2 are not requests: answers to our pings must not keep an idle
            // connection.
            None => return self.watch.heard(),
        };
        self.watch.moved(phase);
    }
}

impl<S: AsyncRead + Unpin> hyper::rt::Read for ClientIo<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.watch.is_expired() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        if this.watch.is_over() {
            return Poll::Ready(Ok(()));
        }
        if this.watch.refusal.get().is_some() {
            // hyper takes anything for a trailer, NUL bytes as well, and would wait for
            // its end; after a refusal there is nothing to wait for.
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        let room = buf.remaining();
        if !this.prefix.is_empty() {
            let first = this.prefix.split_to(room.min(this.prefix.len()));
            let mut first = first.to_vec();
            this.inspect(&mut first);
            buf.put_slice(&first);
            return Poll::Ready(Ok(()));
        }
        let scratch = Rc::clone(&this.scratch);
        let mut scratch = scratch.borrow_mut();
        let size = room.min(scratch.len());
        let mut read = ReadBuf::new(&mut scratch[..size]);
        match Pin::new(&mut this.stream).poll_read(cx, &mut read) {
            Poll::Pending => {
                this.watch.waits(cx.waker());
                Poll::Pending
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) => {
                let data = read.filled_mut();
                this.inspect(data);
                buf.put_slice(data);
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> hyper::rt::Write for ClientIo<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.watch.wrote(outcome, cx)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.watch.wrote(outcome, cx)
    }
}

/// Bytes that were read already, then the stream itself.
#[derive(Debug)]
pub struct Rewound<S> {
    prefix: Bytes,
    stream: S,
}

impl<S> Rewound<S> {
    /// A stream that gives these bytes first.
    pub fn new(prefix: Bytes, stream: S) -> Self {
        Self { prefix, stream }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewound<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.prefix.is_empty() {
            let size = buf.remaining().min(self.prefix.len());
            let first = self.prefix.split_to(size);
            buf.put_slice(&first);
            return Poll::Ready(Ok(()));
        }
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewound<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
