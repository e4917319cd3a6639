//! Timeouts of client connections, without a timer for each.
//!
//! Each connection has a [`Watch`] that notes what it does and when it last moved, in
//! ticks of one second. Once a second the worker looks at all of them and ends the ones
//! that have taken too long: a head that does not become whole, a body that has stopped,
//! a connection without requests.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::guard::{Phase, Refusal};
use crate::settings::ProxySettings;
use crate::worker::{TICK, Worker};

/// What one connection does.
pub(crate) struct Watch {
    worker: Weak<Worker>,
    phase: Cell<Phase>,
    /// When the phase began, or for bodies when a byte last came.
    since: Cell<u32>,
    /// Requests whose answers have not ended.
    in_flight: Cell<u32>,
    expired: Cell<bool>,
    draining: Cell<bool>,
    /// Since when the client takes no bytes, and what to wake when that is too long.
    stalled: RefCell<Option<(u32, Waker)>>,
    /// Wakes the connection's reader; present while it waits.
    reader: RefCell<Option<Waker>>,
    pub(crate) refusal: Cell<Option<Refusal>>,
}

impl Watch {
    pub(crate) fn new(worker: Weak<Worker>, tick: u32) -> Self {
        Self {
            worker,
            phase: Cell::new(Phase::Idle),
            since: Cell::new(tick),
            in_flight: Cell::new(0),
            expired: Cell::new(false),
            draining: Cell::new(false),
            stalled: RefCell::new(None),
            reader: RefCell::new(None),
            refusal: Cell::new(None),
        }
    }

    /// Bytes came and the connection is now in `phase`.
    pub(crate) fn moved(&self, phase: Phase) {
        // A head keeps the time of its first byte: one byte now and then must not help.
        if phase != Phase::Head || self.phase.get() != Phase::Head {
            self.since.set(self.now());
        }
        self.phase.set(phase);
        self.reader.take();
    }

    /// Bytes came that say nothing of requests.
    pub(crate) fn heard(&self) {
        self.reader.take();
    }

    /// Notes whether the client takes what is written to it.
    pub(crate) fn wrote(
        &self,
        outcome: Poll<io::Result<usize>>,
        cx: &Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if outcome.is_ready() {
            self.stalled.take();
            return outcome;
        }
        if self.expired.get() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let mut stalled = self.stalled.borrow_mut();
        let since = stalled.as_ref().map_or_else(|| self.now(), |(since, _)| *since);
        *stalled = Some((since, cx.waker().clone()));
        outcome
    }

    /// The reader waits for bytes.
    pub(crate) fn waits(&self, waker: &Waker) {
        let mut reader = self.reader.borrow_mut();
        if !reader.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *reader = Some(waker.clone());
        }
    }

    /// Whether the connection has taken too long and must end.
    pub(crate) fn is_expired(&self) -> bool {
        self.expired.get()
    }

    /// The connection ends as soon as it has no request.
    pub(crate) fn drain(&self) {
        self.draining.set(true);
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    /// Whether the connection is draining and has nothing left to do.
    pub(crate) fn is_over(&self) -> bool {
        self.draining.get() && self.in_flight.get() == 0 && self.phase.get() == Phase::Idle
    }

    /// Looks at the time, once a tick.
    pub(crate) fn check(&self, now: u32, settings: &ProxySettings) {
        let too_long = |(since, _): &mut (u32, Waker)| {
            ticks(settings.body_timeout) <= now.wrapping_sub(*since)
        };
        if let Some((_, writer)) = self.stalled.borrow_mut().take_if(too_long) {
            self.expired.set(true);
            writer.wake();
        }
        let limit = match self.phase.get() {
            // Nobody waits for the rest of the next request while one is being answered.
            Phase::Head | Phase::Idle if self.in_flight.get() > 0 => return,
            Phase::Head => settings.head_timeout,
            Phase::Idle => settings.idle_timeout,
            // Nobody waits for the client's bytes: the upstream is slow, not the client.
            Phase::Body if self.reader.borrow().is_none() => return,
            Phase::Body => settings.body_timeout,
        };
        if ticks(limit) <= now.wrapping_sub(self.since.get()) {
            self.expired.set(true);
            if let Some(reader) = self.reader.take() {
                reader.wake();
            }
        }
    }

    fn now(&self) -> u32 {
        self.worker.upgrade().map_or(0, |worker| worker.ticks())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(worker) = self.worker.upgrade() {
            worker.connection_ended();
        }
    }
}

/// A request of a connection, from its head to the end of its answer: a long download is
/// not an idle connection.
pub(crate) struct ActiveRequest {
    watch: Rc<Watch>,
}

impl ActiveRequest {
    pub(crate) fn begin(watch: &Rc<Watch>) -> Self {
        watch.in_flight.set(watch.in_flight.get() + 1);
        Self { watch: Rc::clone(watch) }
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        let watch = &self.watch;
        watch.in_flight.set(watch.in_flight.get().saturating_sub(1));
        watch.since.set(watch.now());
        if watch.is_over()
            && let Some(reader) = watch.reader.take()
        {
            reader.wake();
        }
    }
}

impl fmt::Debug for ActiveRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActiveRequest").finish_non_exhaustive()
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("phase", &self.phase).finish_non_exhaustive()
    }
}

fn ticks(time: Duration) -> u32 {
    u32::try_from(time.as_secs() / TICK.as_secs()).unwrap_or(u32::MAX).max(1)
}
