//! One connection's control stream, as a state machine without I/O.
//!
//! States are consumed: `AwaitHello → Up → Draining → Closed`, and any of them may go to
//! `Closed`. Inputs are `handle_*`, outputs are [`Session::poll_transmit`] and
//! [`Session::poll_event`], to be drained in this order after each input; the shell calls
//! [`Session::handle_timeout`] at [`Session::next_timeout`].
//!
//! Liveness is judged inside the connection and by payload: each end sends a padded ping
//! every second on the same ordered stream, and an end that hears nothing (neither
//! control frames nor stream bytes) for `dead_after` closes. Each end judges its own
//! inbound direction, so a path that is dead one way is found by the end that cannot
//! hear, and closed for both.
//!
//! Draining ends without losing bytes: the end that drains says [`Frame::Bye`] when its
//! last stream is gone, and the *other* end closes once its own streams have been read
//! to their end.

mod close;
mod receive;
mod vocabulary;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use self::receive::FrameBudget;
use crate::proto::estimate::Estimate;
use crate::proto::frame::{Frame, FrameBuffer, Hello, Role, Stats};

pub use self::close::{CloseCode, CloseReason};
pub use self::vocabulary::{SessionConfig, SessionEvent, Side};

/// The control stream of one connection.
#[derive(Debug)]
pub struct Session {
    config: SessionConfig,
    side: Side,
    started: Instant,
    state: State,
    input: FrameBuffer,
    output: Vec<u8>,
    events: VecDeque<SessionEvent>,
    /// Open application streams, as the shell last said.
    streams: usize,
    last_heard: Instant,
    budget: FrameBudget,
}

#[derive(Debug)]
enum State {
    AwaitHello { deadline: Instant },
    Up(Live),
    Draining { live: Live, phase: DrainPhase },
    Closed,
}

#[derive(Debug)]
struct Live {
    next_ping: Instant,
    seq: u64,
    estimate: Estimate,
    peer: PeerPhase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DrainPhase {
    /// Streams are still open.
    Streams { deadline: Option<Instant> },
    /// Bye was sent; the peer closes.
    ByeSent { deadline: Instant },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PeerPhase {
    Open,
    Draining,
    Done,
}

impl Session {
    /// A session on a fresh connection; a dialler's Hello is ready to be sent.
    pub fn new(now: Instant, side: Side, config: SessionConfig) -> Self {
        let deadline = now + config.hello_timeout;
        let mut session = Self {
            side,
            started: now,
            state: State::AwaitHello { deadline },
            input: FrameBuffer::default(),
            output: Vec::new(),
            events: VecDeque::new(),
            streams: 0,
            last_heard: now,
            budget: FrameBudget { window_start: now, frames: 0 },
            config,
        };
        if session.side == Side::Dialler {
            let hello = Hello {
                versions: session.config.versions,
                cluster: session.config.cluster.clone(),
                capabilities: 0,
            };
            session.send(&Frame::Hello(hello));
        }
        session
    }

    /// Takes bytes of the control stream.
    pub fn handle_bytes(&mut self, now: Instant, bytes: &[u8]) {
        self.last_heard = now;
        self.input.push(bytes);
        while !self.is_closed() {
            match self.input.next_frame() {
                Ok(Some(frame)) => {
                    self.handle_frame(now, frame);
                    self.bound_output();
                }
                Ok(None) => break,
                Err(error) => self.close(CloseReason::Protocol(error)),
            }
        }
        self.settle(now);
    }

    /// Notes that bytes of application streams came, which proves the peer alive.
    pub fn handle_activity(&mut self, now: Instant) {
        self.last_heard = now;
    }

    /// Notes how many application streams are open.
    pub fn handle_streams(&mut self, now: Instant, open: usize) {
        self.streams = open;
        self.settle(now);
    }

    /// Notes that the transport ended.
    pub fn handle_ended(&mut self, reason: String) {
        // An end that has said Bye or heard it expects the transport to end.
        let expected = match &self.state {
            State::Draining { phase: DrainPhase::ByeSent { .. }, .. } => true,
            State::Up(live) | State::Draining { live, .. } => live.peer == PeerPhase::Done,
            State::AwaitHello { .. } | State::Closed => false,
        };
        let reason =
            if expected { CloseReason::Drained } else { CloseReason::ControlEnded { reason } };
        self.finish(reason);
    }

    /// Acts on the timers that are due.
    pub fn handle_timeout(&mut self, now: Instant) {
        let due = |at: Instant| at <= now;
        match &mut self.state {
            State::AwaitHello { deadline } if due(*deadline) => {
                self.close(CloseReason::HelloTimeout(self.config.hello_timeout));
                return;
            }
            State::AwaitHello { .. } | State::Closed => return,
            State::Draining { phase, .. } => match *phase {
                DrainPhase::ByeSent { deadline } if due(deadline) => {
                    self.close(CloseReason::Drained);
                    return;
                }
                DrainPhase::Streams { deadline: Some(deadline) } if due(deadline) => {
                    self.close(CloseReason::DrainDeadline);
                    return;
                }
                DrainPhase::ByeSent { .. } | DrainPhase::Streams { .. } => {}
            },
            State::Up(_) => {}
        }
        if due(self.last_heard + self.config.dead_after) {
            self.close(CloseReason::Silent(self.config.dead_after));
            return;
        }
        self.ping_if_due(now);
        self.bound_output();
    }

    /// Takes no more streams from here on and ends when the open ones have.
    pub fn begin_drain(&mut self, now: Instant, deadline: Option<Duration>) {
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Up(live) => {
                let millis = deadline.map_or(0, |d| u32::try_from(d.as_millis()).unwrap_or(0));
                self.send(&Frame::Drain { deadline_ms: millis });
                let phase = DrainPhase::Streams { deadline: deadline.map(|d| now + d) };
                self.state = State::Draining { live, phase };
            }
            // A second drain may only shorten the first.
            State::Draining { live, phase: DrainPhase::Streams { deadline: old } } => {
                let new = deadline.map(|d| now + d);
                let deadline = match (old, new) {
                    (Some(old), Some(new)) => Some(old.min(new)),
                    (old, new) => old.or(new),
                };
                self.state = State::Draining { live, phase: DrainPhase::Streams { deadline } };
            }
            state @ State::AwaitHello { .. } => {
                self.state = state;
                self.close(CloseReason::Local(CloseCode::Drained));
            }
            state @ (State::Draining { .. } | State::Closed) => self.state = state,
        }
        self.settle(now);
    }

    /// Tells the peer whether this connection is for new streams.
    pub fn set_role(&mut self, role: Role) {
        if matches!(self.state, State::Up(_)) {
            self.send(&Frame::Role(role));
            self.bound_output();
        }
    }

    /// Tells the peer what this end measures.
    pub fn report(&mut self, stats: Stats) {
        if matches!(self.state, State::Up(_)) {
            self.send(&Frame::Stats(stats));
            self.bound_output();
        }
    }

    /// Ends the session and tells the peer why.
    pub fn close(&mut self, reason: CloseReason) {
        if self.is_closed() {
            return;
        }
        let code = reason.code().to_wire();
        let text = reason.to_string();
        let refuse = self.side == Side::Acceptor && matches!(self.state, State::AwaitHello { .. });
        if refuse {
            self.send(&Frame::Refuse { code, reason: text });
        } else {
            self.send(&Frame::Bye { code, reason: text });
        }
        self.finish(reason);
    }

    /// Bytes for the control stream, if there are any.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        (!self.output.is_empty()).then(|| std::mem::take(&mut self.output))
    }

    /// The next event, if there is one.
    pub fn poll_event(&mut self) -> Option<SessionEvent> {
        self.events.pop_front()
    }

    /// When [`Session::handle_timeout`] is to be called; `None` once closed.
    pub fn next_timeout(&self) -> Option<Instant> {
        let (live, drain) = match &self.state {
            State::Closed => return None,
            State::AwaitHello { deadline } => return Some(*deadline),
            State::Up(live) => (live, None),
            State::Draining { live, phase: DrainPhase::Streams { deadline } } => (live, *deadline),
            State::Draining { live, phase: DrainPhase::ByeSent { deadline } } => {
                (live, Some(*deadline))
            }
        };
        let next = live.next_ping.min(self.last_heard + self.config.dead_after);
        Some(drain.map_or(next, |deadline| deadline.min(next)))
    }

    /// The smoothed round trip of pings.
    pub fn rtt(&self) -> Option<Duration> {
        match &self.state {
            State::Up(live) | State::Draining { live, .. } => live.estimate.rtt(),
            State::AwaitHello { .. } | State::Closed => None,
        }
    }

    /// The share of lost pings, from 0 to 1.
    pub fn loss(&mut self, now: Instant) -> f64 {
        match &mut self.state {
            State::Up(live) | State::Draining { live, .. } => live.estimate.loss(now),
            State::AwaitHello { .. } | State::Closed => 0.0,
        }
    }

    /// Whether the session is over.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// Whether streams may be opened or taken.
    pub fn is_up(&self) -> bool {
        matches!(self.state, State::Up(_))
    }

    fn go_up(&mut self, now: Instant, version: u16) {
        let estimate = Estimate::new(self.config.dead_after);
        let live = Live { next_ping: now, seq: 0, estimate, peer: PeerPhase::Open };
        self.state = State::Up(live);
        self.emit(SessionEvent::Up { version });
        self.ping_if_due(now);
    }

    fn ping_if_due(&mut self, now: Instant) {
        let (State::Up(live) | State::Draining { live, .. }) = &mut self.state else { return };
        if live.next_ping > now {
            return;
        }
        let seq = live.seq;
        live.seq = live.seq.wrapping_add(1);
        live.next_ping = now + self.config.ping_interval;
        live.estimate.on_ping(now, seq);
        let micros = now.saturating_duration_since(self.started).as_micros();
        let sent_at_us = u64::try_from(micros).unwrap_or(u64::MAX);
        self.send(&Frame::Ping { seq, sent_at_us, padding: self.config.ping_padding });
    }

    /// Moves a drain on when streams or the peer have ended.
    fn settle(&mut self, now: Instant) {
        if self.streams > 0 {
            return;
        }
        let peer = match &self.state {
            State::Up(live) | State::Draining { live, .. } => live.peer,
            State::AwaitHello { .. } | State::Closed => return,
        };
        if peer == PeerPhase::Done {
            // The peer has nothing left and all that it sent has been read here.
            return self.close(CloseReason::Drained);
        }
        if let State::Draining { phase, .. } = &mut self.state
            && matches!(phase, DrainPhase::Streams { .. })
        {
            *phase = DrainPhase::ByeSent { deadline: now + self.config.bye_timeout };
            let code = CloseCode::Normal.to_wire();
            self.send(&Frame::Bye { code, reason: "drained".to_owned() });
        }
    }

    fn send(&mut self, frame: &Frame) {
        frame.encode(&mut self.output);
    }

    /// Ends a session whose peer makes us answer and does not read the answers.
    fn bound_output(&mut self) {
        if self.output.len() > OUTPUT_BYTES_MAX {
            self.finish(CloseReason::Flooded);
        }
    }

    fn emit(&mut self, event: SessionEvent) {
        self.events.push_back(event);
    }

    fn finish(&mut self, reason: CloseReason) {
        if !self.is_closed() {
            self.state = State::Closed;
            self.emit(SessionEvent::Closed(reason));
        }
    }
}

/// Control frames taken from a peer in one second.
pub const FRAMES_PER_SECOND_MAX: u32 = 1000;
/// Control bytes that wait for a peer to read them.
pub const OUTPUT_BYTES_MAX: usize = 64 * 1024;

#[cfg(test)]
mod tests;
