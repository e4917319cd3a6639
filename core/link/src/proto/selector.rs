//! Chooses between QUIC and TCP for one lane to a peer.
//!
//! What counts is never a probe but a *connection*: a handshake that authenticated both
//! ends and exchanged Hello. QUIC is dialled at once and TCP a quarter of a second later;
//! the first that is done is used. From then on:
//!
//! - QUIC lost: TCP takes over at once (or as soon as its handshake is done), QUIC is
//!   tried again beside it.
//! - QUIC lossy or slow for several samples in a row, while there is something to send:
//!   TCP is dialled, and takes over only if QUIC is still bad when TCP is there.
//! - On TCP, QUIC is dialled again with a growing delay. A QUIC connection must live for
//!   a while (*probation*) before it takes over.
//! - Each loss or demotion of QUIC within the flap window doubles the probation, so that
//!   a path that comes and goes ends up on TCP instead of moving every few seconds.
//!
//! An old connection is *retired*, not closed: its streams go on to their end.

mod path;
mod quality;
mod vocabulary;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use self::path::Path;
use self::quality::{Flaps, Quality};
use crate::proto::backoff::{Backoff, Random};

pub use self::vocabulary::{
    Action, ChangeReason, ConnectionId, Event, PathSample, SelectorSettings, Transport,
    TransportChoice,
};

/// The state machine of one lane.
#[derive(Debug)]
pub struct Selector {
    settings: SelectorSettings,
    random: Random,
    quic: Path,
    tcp: Path,
    reconnect_quic: Backoff,
    reconnect_tcp: Backoff,
    probe: Backoff,
    flaps: Flaps,
    /// Why nothing is active, or was not when the current connection took over.
    pending: ChangeReason,
    changes: BTreeMap<ChangeReason, u64>,
    actions: VecDeque<Action>,
}

impl Selector {
    /// A lane that begins to dial now.
    pub fn new(now: Instant, settings: SelectorSettings, seed: u64) -> Self {
        let (first, max) = settings.reconnect;
        let mut selector = Self {
            random: Random::new(seed),
            quic: Path::Idle,
            tcp: Path::Idle,
            reconnect_quic: Backoff::new(first, max),
            reconnect_tcp: Backoff::new(first, max),
            probe: Backoff::new(settings.probe.0, settings.probe.1),
            flaps: Flaps::default(),
            pending: ChangeReason::Initial,
            changes: BTreeMap::new(),
            actions: VecDeque::new(),
            settings,
        };
        match selector.settings.transports {
            TransportChoice::Auto => {
                selector.dial(Transport::Quic);
                selector.tcp = Path::Waiting { until: now + selector.settings.tcp_delay };
            }
            TransportChoice::QuicOnly => selector.dial(Transport::Quic),
            TransportChoice::TcpOnly => selector.dial(Transport::Tcp),
        }
        selector
    }

    /// Takes one event.
    pub fn handle_event(&mut self, now: Instant, event: Event) {
        match event {
            Event::HandshakeDone(transport, id) => self.on_done(now, transport, id),
            Event::HandshakeFailed(transport) => self.on_failed(now, transport),
            Event::ConnectionLost(id) => self.on_lost(now, id),
            Event::PeerDraining(id) => self.on_peer_draining(now, id),
            Event::Sample(id, sample) => self.on_sample(now, id, sample),
        }
    }

    /// Acts on the timers that are due.
    pub fn handle_timeout(&mut self, now: Instant) {
        for transport in [Transport::Quic, Transport::Tcp] {
            match self.path(transport) {
                Path::Waiting { until } if until <= now => {
                    if transport == Transport::Tcp && !self.wants_tcp() {
                        self.tcp = Path::Idle;
                    } else {
                        self.dial(transport);
                    }
                }
                Path::Probation { id, until } if until <= now => self.promote(now, id),
                Path::Idle
                | Path::Waiting { .. }
                | Path::Dialing
                | Path::Probation { .. }
                | Path::Warm { .. }
                | Path::Active { .. } => {}
            }
        }
    }

    /// The next thing to do, if there is one.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Selector::handle_timeout`] is to be called.
    pub fn next_timeout(&self) -> Option<Instant> {
        let timer = |path: Path| match path {
            Path::Waiting { until } | Path::Probation { until, .. } => Some(until),
            Path::Idle | Path::Dialing | Path::Warm { .. } | Path::Active { .. } => None,
        };
        [self.quic, self.tcp].into_iter().filter_map(timer).min()
    }

    /// The transport and connection in use.
    pub fn active(&self) -> Option<(Transport, ConnectionId)> {
        [Transport::Quic, Transport::Tcp].into_iter().find_map(|transport| {
            match self.path(transport) {
                Path::Active { id, .. } => Some((transport, id)),
                Path::Idle
                | Path::Waiting { .. }
                | Path::Dialing
                | Path::Probation { .. }
                | Path::Warm { .. } => None,
            }
        })
    }

    /// How often the connection changed, by reason.
    pub fn changes(&self) -> &BTreeMap<ChangeReason, u64> {
        &self.changes
    }

    fn on_done(&mut self, now: Instant, transport: Transport, id: ConnectionId) {
        if self.path(transport) != Path::Dialing {
            // Cancelled meanwhile.
            self.actions.push_back(Action::Close(id));
            return;
        }
        match (transport, self.active()) {
            (_, None) => {
                let reason = match (transport, self.pending) {
                    (Transport::Tcp, ChangeReason::Initial)
                        if self.settings.transports == TransportChoice::Auto =>
                    {
                        ChangeReason::QuicUnavailable
                    }
                    (_, pending) => pending,
                };
                self.activate(now, transport, id, reason);
            }
            (Transport::Quic, Some(_)) => {
                self.actions.push_back(Action::Standby(id));
                self.quic = Path::Probation { id, until: now + self.hold() };
            }
            (Transport::Tcp, Some((_, active))) => match self.quality() {
                Quality::Bad { samples, reason } if samples >= self.settings.bad_samples => {
                    self.demote(now, active, reason);
                    self.activate(now, Transport::Tcp, id, reason);
                }
                Quality::Good | Quality::Bad { .. } if self.settings.keep_warm => {
                    self.actions.push_back(Action::Standby(id));
                    self.tcp = Path::Warm { id };
                }
                Quality::Good | Quality::Bad { .. } => {
                    self.actions.push_back(Action::Close(id));
                    self.tcp = Path::Idle;
                }
            },
        }
    }

    fn on_failed(&mut self, now: Instant, transport: Transport) {
        if self.path(transport) != Path::Dialing {
            return;
        }
        let delay = match (transport, self.active()) {
            (Transport::Quic, Some(_)) => self.probe.next_delay(&mut self.random),
            (Transport::Quic, None) => self.reconnect_quic.next_delay(&mut self.random),
            (Transport::Tcp, _) => self.reconnect_tcp.next_delay(&mut self.random),
        };
        *self.path_mut(transport) = Path::Waiting { until: now + delay };
        // The head start of QUIC is over if QUIC has failed at once.
        if transport == Transport::Quic
            && self.active().is_none()
            && self.pending == ChangeReason::Initial
            && self.changes.is_empty()
            && matches!(self.tcp, Path::Waiting { .. })
            && self.reconnect_tcp.is_fresh()
        {
            self.dial(Transport::Tcp);
        }
    }

    fn on_lost(&mut self, now: Instant, id: ConnectionId) {
        let Some(transport) = self.transport_of(id) else { return };
        match self.path(transport) {
            Path::Active { since, .. } => {
                let lived = now.saturating_duration_since(since);
                self.on_active_lost(now, transport, lived);
            }
            Path::Probation { .. } => {
                let delay = self.probe.next_delay(&mut self.random);
                self.quic = Path::Waiting { until: now + delay };
            }
            Path::Warm { .. } => {
                let delay = self.reconnect_tcp.next_delay(&mut self.random);
                self.tcp = Path::Waiting { until: now + delay };
            }
            Path::Idle | Path::Waiting { .. } | Path::Dialing => {}
        }
    }

    fn on_active_lost(&mut self, now: Instant, transport: Transport, lived: Duration) {
        if lived >= self.settings.stability {
            self.reconnect_quic.reset();
            self.reconnect_tcp.reset();
        }
        match transport {
            Transport::Quic => {
                self.flaps.note(now, self.settings.flap_window);
                self.pending = ChangeReason::QuicLost;
                let delay = self.reconnect_quic.next_delay(&mut self.random);
                self.quic = Path::Waiting { until: now + delay };
                match self.tcp {
                    Path::Warm { id } => {
                        self.activate(now, Transport::Tcp, id, ChangeReason::QuicLost);
                    }
                    Path::Idle | Path::Waiting { .. } if self.allows(Transport::Tcp) => {
                        self.dial(Transport::Tcp);
                    }
                    Path::Idle
                    | Path::Waiting { .. }
                    | Path::Dialing
                    | Path::Probation { .. }
                    | Path::Active { .. } => {}
                }
            }
            Transport::Tcp => {
                self.pending = ChangeReason::TcpLost;
                let delay = self.reconnect_tcp.next_delay(&mut self.random);
                self.tcp = Path::Waiting { until: now + delay };
                match self.quic {
                    Path::Probation { id, .. } => {
                        self.activate(now, Transport::Quic, id, ChangeReason::TcpLost);
                    }
                    Path::Idle | Path::Waiting { .. } if self.allows(Transport::Quic) => {
                        self.dial(Transport::Quic);
                    }
                    Path::Idle
                    | Path::Waiting { .. }
                    | Path::Dialing
                    | Path::Warm { .. }
                    | Path::Active { .. } => {}
                }
            }
        }
    }

    /// The peer goes away in good order: replace the connection while it still lives.
    fn on_peer_draining(&mut self, now: Instant, id: ConnectionId) {
        let Some(transport) = self.transport_of(id) else { return };
        self.actions.push_back(Action::Retire(id));
        let Path::Active { .. } = self.path(transport) else {
            let delay = self.probe.next_delay(&mut self.random);
            *self.path_mut(transport) = Path::Waiting { until: now + delay };
            return;
        };
        self.pending = ChangeReason::PeerDraining;
        *self.path_mut(transport) = Path::Idle;
        match (self.quic, self.tcp) {
            (Path::Probation { id, .. }, _) => {
                self.activate(now, Transport::Quic, id, ChangeReason::PeerDraining);
            }
            (_, Path::Warm { id }) => {
                self.activate(now, Transport::Tcp, id, ChangeReason::PeerDraining);
            }
            _ => {
                // A peer that drains each new connection at once must not be redialled
                // without a pause; the first delay is short.
                for transport in [Transport::Quic, Transport::Tcp] {
                    if !self.allows(transport) || self.path(transport) == Path::Dialing {
                        continue;
                    }
                    let backoff = match transport {
                        Transport::Quic => &mut self.reconnect_quic,
                        Transport::Tcp => &mut self.reconnect_tcp,
                    };
                    let until = now + backoff.next_delay(&mut self.random);
                    *self.path_mut(transport) = Path::Waiting { until };
                }
            }
        }
    }

    fn activate(
        &mut self,
        now: Instant,
        transport: Transport,
        id: ConnectionId,
        reason: ChangeReason,
    ) {
        *self.path_mut(transport) = Path::Active { id, since: now, quality: Quality::Good };
        *self.changes.entry(reason).or_default() += 1;
        self.actions.push_back(Action::Use(id, reason));
        match transport {
            Transport::Quic => {
                self.probe.reset();
                self.rest_tcp(now);
            }
            Transport::Tcp => {
                if matches!(self.quic, Path::Idle) && self.allows(Transport::Quic) {
                    let delay = self.probe.next_delay(&mut self.random);
                    self.quic = Path::Waiting { until: now + delay };
                }
            }
        }
    }

    /// QUIC is in use: TCP is kept ready or left alone.
    fn rest_tcp(&mut self, now: Instant) {
        if self.settings.keep_warm && self.allows(Transport::Tcp) {
            if self.tcp == Path::Idle {
                self.tcp = Path::Waiting { until: now + self.settings.tcp_delay };
            }
            return;
        }
        match self.tcp {
            Path::Dialing => {
                self.actions.push_back(Action::CancelDial(Transport::Tcp));
                self.tcp = Path::Idle;
            }
            Path::Waiting { .. } => self.tcp = Path::Idle,
            Path::Idle | Path::Probation { .. } | Path::Warm { .. } | Path::Active { .. } => {}
        }
    }

    fn promote(&mut self, now: Instant, quic: ConnectionId) {
        if let Path::Active { id, .. } = self.tcp {
            if self.settings.keep_warm {
                self.actions.push_back(Action::Standby(id));
                self.tcp = Path::Warm { id };
            } else {
                self.actions.push_back(Action::Retire(id));
                self.tcp = Path::Idle;
            }
        }
        self.activate(now, Transport::Quic, quic, ChangeReason::QuicRecovered);
    }

    fn dial(&mut self, transport: Transport) {
        *self.path_mut(transport) = Path::Dialing;
        self.actions.push_back(Action::Dial(transport));
    }

    /// TCP is dialled when nothing is up, when QUIC is bad, or to be kept warm.
    fn wants_tcp(&self) -> bool {
        match self.active() {
            None => true,
            Some(_) => self.settings.keep_warm || matches!(self.quality(), Quality::Bad { .. }),
        }
    }

    fn hold(&self) -> Duration {
        self.flaps.stretch(self.settings.stability, self.settings.hold_max)
    }

    fn allows(&self, transport: Transport) -> bool {
        match self.settings.transports {
            TransportChoice::Auto => true,
            TransportChoice::QuicOnly => transport == Transport::Quic,
            TransportChoice::TcpOnly => transport == Transport::Tcp,
        }
    }
}

#[cfg(test)]
mod tests;
