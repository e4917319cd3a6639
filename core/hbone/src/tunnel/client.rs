//! The client's side of one tunnel connection.
//!
//! [`TunnelClient`] is a cheap handle; [`TunnelDriver`] moves the bytes and is run by
//! whoever owns the connection, in a `JoinSet` or among a worker's local tasks. The
//! driver ends by itself when the peer goes away or stays silent, when no tunnel was open
//! for the idle timeout, and after the last handle and the last tunnel have gone; it says
//! goodbye with a GOAWAY wherever it still can.

use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, Connection, SendRequest};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::tunnel::error::TunnelError;
use crate::tunnel::head::ConnectHead;
use crate::tunnel::keepalive::peer_silent;
use crate::tunnel::settings::TunnelSettings;
use crate::tunnel::stream::TunnelStream;
use crate::wire::{
    FRAME_BYTES_MAX, HEADER_LIST_BYTES_MAX, LOCAL_RESETS_MAX, PENDING_RESETS_MAX,
    REMEMBERED_RESET_AGE, REMEMBERED_RESETS_MAX, SEND_BUFFER_BYTES_MAX, TLS_HANDSHAKE_TIMEOUT,
};

/// Whether a connection can take another tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Availability {
    /// As many tunnels are open as may be.
    Full,
    /// The connection has ended, is ending, or was told to end by the peer.
    Gone,
    /// A tunnel may be opened.
    Ready,
}

/// A handle that opens tunnels on one connection.
#[derive(Clone)]
pub struct TunnelClient {
    handle: Arc<Handle>,
}

impl TunnelClient {
    /// Begins HTTP/2 on a stream whose negotiated protocol is
    /// [`MeshProtocol::Connect`](crate::MeshProtocol::Connect).
    ///
    /// # Errors
    ///
    /// [`TunnelError::ConnectionGone`] or [`TunnelError::Timeout`].
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: the stream is dropped with the future.
    pub async fn handshake<IO>(
        io: IO,
        settings: TunnelSettings,
    ) -> Result<(Self, TunnelDriver<IO>), TunnelError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let limit = TLS_HANDSHAKE_TIMEOUT;
        let builder = builder(&settings);
        let (sender, connection) = tokio::time::timeout(limit, builder.handshake(io))
            .await
            .map_err(|_| TunnelError::Timeout { limit })?
            .map_err(|error| TunnelError::ConnectionGone { source: Some(Arc::new(error)) })?;
        let state = State { sender: Some(sender), open: 0, opened: 0 };
        let shared = Arc::new(Shared { state: Mutex::new(state), settings });
        let driver = TunnelDriver { connection, shared: Arc::clone(&shared) };
        Ok((Self { handle: Arc::new(Handle { shared }) }, driver))
    }

    /// Opens a tunnel and waits for the peer's answer.
    ///
    /// # Errors
    ///
    /// [`TunnelError`] tells a refusal from a connection that is gone, a timeout, and a
    /// lack of room.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future resets the stream.
    pub async fn open(&self, head: &ConnectHead) -> Result<TunnelStream, TunnelError> {
        let slot = self.reserve()?;
        self.open_in(slot, head).await
    }

    /// Opens a tunnel without waiting for the answer, so that first bytes may travel with
    /// the request; the server holds them back until it has accepted.
    ///
    /// Reading waits for the answer and fails with `ConnectionRefused` if it is no;
    /// [`TunnelStream::answered`] gives the details. The open timeout does not apply.
    ///
    /// # Errors
    ///
    /// [`TunnelError::AtCapacity`] or [`TunnelError::ConnectionGone`].
    pub fn open_early(&self, head: &ConnectHead) -> Result<TunnelStream, TunnelError> {
        let slot = self.reserve()?;
        self.request(slot, head)
    }

    /// Takes no more tunnels and ends the connection when those that are open have ended.
    pub fn close(&self) {
        self.shared().lock().sender = None;
    }

    /// Whether a tunnel can be opened now.
    pub fn availability(&self) -> Availability {
        self.shared().availability(&mut self.shared().lock())
    }

    /// Takes one place on the connection.
    pub(crate) fn reserve(&self) -> Result<Slot, TunnelError> {
        let mut state = self.shared().lock();
        match self.shared().availability(&mut state) {
            Availability::Ready => {
                state.open += 1;
                state.opened = state.opened.wrapping_add(1);
                Ok(Slot { shared: Arc::clone(self.shared()) })
            }
            Availability::Full => Err(TunnelError::AtCapacity { limit: state.open }),
            Availability::Gone => Err(TunnelError::ConnectionGone { source: None }),
        }
    }

    /// Opens a tunnel in a place taken before.
    pub(crate) async fn open_in(
        &self,
        slot: Slot,
        head: &ConnectHead,
    ) -> Result<TunnelStream, TunnelError> {
        let limit = self.shared().settings.open_timeout;
        let mut stream = self.request(slot, head)?;
        tokio::time::timeout(limit, stream.answered())
            .await
            .map_err(|_| TunnelError::Timeout { limit })??;
        Ok(stream)
    }

    /// Sends the request in a place taken before, and waits for nothing.
    pub(crate) fn request(
        &self,
        slot: Slot,
        head: &ConnectHead,
    ) -> Result<TunnelStream, TunnelError> {
        let request = head.request()?;
        let sender = self.shared().lock().sender.clone();
        let mut sender = sender.ok_or(TunnelError::ConnectionGone { source: None })?;
        let (answer, send) =
            sender.send_request(request, false).map_err(TunnelError::from_request)?;
        Ok(TunnelStream::requested(send, answer, slot))
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.handle.shared
    }
}

impl fmt::Debug for TunnelClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TunnelClient").field("open", &self.shared().lock().open).finish()
    }
}

/// Moves the bytes of one connection; see [`TunnelClient::handshake`].
#[must_use = "a connection moves only while its driver runs"]
pub struct TunnelDriver<IO>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    connection: Connection<IO, Bytes>,
    shared: Arc<Shared>,
}

impl<IO> TunnelDriver<IO>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    /// Runs until the connection has ended.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cuts the connection; its tunnels fail.
    pub async fn run(mut self) {
        let settings = &self.shared.settings;
        let mut silent = pin!(peer_silent(self.connection.ping_pong(), settings.keepalive));
        let mut idle = pin!(self.shared.until_idle(settings.idle_timeout));
        let mut idle_over = false;
        let mut connection = pin!(self.connection);
        loop {
            // The connection comes first: its own end says more than a timer.
            tokio::select! {
                biased;
                ended = &mut connection => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "tunnel connection failed");
                    }
                    break;
                }
                () = &mut silent => {
                    tracing::debug!("tunnel connection dropped: no answer to a ping");
                    break;
                }
                () = &mut idle, if !idle_over => idle_over = true,
            }
        }
        self.shared.lock().sender = None;
    }
}

impl<IO> fmt::Debug for TunnelDriver<IO>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TunnelDriver").finish_non_exhaustive()
    }
}

/// One place on a connection, given back when dropped.
pub(crate) struct Slot {
    shared: Arc<Shared>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.shared.lock().open -= 1;
    }
}

/// What the clones of a [`TunnelClient`] share; the connection may end after it.
struct Handle {
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.lock().sender = None;
    }
}

struct Shared {
    /// A leaf: nothing is awaited and no other lock of ours is taken while it is held.
    state: Mutex<State>,
    settings: TunnelSettings,
}

struct State {
    /// `None` once the connection takes no more tunnels. HTTP/2 closes the connection
    /// when this and all streams are gone.
    sender: Option<SendRequest<Bytes>>,
    open: usize,
    /// Counts tunnels ever opened, so that a look now and then does not miss short ones.
    opened: u64,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn availability(&self, state: &mut State) -> Availability {
        let Some(sender) = &mut state.sender else {
            return Availability::Gone;
        };
        // Looks for an error or a GOAWAY of the connection; it never has to wait, since
        // this handle itself sends no request.
        let ready = sender.poll_ready(&mut Context::from_waker(Waker::noop()));
        if matches!(ready, Poll::Ready(Err(_))) {
            state.sender = None;
            return Availability::Gone;
        }
        if state.open >= self.settings.streams_max.min(sender.current_max_send_streams()) {
            return Availability::Full;
        }
        Availability::Ready
    }

    /// Closes the connection once no tunnel has been open for `timeout`, then resolves.
    async fn until_idle(&self, timeout: Duration) {
        let (mut silent, mut seen) = (0, None);
        while silent < IDLE_TICKS {
            tokio::time::sleep(timeout / IDLE_TICKS).await;
            let mut state = self.lock();
            let idle = state.open == 0 && seen == Some(state.opened);
            seen = Some(state.opened);
            silent = if idle { silent + 1 } else { 0 };
            if silent == IDLE_TICKS {
                state.sender = None;
            }
        }
    }
}

fn builder(settings: &TunnelSettings) -> Builder {
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(settings.stream_window_bytes)
        .initial_connection_window_size(settings.connection_window_bytes)
        .initial_max_send_streams(settings.streams_max)
        .max_frame_size(FRAME_BYTES_MAX)
        .max_header_list_size(HEADER_LIST_BYTES_MAX)
        .max_send_buffer_size(SEND_BUFFER_BYTES_MAX)
        .max_concurrent_reset_streams(REMEMBERED_RESETS_MAX)
        .reset_stream_duration(REMEMBERED_RESET_AGE)
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .max_local_error_reset_streams(Some(LOCAL_RESETS_MAX));
    builder
}

/// Looks within one idle timeout.
const IDLE_TICKS: u32 = 4;
