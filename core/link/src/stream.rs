//! Application streams: the one that this end opened and the one that a peer opened.

use std::io;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use isthmus_model::{ClusterId, SpiffeId};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::link::StreamGuard;
use crate::proto::header::{
    Decoded, REPLY_HEAD_BYTES, RefuseCode, StreamHeader, StreamRefused, StreamReply,
};
use crate::proto::selector::Transport;
use crate::raw::RawStream;
use crate::status::count;

/// A bidirectional stream to or from a peer's gateway.
///
/// `poll_shutdown` ends the writing side alone. Dropping the stream before its writing
/// side was shut down resets it, so that the peer never takes a cut transfer for a whole
/// one; the peer then reads an error.
#[derive(Debug)]
pub struct LinkStream {
    raw: RawStream,
    reply: Reply,
    guard: StreamGuard,
}

/// Where the answer to a stream's header stands.
#[derive(Debug)]
enum Reply {
    /// Not complete yet; what has come of it.
    Awaited {
        bytes: Vec<u8>,
        needed: usize,
    },
    Refused(StreamRefused),
    /// Accepted, or none is due since the peer opened the stream.
    Settled,
}

impl LinkStream {
    /// A stream that this end opened; the answer to its header is still to come.
    pub(crate) fn opened(raw: RawStream, guard: StreamGuard) -> Self {
        let reply = Reply::Awaited { bytes: Vec::new(), needed: REPLY_HEAD_BYTES };
        Self { raw, reply, guard }
    }

    /// Waits for the peer's answer to the header, without reading data.
    ///
    /// Calling it is optional: a read waits for the answer by itself.
    ///
    /// # Errors
    ///
    /// The error of a refused stream has kind `ConnectionRefused` and a
    /// [`StreamRefused`] inside, see [`LinkStream::refusal`]; others are the transport's.
    ///
    /// # Cancel safety
    ///
    /// May be dropped and called again.
    pub async fn accepted(&mut self) -> io::Result<()> {
        std::future::poll_fn(|cx| self.poll_reply(cx)).await
    }

    /// The refusal inside an error of this stream, if it is one.
    pub fn refusal(error: &io::Error) -> Option<&StreamRefused> {
        error.get_ref().and_then(|inner| inner.downcast_ref::<StreamRefused>())
    }

    /// The transport that carries this stream.
    pub fn transport(&self) -> Transport {
        self.guard.link.connection.transport()
    }

    /// Number of the connection that carries this stream, for logs.
    pub fn connection(&self) -> u64 {
        self.guard.link.id.0
    }

    fn poll_reply(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let (bytes, needed) = match &mut self.reply {
                Reply::Settled => return Poll::Ready(Ok(())),
                Reply::Refused(refused) => {
                    let kind = io::ErrorKind::ConnectionRefused;
                    return Poll::Ready(Err(io::Error::new(kind, refused.clone())));
                }
                Reply::Awaited { bytes, needed } => (bytes, needed),
            };
            let start = bytes.len();
            // `needed` is bounded by the decoder. Never more is read than the reply has,
            // so data after it stays in the stream.
            let mut part = vec![0; needed.saturating_sub(start)];
            let mut buf = ReadBuf::new(&mut part);
            ready!(Pin::new(&mut self.raw).poll_read(cx, &mut buf))?;
            if buf.filled().is_empty() {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            bytes.extend_from_slice(buf.filled());
            match StreamReply::decode(bytes) {
                Ok(Decoded::NeedBytes(total)) => *needed = total,
                Ok(Decoded::Done(StreamReply::Accepted, _)) => self.reply = Reply::Settled,
                Ok(Decoded::Done(StreamReply::Refused(refused), _)) => {
                    self.reply = Reply::Refused(refused);
                }
                Err(error) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
                }
            }
        }
    }
}

impl AsyncRead for LinkStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !matches!(this.reply, Reply::Settled) {
            ready!(this.poll_reply(cx))?;
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.raw).poll_read(cx, buf))?;
        let count = to_u64(buf.filled().len().saturating_sub(before));
        this.guard.link.counters.bytes_received.fetch_add(count, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for LinkStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let count = ready!(Pin::new(&mut this.raw).poll_write(cx, buf))?;
        let link = &this.guard.link;
        link.written.fetch_add(to_u64(count), Ordering::Relaxed);
        link.counters.bytes_sent.fetch_add(to_u64(count), Ordering::Relaxed);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().raw).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().raw).poll_shutdown(cx)
    }
}

/// A stream that a peer opened, before this end has answered its header.
///
/// Dropping it resets the stream; the peer then sees a transport error, so prefer
/// [`IncomingStream::refuse`].
#[derive(Debug)]
pub struct IncomingStream {
    /// The peer's cluster, by its certificate.
    pub peer: ClusterId,
    /// The peer gateway's identity.
    pub peer_id: SpiffeId,
    /// Where the stream wants to go. Everything in it is the peer's claim.
    pub header: StreamHeader,
    pub(crate) raw: RawStream,
    pub(crate) guard: StreamGuard,
}

impl IncomingStream {
    /// Tells the peer that data follows, and hands the stream over.
    ///
    /// # Errors
    ///
    /// The transport's error when the stream or its connection has ended.
    pub async fn accept(mut self) -> io::Result<LinkStream> {
        let mut bytes = Vec::with_capacity(REPLY_HEAD_BYTES);
        StreamReply::Accepted.encode(&mut bytes);
        self.raw.write_all(&bytes).await?;
        self.raw.flush().await?;
        count(&self.guard.link.counters.streams_accepted);
        Ok(LinkStream { raw: self.raw, reply: Reply::Settled, guard: self.guard })
    }

    /// Tells the peer why the stream ends here.
    ///
    /// # Errors
    ///
    /// The transport's error when the stream or its connection has ended.
    pub async fn refuse(self, code: RefuseCode, reason: &str) -> io::Result<()> {
        count(&self.guard.link.counters.streams_refused);
        refuse(self.raw, code, reason).await
    }
}

/// Writes a refusal and ends the writing side.
pub(crate) async fn refuse(mut raw: RawStream, code: RefuseCode, reason: &str) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(64);
    StreamReply::Refused(StreamRefused { code, reason: reason.to_owned() }).encode(&mut bytes);
    raw.write_all(&bytes).await?;
    raw.shutdown().await
}

fn to_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
