//! A bidirectional byte stream of either transport.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use quinn::VarInt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::compat::Compat;

use crate::record::RecordStream;

/// A stream before its header is read or written.
#[derive(Debug)]
pub(crate) enum RawStream {
    Quic(QuicStream),
    Tcp(Box<RecordStream<Compat<yamux::Stream>>>),
}

/// A QUIC stream that is reset, not finished, when it is dropped before its end.
///
/// quinn finishes a dropped stream, which would make a cut transfer look complete.
#[derive(Debug)]
pub(crate) struct QuicStream {
    send: quinn::SendStream,
    recv: quinn::RecvStream,
    write: WriteState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WriteState {
    Open,
    Finished,
}

impl RawStream {
    pub(crate) fn quic((send, recv): (quinn::SendStream, quinn::RecvStream)) -> Self {
        Self::Quic(QuicStream { send, recv, write: WriteState::Open })
    }

    pub(crate) fn tcp(stream: Compat<yamux::Stream>) -> Self {
        Self::Tcp(Box::new(RecordStream::new(stream)))
    }
}

impl Drop for QuicStream {
    fn drop(&mut self) {
        if self.write == WriteState::Open {
            // An error means that the stream is closed already.
            let _ = self.send.reset(STREAM_ABANDONED);
        }
    }
}

impl AsyncRead for RawStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Quic(stream) => AsyncRead::poll_read(Pin::new(&mut stream.recv), cx, buf),
            Self::Tcp(stream) => Pin::new(stream.as_mut()).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for RawStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Quic(stream) => AsyncWrite::poll_write(Pin::new(&mut stream.send), cx, buf),
            Self::Tcp(stream) => Pin::new(stream.as_mut()).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Quic(stream) => AsyncWrite::poll_flush(Pin::new(&mut stream.send), cx),
            Self::Tcp(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Quic(stream) => {
                if stream.write == WriteState::Finished {
                    return Poll::Ready(Ok(()));
                }
                stream.write = WriteState::Finished;
                AsyncWrite::poll_shutdown(Pin::new(&mut stream.send), cx)
            }
            Self::Tcp(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }
}

/// Code of `RESET_STREAM` when a stream is dropped before its end.
const STREAM_ABANDONED: VarInt = VarInt::from_u32(1);
