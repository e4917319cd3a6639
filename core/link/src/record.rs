//! Records: how a stream over TCP says that it has ended.
//!
//! yamux tells a reader of a stream nothing but "no more bytes", whether the writer
//! finished, reset the stream or lost the connection. A cut transfer would look complete.
//! Each direction of a stream over TCP is therefore a sequence of records, `length u16`
//! and that many bytes, and ends with a record of length 0. An end without it is a reset.
//!
//! yamux's own half-close is not used: a stream whose writing side is closed could not
//! tell the peer that its reader is gone, and a peer that writes would wait for ever.
//! Dropping a stream resets it in yamux, after everything that was written before.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Records over a byte stream.
#[derive(Debug)]
pub(crate) struct RecordStream<S> {
    inner: S,
    read: ReadState,
    write: WriteState,
    /// Bytes of records that `inner` has not taken yet, from `sent` on.
    pending: Vec<u8>,
    sent: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReadState {
    /// Between records, with the first byte of a length if it has come.
    Length { first: Option<u8> },
    /// In a record with this many bytes left.
    Body { left: usize },
    /// After the last record.
    Finished,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WriteState {
    Open,
    /// The last record is in `pending` or sent.
    Finished,
}

impl<S> RecordStream<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self {
            inner,
            read: ReadState::Length { first: None },
            write: WriteState::Open,
            pending: Vec::new(),
            sent: 0,
        }
    }
}

impl<S: AsyncWrite + Unpin> RecordStream<S> {
    /// Hands `pending` to the inner stream.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.pending.get(self.sent..).filter(|rest| !rest.is_empty()) {
            let count = ready!(Pin::new(&mut self.inner).poll_write(cx, rest))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += count;
        }
        self.pending.clear();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for RecordStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            match this.read {
                ReadState::Finished => return Poll::Ready(Ok(())),
                ReadState::Length { first } => {
                    let mut byte = [0];
                    let mut one = ReadBuf::new(&mut byte);
                    ready!(Pin::new(&mut this.inner).poll_read(cx, &mut one))?;
                    let Some(byte) = one.filled().first().copied() else {
                        return Poll::Ready(Err(cut()));
                    };
                    this.read = match first {
                        None => ReadState::Length { first: Some(byte) },
                        Some(high) => match usize::from(u16::from_be_bytes([high, byte])) {
                            0 => ReadState::Finished,
                            left => ReadState::Body { left },
                        },
                    };
                }
                ReadState::Body { left } => {
                    if buf.remaining() == 0 {
                        return Poll::Ready(Ok(()));
                    }
                    let room = buf.remaining().min(left);
                    let mut part = ReadBuf::new(buf.initialize_unfilled_to(room));
                    ready!(Pin::new(&mut this.inner).poll_read(cx, &mut part))?;
                    let count = part.filled().len();
                    if count == 0 {
                        return Poll::Ready(Err(cut()));
                    }
                    buf.advance(count);
                    this.read = match left - count {
                        0 => ReadState::Length { first: None },
                        left => ReadState::Body { left },
                    };
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for RecordStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.write == WriteState::Finished {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        ready!(this.poll_drain(cx))?;
        let part = buf.get(..RECORD_BYTES_MAX).unwrap_or(buf);
        let length = u16::try_from(part.len()).unwrap_or(u16::MAX);
        this.pending.extend_from_slice(&length.to_be_bytes());
        this.pending.extend_from_slice(part);
        // What the inner stream does not take now goes with the next write or flush.
        match this.poll_drain(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(part.len())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.write == WriteState::Open {
            this.write = WriteState::Finished;
            this.pending.extend_from_slice(&[0, 0]);
        }
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.inner).poll_flush(cx)
    }
}

fn cut() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "stream ended without its last record")
}

/// Bytes in a record that this end writes; with its length it fits one yamux frame.
pub(crate) const RECORD_BYTES_MAX: usize = 16 * 1024 - 2;

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn bytes_and_end_pass_and_a_cut_is_an_error() {
        let (near, far) = tokio::io::duplex(100);
        let (mut near, mut far) = (RecordStream::new(near), RecordStream::new(far));
        let sent: Vec<u8> = (0..100_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let write = async {
            near.write_all(&sent).await.unwrap();
            near.shutdown().await.unwrap();
            near.shutdown().await.unwrap();
            assert!(near.write_all(b"x").await.is_err());
        };
        let mut received = Vec::new();
        let ((), count) = tokio::join!(write, far.read_to_end(&mut received));
        assert_eq!((count.unwrap(), received), (sent.len(), sent));

        far.write_all(b"half").await.unwrap();
        far.flush().await.unwrap();
        drop(far);
        let mut received = Vec::new();
        let error = near.read_to_end(&mut received).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(received, b"half");
    }

    #[tokio::test]
    async fn a_length_cut_in_two_is_an_error() {
        let mut stream = RecordStream::new(&[0, 3, b'a', b'b', b'c', 0][..]);
        let mut received = Vec::new();
        let error = stream.read_to_end(&mut received).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(received, b"abc");
    }
}
