//! The control stream: bytes between a [`Session`] and a transport.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use isthmus_runtime::clock;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};

use crate::connection::{Connection, Inbound};
use crate::error::HandshakeError;
use crate::proto::session::{CloseReason, Session, SessionEvent, Side};
use crate::raw::RawStream;
use crate::shared::Shared;
use crate::window::WindowGrant;

/// Both halves of the control stream, with what waits to be written.
#[derive(Debug)]
pub(crate) struct Control {
    reader: ReadHalf<RawStream>,
    writer: WriteHalf<RawStream>,
    pub(crate) outgoing: Outgoing,
    buffer: Box<[u8; READ_BYTES]>,
}

/// What is to be written to the control stream.
#[derive(Debug)]
pub(crate) struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
    flush: Flush,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flush {
    Clean,
    Due,
}

/// A connection whose ends know each other and have exchanged Hello.
#[derive(Debug)]
pub(crate) struct Established {
    pub(crate) connection: Connection,
    pub(crate) inbound: Inbound,
    pub(crate) control: Control,
    pub(crate) session: Session,
    pub(crate) streams_max: usize,
    /// The connection's share of the windows, given back with it.
    pub(crate) window: WindowGrant,
}

impl Control {
    fn new(stream: RawStream) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        let outgoing = Outgoing { bytes: Vec::new(), sent: 0, flush: Flush::Clean };
        Self { reader, writer, outgoing, buffer: Box::new([0; READ_BYTES]) }
    }

    /// The next bytes from the peer (0 at the end), or progress of our own.
    ///
    /// # Cancel safety
    ///
    /// No byte is lost in either direction when the future is dropped.
    pub(crate) async fn step(&mut self) -> io::Result<Progress> {
        let Self { reader, writer, outgoing, buffer } = self;
        let due = outgoing.is_due();
        tokio::select! {
            // Reading first: what the peer says may make our own bytes needless.
            biased;
            count = reader.read(&mut buffer[..]) => Ok(Progress::Read(count?)),
            result = outgoing.write_some(writer), if due => result.map(|()| Progress::Wrote),
        }
    }

    /// Bytes of the last [`Progress::Read`].
    pub(crate) fn received(&self, count: usize) -> &[u8] {
        self.buffer.get(..count).unwrap_or_default()
    }

    /// Moves the session's output to the stream's queue.
    pub(crate) fn take_output(&mut self, session: &mut Session) {
        if let Some(bytes) = session.poll_transmit() {
            self.outgoing.push(&bytes);
        }
    }

    /// Writes everything that waits, if it can be done within `limit`.
    pub(crate) async fn finish(&mut self, limit: Duration) {
        let write = async {
            while self.outgoing.is_due() {
                self.outgoing.write_some(&mut self.writer).await?;
            }
            self.writer.shutdown().await
        };
        // The connection ends either way; the peer also gets the code from the transport.
        let _ = tokio::time::timeout(limit, write).await;
    }
}

/// What [`Control::step`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    Read(usize),
    Wrote,
}

impl Outgoing {
    fn is_due(&self) -> bool {
        self.sent < self.bytes.len() || self.flush == Flush::Due
    }

    /// Bytes that the transport has not taken.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len().saturating_sub(self.sent)
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.sent);
        self.sent = 0;
        self.bytes.extend_from_slice(bytes);
    }

    async fn write_some(&mut self, writer: &mut WriteHalf<RawStream>) -> io::Result<()> {
        match self.bytes.get(self.sent..).filter(|rest| !rest.is_empty()) {
            Some(rest) => {
                self.sent += writer.write(rest).await?;
                self.flush = Flush::Due;
            }
            None => {
                writer.flush().await?;
                self.flush = Flush::Clean;
            }
        }
        Ok(())
    }
}

/// Opens or takes the control stream and exchanges Hello.
///
/// The caller bounds the time.
pub(crate) async fn greet(
    shared: &Arc<Shared>,
    peer: &isthmus_model::ClusterId,
    side: Side,
    connection: &Connection,
    inbound: &mut Inbound,
) -> Result<(Control, Session), HandshakeError> {
    let stream = match side {
        Side::Dialler => connection.open().await,
        Side::Acceptor => inbound.accept().await,
    };
    let mut control = Control::new(stream.map_err(HandshakeError::Transport)?);
    let mut session = Session::new(clock::now(), side, shared.session_config(peer));
    loop {
        control.take_output(&mut session);
        match session.poll_event() {
            Some(SessionEvent::Up { .. }) => return Ok((control, session)),
            Some(SessionEvent::Closed(reason)) => {
                control.finish(REFUSAL_TIMEOUT).await;
                if !matches!(reason, CloseReason::Peer { .. } | CloseReason::ControlEnded { .. }) {
                    // The peer closes when it has read why; QUIC would drop the text.
                    let _ = tokio::time::timeout(REFUSAL_TIMEOUT, connection.closed()).await;
                }
                return Err(HandshakeError::Session(reason));
            }
            Some(_) => continue,
            None => {}
        }
        match control.step().await {
            Ok(Progress::Read(0)) => session.handle_ended("end of stream".to_owned()),
            Ok(Progress::Read(count)) => {
                session.handle_bytes(clock::now(), control.received(count));
            }
            Ok(Progress::Wrote) => {}
            Err(error) => {
                let reason = ended_reason(connection, &error).await;
                return Err(HandshakeError::Transport(reason));
            }
        }
    }
}

/// What a connection says of its end, or else what the stream said.
async fn ended_reason(connection: &Connection, error: &io::Error) -> String {
    let closed = tokio::time::timeout(REASON_TIMEOUT, connection.closed()).await;
    closed.unwrap_or_else(|_| error.to_string())
}

/// Bytes read from the control stream at once.
const READ_BYTES: usize = 4096;
/// How long a peer that is refused may take to read why.
const REFUSAL_TIMEOUT: Duration = Duration::from_millis(500);
const REASON_TIMEOUT: Duration = Duration::from_millis(50);
