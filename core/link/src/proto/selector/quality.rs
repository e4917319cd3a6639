//! When QUIC is good enough: samples, demotion, and the memory of flaps.

use std::time::{Duration, Instant};

use super::vocabulary::{Action, ChangeReason, ConnectionId, PathSample, Transport};
use super::{Path, Selector};

/// What the last samples of the QUIC connection in use showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quality {
    Good,
    /// Bad samples in a row, and what the last one showed.
    Bad {
        samples: u32,
        reason: ChangeReason,
    },
}

/// How often QUIC was lost or demoted of late.
#[derive(Debug, Default)]
pub(super) struct Flaps {
    count: u32,
    last: Option<Instant>,
}

impl Selector {
    pub(super) fn on_sample(&mut self, now: Instant, id: ConnectionId, sample: PathSample) {
        let settings = &self.settings;
        let reason = if sample.loss >= settings.loss_max {
            Some(ChangeReason::QuicLossy)
        } else if sample.backlog >= settings.backlog_min && sample.goodput < settings.goodput_min {
            Some(ChangeReason::QuicSlow)
        } else {
            None
        };
        let hold = self.hold();
        match &mut self.quic {
            Path::Probation { id: own, until } if *own == id => {
                if reason.is_some() {
                    *until = now + hold;
                }
                return;
            }
            Path::Active { id: own, quality, since } if *own == id => {
                let samples = match *quality {
                    Quality::Good => 1,
                    Quality::Bad { samples, .. } => samples.saturating_add(1),
                };
                *quality = reason.map_or(Quality::Good, |reason| Quality::Bad { samples, reason });
                if now.saturating_duration_since(*since) >= self.settings.stability {
                    self.reconnect_quic.reset();
                }
            }
            Path::Idle
            | Path::Waiting { .. }
            | Path::Dialing
            | Path::Probation { .. }
            | Path::Warm { .. }
            | Path::Active { .. } => return,
        }
        self.act_on_quality(now, id);
    }

    pub(super) fn act_on_quality(&mut self, now: Instant, quic: ConnectionId) {
        let Quality::Bad { samples, reason } = self.quality() else { return };
        if samples < self.settings.bad_samples {
            return;
        }
        match self.tcp {
            Path::Warm { id } => {
                self.demote(now, quic, reason);
                self.activate(now, Transport::Tcp, id, reason);
            }
            // Only a real TCP connection decides; until it is there QUIC goes on.
            Path::Idle if self.allows(Transport::Tcp) => self.dial(Transport::Tcp),
            Path::Idle
            | Path::Waiting { .. }
            | Path::Dialing
            | Path::Probation { .. }
            | Path::Active { .. } => {}
        }
    }

    /// Takes QUIC out of use for its quality and keeps it out for a while.
    pub(super) fn demote(&mut self, now: Instant, quic: ConnectionId, reason: ChangeReason) {
        self.flaps.note(now, self.settings.flap_window);
        self.pending = reason;
        self.actions.push_back(Action::Retire(quic));
        let cooldown = self.flaps.stretch(self.settings.cooldown, self.settings.hold_max);
        self.quic = Path::Waiting { until: now + cooldown };
    }

    pub(super) fn quality(&self) -> Quality {
        match self.quic {
            Path::Active { quality, .. } => quality,
            Path::Idle
            | Path::Waiting { .. }
            | Path::Dialing
            | Path::Probation { .. }
            | Path::Warm { .. } => Quality::Good,
        }
    }
}

impl Flaps {
    pub(super) fn note(&mut self, now: Instant, window: Duration) {
        let recent = self.last.is_some_and(|last| now.saturating_duration_since(last) < window);
        self.count = if recent { self.count.saturating_add(1) } else { 1 };
        self.last = Some(now);
    }

    /// `base`, doubled for each flap after the first.
    pub(super) fn stretch(&self, base: Duration, max: Duration) -> Duration {
        let doublings = self.count.saturating_sub(1).min(DOUBLINGS_MAX);
        base.saturating_mul(1 << doublings).min(max)
    }
}

const DOUBLINGS_MAX: u32 = 10;
