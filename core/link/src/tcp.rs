//! The TCP shell: TLS, then yamux, driven by one task for each connection.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt, TokioAsyncReadCompatExt};

use crate::connection::{Connection, Inbound, Totals};
use crate::limits::LinkLimits;
use crate::proto::session::Side;
use crate::raw::RawStream;

/// A handle to a TCP connection's driver.
#[derive(Debug, Clone)]
pub(crate) struct TcpConnection {
    requests: mpsc::Sender<Request>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    remote: SocketAddr,
    sent: Arc<AtomicU64>,
    received: Arc<AtomicU64>,
    ended: watch::Receiver<Option<String>>,
    closing: watch::Sender<bool>,
    /// Owns the driver: it is aborted when the last handle is gone.
    _driver: JoinSet<()>,
}

#[derive(Debug)]
struct Request {
    answer: oneshot::Sender<yamux::Stream>,
}

impl TcpConnection {
    pub(crate) fn remote_address(&self) -> SocketAddr {
        self.shared.remote
    }

    pub(crate) async fn open(&self) -> Result<RawStream, String> {
        let (answer, stream) = oneshot::channel();
        if self.requests.send(Request { answer }).await.is_err() {
            return Err(self.closed().await);
        }
        match stream.await {
            Ok(stream) => Ok(RawStream::tcp(stream.compat())),
            Err(_) => Err(self.closed().await),
        }
    }

    pub(crate) fn close(&self) {
        self.shared.closing.send_replace(true);
    }

    pub(crate) async fn closed(&self) -> String {
        let mut ended = self.shared.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => "connection driver is gone".to_owned(),
        }
    }

    pub(crate) fn totals(&self) -> Totals {
        Totals {
            sent: self.shared.sent.load(Ordering::Relaxed),
            received: self.shared.received.load(Ordering::Relaxed),
            ..Totals::default()
        }
    }
}

/// Puts yamux on an authenticated TLS stream and starts its driver.
pub(crate) fn start<S>(
    tls: S,
    remote: SocketAddr,
    side: Side,
    limits: &LinkLimits,
    window: u64,
) -> (Connection, Inbound)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sent, received) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let counted = Counted { inner: tls, sent: Arc::clone(&sent), received: Arc::clone(&received) };
    let mode = match side {
        Side::Dialler => yamux::Mode::Client,
        Side::Acceptor => yamux::Mode::Server,
    };
    let (requests, requests_rx) = mpsc::channel(REQUESTS_MAX);
    // As many as yamux allows at once, so the queue is never full.
    let (streams_tx, streams) = mpsc::channel(yamux_streams(limits, window));
    let (closing, closing_rx) = watch::channel(false);
    let (ended_tx, ended) = watch::channel(None);
    let driver = Driver {
        yamux: yamux::Connection::new(counted.compat(), config(limits, window), mode),
        requests: requests_rx,
        waiting: VecDeque::new(),
        inbound: streams_tx,
    };
    let mut tasks = JoinSet::new();
    tasks.spawn(run(driver, closing_rx, ended_tx));
    let shared = Shared { remote, sent, received, ended, closing, _driver: tasks };
    let connection = TcpConnection { requests, shared: Arc::new(shared) };
    let inbound = Inbound::Tcp { streams, connection: connection.clone() };
    (Connection::Tcp(connection), inbound)
}

/// Streams that this end may have open on a TCP connection with this window.
pub(crate) fn streams_max(limits: &LinkLimits, window: u64) -> usize {
    // Half for each direction, less what yamux still holds of streams just dropped.
    (yamux_streams(limits, window) / 2).saturating_sub(STREAMS_SLACK).max(1)
}

fn yamux_streams(limits: &LinkLimits, window: u64) -> usize {
    let by_window = usize::try_from(window / u64::from(yamux::DEFAULT_CREDIT)).unwrap_or(1);
    // yamux takes the bounds one by one and checks each against its default window of
    // 1 GiB, hence the last bound.
    let wanted = limits.streams_per_connection.saturating_add(STREAMS_SLACK).saturating_mul(2);
    wanted.min(by_window).clamp(STREAMS_MIN, YAMUX_STREAMS_MAX)
}

fn config(limits: &LinkLimits, window: u64) -> yamux::Config {
    let streams = yamux_streams(limits, window);
    let least = streams.saturating_mul(yamux::DEFAULT_CREDIT as usize);
    let window = usize::try_from(window).unwrap_or(usize::MAX).max(least);
    let mut config = yamux::Config::default();
    config.set_max_num_streams(streams);
    config.set_max_connection_receive_window(Some(window));
    config
}

struct Driver<T> {
    yamux: yamux::Connection<T>,
    requests: mpsc::Receiver<Request>,
    waiting: VecDeque<Request>,
    inbound: mpsc::Sender<RawStream>,
}

async fn run<S>(
    mut driver: Driver<Compat<Counted<S>>>,
    mut closing: watch::Receiver<bool>,
    ended: watch::Sender<Option<String>>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // Closing goes first: a busy connection must not put it off.
    let reason = tokio::select! {
        biased;
        () = wanted(&mut closing) => {
            let close = std::future::poll_fn(|cx| driver.yamux.poll_close(cx));
            // A peer that does not read must not hold the socket for ever.
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, close).await;
            "closed by this end".to_owned()
        }
        reason = std::future::poll_fn(|cx| driver.poll(cx)) => reason,
    };
    // Streams learn of the end when yamux is dropped, before anyone who waits for it.
    drop(driver);
    ended.send_replace(Some(reason));
}

async fn wanted(closing: &mut watch::Receiver<bool>) {
    // An error means that every handle is gone, which ends the connection just the same.
    let _ = closing.wait_for(|closing| *closing).await;
}

impl<T> Driver<T>
where
    T: futures_util::io::AsyncRead + futures_util::io::AsyncWrite + Unpin,
{
    /// Moves everything that can move; ready only when the connection has ended.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<String> {
        loop {
            while self.waiting.len() < REQUESTS_MAX
                && let Poll::Ready(Some(request)) = self.requests.poll_recv(cx)
            {
                self.waiting.push_back(request);
            }
            while let Some(request) = self.waiting.pop_front() {
                if request.answer.is_closed() {
                    continue;
                }
                match self.yamux.poll_new_outbound(cx) {
                    // An error of `send` is a caller that gave up; the stream, on which
                    // nothing was sent, is dropped.
                    Poll::Ready(Ok(stream)) => drop(request.answer.send(stream)),
                    Poll::Ready(Err(error)) => return Poll::Ready(error.to_string()),
                    Poll::Pending => {
                        self.waiting.push_front(request);
                        break;
                    }
                }
            }
            match ready!(self.yamux.poll_next_inbound(cx)) {
                Some(Ok(stream)) => {
                    // An error means that nobody takes streams any more; dropping the
                    // stream resets it.
                    let _ = self.inbound.try_send(RawStream::tcp(stream.compat()));
                }
                Some(Err(error)) => return Poll::Ready(error.to_string()),
                None => return Poll::Ready("closed by the peer".to_owned()),
            }
        }
    }
}

/// Counts the bytes of a stream.
#[derive(Debug)]
struct Counted<S> {
    inner: S,
    sent: Arc<AtomicU64>,
    received: Arc<AtomicU64>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        add(&self.received, buf.filled().len().saturating_sub(before));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.inner).poll_write(cx, buf))?;
        add(&self.sent, count);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

fn add(total: &AtomicU64, count: usize) {
    total.fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed);
}

/// Requests for streams that wait for the driver.
const REQUESTS_MAX: usize = 256;
/// Streams that yamux holds after they were dropped, until it looks at them.
const STREAMS_SLACK: usize = 32;
const STREAMS_MIN: usize = 4;
const YAMUX_STREAMS_MAX: usize = 4096;
const CLOSE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(1);
