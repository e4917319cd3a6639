//! Copies between two streams in both directions until both ends are done.
//!
//! A half-close passes through: the end of one side's data becomes the end of the other
//! side's input, and the opposite direction goes on. A side whose reads fail ends the
//! whole splice at once, because its peer must not mistake a cut stream for a complete
//! one; a side that refuses writes ends only that direction, since it may still have
//! data to give (a server that answered early, for example).
//!
//! Streams are borrowed: after [`SpliceEnd::Failed`] or [`SpliceEnd::Idle`] the caller
//! can still make the abort visible to the surviving side, with
//! [`TunnelStream::reset`](crate::TunnelStream::reset) or TCP's zero linger.
//!
//! Buffers start small, grow to [`BUFFER_BYTES_MAX`] under load and shrink in silence, so
//! that thousands of idle tunnels cost little.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Interval, MissedTickBehavior};

/// Bounds of one splice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpliceLimits {
    /// Silence in both directions that ends the splice; it is noticed up to a quarter of
    /// this later. Default: none.
    pub idle_timeout: Option<Duration>,
}

/// One of the two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The first argument of [`splice`].
    A,
    /// The second argument of [`splice`].
    B,
}

/// How a splice ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpliceEnd {
    /// Both sides ended their data and took all of the other's.
    Complete,
    /// A side failed to be read, or refused data.
    Failed {
        /// The side whose stream failed.
        side: Side,
        /// What it reported.
        kind: io::ErrorKind,
    },
    /// Nothing moved for the idle timeout.
    Idle,
}

/// What a splice did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpliceOutcome {
    /// Bytes read from `a` and written to `b`.
    pub a_to_b: u64,
    /// Bytes read from `b` and written to `a`.
    pub b_to_a: u64,
    /// The side that ended its data first, if one did.
    pub first_eof: Option<Side>,
    /// How it ended.
    pub end: SpliceEnd,
}

/// Copies until both directions end, one side fails, or both are silent for too long.
///
/// # Cancel safety
///
/// Not cancel safe: bytes that were read and not yet written are lost.
pub async fn splice<A, B>(a: &mut A, b: &mut B, limits: &SpliceLimits) -> SpliceOutcome
where
    A: AsyncRead + AsyncWrite + Unpin + ?Sized,
    B: AsyncRead + AsyncWrite + Unpin + ?Sized,
{
    let mut forth = Direction::new();
    let mut back = Direction::new();
    let mut first_eof = None;
    let mut silence = Silence::new(limits);
    let copy = poll_fn(|cx| {
        let done_forth = forth.poll(cx, &mut *a, &mut *b).is_ready();
        note_eof(&mut first_eof, &forth, Side::A);
        let done_back = back.poll(cx, &mut *b, &mut *a).is_ready();
        note_eof(&mut first_eof, &back, Side::B);
        let cut = forth.is_read_failed() || back.is_read_failed();
        if cut || (done_forth && done_back) {
            return Poll::Ready(end_of(&forth, &back));
        }
        let moved = forth.moved + back.moved;
        match silence.poll(cx, moved) {
            Poll::Ready(()) => Poll::Ready(SpliceEnd::Idle),
            Poll::Pending => {
                if silence.is_quiet() {
                    forth.shrink();
                    back.shrink();
                }
                Poll::Pending
            }
        }
    });
    let end = pin!(copy).await;
    SpliceOutcome { a_to_b: forth.moved, b_to_a: back.moved, first_eof, end }
}

/// One direction: reads, writes, and passes the end on.
#[derive(Debug)]
struct Direction {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    moved: u64,
    unflushed: bool,
    state: DirectionState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DirectionState {
    Copying,
    /// The reader has ended; the writer is being told.
    Ending,
    Done,
    ReadFailed(io::ErrorKind),
    WriteFailed(io::ErrorKind),
}

impl Direction {
    fn new() -> Self {
        let (buffer, state) = (Vec::new(), DirectionState::Copying);
        Self { buffer, start: 0, end: 0, moved: 0, unflushed: false, state }
    }

    fn is_read_failed(&self) -> bool {
        matches!(self.state, DirectionState::ReadFailed(_))
    }

    fn saw_eof(&self) -> bool {
        matches!(self.state, DirectionState::Ending | DirectionState::Done)
    }

    /// Moves bytes until nothing more can move; ready when the direction is over.
    fn poll<R, W>(&mut self, cx: &mut Context<'_>, reader: &mut R, writer: &mut W) -> Poll<()>
    where
        R: AsyncRead + Unpin + ?Sized,
        W: AsyncWrite + Unpin + ?Sized,
    {
        for _ in 0..ROUNDS_MAX {
            match self.state {
                DirectionState::Copying => ready!(self.poll_copy(cx, reader, writer)),
                DirectionState::Ending => {
                    self.state = match ready!(Pin::new(&mut *writer).poll_shutdown(cx)) {
                        Ok(()) => DirectionState::Done,
                        Err(error) => DirectionState::WriteFailed(error.kind()),
                    };
                }
                DirectionState::Done
                | DirectionState::ReadFailed(_)
                | DirectionState::WriteFailed(_) => return Poll::Ready(()),
            }
        }
        // Streams that are always ready must not keep the worker to themselves.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// One read or one write. Ready means that the state may have changed.
    fn poll_copy<R, W>(&mut self, cx: &mut Context<'_>, reader: &mut R, writer: &mut W) -> Poll<()>
    where
        R: AsyncRead + Unpin + ?Sized,
        W: AsyncWrite + Unpin + ?Sized,
    {
        if self.start < self.end {
            let chunk = &self.buffer[self.start..self.end];
            match ready!(Pin::new(&mut *writer).poll_write(cx, chunk)) {
                Ok(0) => self.state = DirectionState::WriteFailed(io::ErrorKind::WriteZero),
                Ok(count) => {
                    self.start += count;
                    self.moved += count as u64;
                    self.unflushed = true;
                }
                Err(error) => self.state = DirectionState::WriteFailed(error.kind()),
            }
            return Poll::Ready(());
        }
        self.grow();
        let mut buffer = ReadBuf::new(&mut self.buffer);
        match Pin::new(&mut *reader).poll_read(cx, &mut buffer) {
            Poll::Ready(Ok(())) => {
                (self.start, self.end) = (0, buffer.filled().len());
                if self.end == 0 {
                    self.state = DirectionState::Ending;
                }
                Poll::Ready(())
            }
            Poll::Ready(Err(error)) => {
                self.state = DirectionState::ReadFailed(error.kind());
                Poll::Ready(())
            }
            Poll::Pending => self.poll_flush(cx, writer),
        }
    }

    /// Sends out what a buffering writer (TLS) holds before we sleep.
    fn poll_flush<W>(&mut self, cx: &mut Context<'_>, writer: &mut W) -> Poll<()>
    where
        W: AsyncWrite + Unpin + ?Sized,
    {
        if self.unflushed {
            match ready!(Pin::new(&mut *writer).poll_flush(cx)) {
                Ok(()) => self.unflushed = false,
                Err(error) => {
                    self.state = DirectionState::WriteFailed(error.kind());
                    return Poll::Ready(());
                }
            }
        }
        Poll::Pending
    }

    /// Makes the empty buffer larger after a read that filled it.
    fn grow(&mut self) {
        let length = self.buffer.len();
        if length == 0 {
            self.buffer.resize(BUFFER_BYTES_MIN, 0);
        } else if self.end == length && length < BUFFER_BYTES_MAX {
            self.buffer.resize((length * 4).min(BUFFER_BYTES_MAX), 0);
        }
        (self.start, self.end) = (0, 0);
    }

    fn shrink(&mut self) {
        if self.start == self.end && self.buffer.len() > BUFFER_BYTES_MIN {
            self.buffer = vec![0; BUFFER_BYTES_MIN];
            (self.start, self.end) = (0, 0);
        }
    }
}

/// Counts ticks in which nothing moved.
#[derive(Debug)]
struct Silence {
    ticks: Interval,
    moved: u64,
    silent: u32,
    silent_max: Option<u32>,
}

impl Silence {
    fn new(limits: &SpliceLimits) -> Self {
        let (every, silent_max) = match limits.idle_timeout {
            Some(timeout) => (timeout / IDLE_TICKS, Some(IDLE_TICKS)),
            None => (SHRINK_INTERVAL, None),
        };
        let every = every.max(Duration::from_millis(1));
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { ticks, moved: 0, silent: 0, silent_max }
    }

    fn is_quiet(&self) -> bool {
        self.silent > 0
    }

    /// Ready when the idle timeout has passed.
    fn poll(&mut self, cx: &mut Context<'_>, moved: u64) -> Poll<()> {
        if moved != self.moved {
            self.moved = moved;
            self.silent = 0;
            // A tick that is already due would count the present moment as silent.
            while self.ticks.poll_tick(cx).is_ready() {}
            return Poll::Pending;
        }
        while self.ticks.poll_tick(cx).is_ready() {
            self.silent = self.silent.saturating_add(1);
            // The first tick of an interval is immediate and does not count.
            if self.silent_max.is_some_and(|max| self.silent > max) {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }
}

fn note_eof(first: &mut Option<Side>, direction: &Direction, reader: Side) {
    if first.is_none() && direction.saw_eof() {
        *first = Some(reader);
    }
}

fn end_of(forth: &Direction, back: &Direction) -> SpliceEnd {
    let failed = |side, kind| SpliceEnd::Failed { side, kind };
    match (forth.state, back.state) {
        (DirectionState::ReadFailed(kind), _) | (_, DirectionState::WriteFailed(kind)) => {
            failed(Side::A, kind)
        }
        (_, DirectionState::ReadFailed(kind)) | (DirectionState::WriteFailed(kind), _) => {
            failed(Side::B, kind)
        }
        (
            DirectionState::Copying | DirectionState::Ending | DirectionState::Done,
            DirectionState::Copying | DirectionState::Ending | DirectionState::Done,
        ) => SpliceEnd::Complete,
    }
}

/// A direction's buffer under load.
pub const BUFFER_BYTES_MAX: usize = 64 * 1024;
/// A direction's buffer at first and in silence.
pub const BUFFER_BYTES_MIN: usize = 4 * 1024;
/// Reads and writes of one direction before others get their turn.
const ROUNDS_MAX: usize = 64;
/// Checks within one idle timeout.
const IDLE_TICKS: u32 = 4;
/// How often buffers of a splice without idle timeout are looked at.
const SHRINK_INTERVAL: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests;
