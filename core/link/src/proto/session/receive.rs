//! What a session does with each frame that comes.

use std::time::{Duration, Instant};

use isthmus_model::ClusterId;

use super::close::{CloseCode, CloseReason};
use super::{FRAMES_PER_SECOND_MAX, Live, PeerPhase, Session, SessionEvent, Side, State};
use crate::proto::frame::Frame;
use crate::proto::version::VersionRange;

impl Session {
    pub(super) fn handle_frame(&mut self, now: Instant, frame: Frame) {
        if !self.budget.take(now) {
            self.close(CloseReason::Flooded);
            return;
        }
        match std::mem::replace(&mut self.state, State::Closed) {
            State::AwaitHello { deadline } => {
                self.state = State::AwaitHello { deadline };
                self.handle_greeting(now, frame);
            }
            State::Up(mut live) => match self.handle_live(now, &mut live, frame) {
                Ok(()) => self.state = State::Up(live),
                Err(reason) => self.end_from_peer(State::Up(live), reason),
            },
            State::Draining { mut live, phase } => match self.handle_live(now, &mut live, frame) {
                Ok(()) => self.state = State::Draining { live, phase },
                Err(reason) => self.end_from_peer(State::Draining { live, phase }, reason),
            },
            State::Closed => {}
        }
    }

    /// Ends a live session; the peer is told unless it is the one that ended it.
    fn end_from_peer(&mut self, state: State, reason: CloseReason) {
        self.state = state;
        if matches!(reason, CloseReason::Peer { .. }) {
            self.finish(reason);
        } else {
            self.close(reason);
        }
    }

    fn handle_greeting(&mut self, now: Instant, frame: Frame) {
        match (self.side, frame) {
            (Side::Acceptor, Frame::Hello(hello)) => {
                let ours = self.config.versions;
                let Some(version) = ours.common(hello.versions) else {
                    let theirs = hello.versions;
                    return self.close(CloseReason::Version { ours, theirs });
                };
                if let Err(reason) = self.check_cluster(hello.cluster) {
                    return self.close(reason);
                }
                let cluster = self.config.cluster.clone();
                self.send(&Frame::HelloAck { version, cluster, capabilities: 0 });
                self.go_up(now, version);
            }
            (Side::Dialler, Frame::HelloAck { version, cluster, .. }) => {
                let ours = self.config.versions;
                let theirs = VersionRange { min: version, max: version };
                if ours.common(theirs).is_none() {
                    return self.close(CloseReason::Version { ours, theirs });
                }
                if let Err(reason) = self.check_cluster(cluster) {
                    return self.close(reason);
                }
                self.go_up(now, version);
            }
            (Side::Dialler, Frame::Refuse { code, reason } | Frame::Bye { code, reason }) => {
                let code = CloseCode::from_wire(code);
                self.finish(CloseReason::Peer { code, reason });
            }
            (Side::Acceptor | Side::Dialler, frame) => {
                self.close(CloseReason::Unexpected(name(&frame)))
            }
        }
    }

    fn handle_live(
        &mut self,
        now: Instant,
        live: &mut Live,
        frame: Frame,
    ) -> Result<(), CloseReason> {
        match frame {
            Frame::Ping { seq, sent_at_us, .. } => self.send(&Frame::Pong { seq, sent_at_us }),
            Frame::Pong { seq, .. } => live.estimate.on_pong(now, seq),
            Frame::Stats(stats) => self.emit(SessionEvent::PeerStats(stats)),
            Frame::Drain { .. } => {
                if live.peer == PeerPhase::Open {
                    live.peer = PeerPhase::Draining;
                    self.emit(SessionEvent::PeerDraining);
                }
            }
            Frame::Bye { code, reason } => {
                let code = CloseCode::from_wire(code);
                if code != CloseCode::Normal {
                    return Err(CloseReason::Peer { code, reason });
                }
                live.peer = PeerPhase::Done;
            }
            Frame::Role(role) if self.side == Side::Acceptor => {
                self.emit(SessionEvent::PeerRole(role));
            }
            frame @ (Frame::Hello(_)
            | Frame::HelloAck { .. }
            | Frame::Refuse { .. }
            | Frame::Role(_)) => return Err(CloseReason::Unexpected(name(&frame))),
        }
        Ok(())
    }

    fn check_cluster(&self, said: ClusterId) -> Result<(), CloseReason> {
        let expected = self.config.peer.clone();
        if said == expected { Ok(()) } else { Err(CloseReason::Cluster { expected, said }) }
    }
}

/// Frames in the current second.
#[derive(Debug)]
pub(super) struct FrameBudget {
    pub(super) window_start: Instant,
    pub(super) frames: u32,
}

impl FrameBudget {
    fn take(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.window_start) >= Duration::from_secs(1) {
            *self = Self { window_start: now, frames: 0 };
        }
        self.frames += 1;
        self.frames <= FRAMES_PER_SECOND_MAX
    }
}

fn name(frame: &Frame) -> &'static str {
    match frame {
        Frame::Bye { .. } => "bye",
        Frame::Drain { .. } => "drain",
        Frame::Hello(_) => "hello",
        Frame::HelloAck { .. } => "hello-ack",
        Frame::Ping { .. } => "ping",
        Frame::Pong { .. } => "pong",
        Frame::Refuse { .. } => "refuse",
        Frame::Role(_) => "role",
        Frame::Stats(_) => "stats",
    }
}
