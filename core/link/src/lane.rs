//! One lane to a peer: runs a [`Selector`] and does what it says.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use isthmus_runtime::clock;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};

use crate::control::Established;
use crate::error::HandshakeError;
use crate::handshake;
use crate::link::{Command, Link};
use crate::peer::Peer;
use crate::proto::frame::Role;
use crate::proto::selector::{Action, ConnectionId, Event, Selector, Transport};
use crate::proto::session::CloseCode;
use crate::shared::{Phase, Shared};
use crate::status::count;
use crate::task::LinkTask;

/// Keeps one connection to a peer up.
pub(crate) struct Lane {
    shared: Arc<Shared>,
    peer: Arc<Peer>,
    selector: Selector,
    dials: JoinSet<(Transport, Result<Established, HandshakeError>)>,
    /// To give a dial up.
    dialing: BTreeMap<Transport, AbortHandle>,
    /// Where the next dial of each transport goes.
    attempts: BTreeMap<Transport, usize>,
    links: BTreeMap<ConnectionId, Arc<Link>>,
    retired: VecDeque<ConnectionId>,
    events: (mpsc::Sender<Event>, mpsc::Receiver<Event>),
    phase: watch::Receiver<Phase>,
}

impl Lane {
    pub(crate) fn new(shared: &Arc<Shared>, peer: &Arc<Peer>, index: usize) -> Self {
        // Lanes and peers must not dial in step.
        let mut seed = shared.seed ^ u64::try_from(index).unwrap_or(0);
        for byte in peer.config.cluster.as_str().bytes() {
            seed = seed.wrapping_mul(0x0100_0000_01b3) ^ u64::from(byte);
        }
        Self {
            shared: Arc::clone(shared),
            peer: Arc::clone(peer),
            selector: Selector::new(clock::now(), shared.selector.clone(), seed),
            dials: JoinSet::new(),
            dialing: BTreeMap::new(),
            attempts: BTreeMap::from([(Transport::Quic, index), (Transport::Tcp, index)]),
            links: BTreeMap::new(),
            retired: VecDeque::new(),
            events: mpsc::channel(EVENTS_MAX),
            phase: peer.phase.subscribe(),
        }
    }

    /// Runs until the peer is removed or the set drains.
    pub(crate) async fn run(mut self) {
        while *self.phase.borrow_and_update() == Phase::Running {
            while let Some(action) = self.selector.poll_action() {
                self.execute(action);
            }
            let timer = self.selector.next_timeout().map(tokio::time::Instant::from_std);
            let now = tokio::time::Instant::now();
            tokio::select! {
                // The end first, then what lives, then what is being made.
                biased;
                _ = self.phase.changed() => {}
                Some(event) = self.events.1.recv() => self.on_event(event),
                Some(ended) = self.dials.join_next() => self.on_dial_ended(ended),
                () = tokio::time::sleep_until(timer.unwrap_or(now)), if timer.is_some() => {
                    self.selector.handle_timeout(clock::now());
                }
            }
        }
        self.dials.shutdown().await;
    }

    fn execute(&mut self, action: Action) {
        match action {
            Action::Dial(transport) => self.dial(transport),
            Action::CancelDial(transport) => {
                if let Some(dial) = self.dialing.remove(&transport) {
                    dial.abort();
                }
            }
            Action::Close(id) => self.command(id, Command::Close(CloseCode::Superseded)),
            Action::Retire(id) => self.retire(id),
            Action::Standby(id) => self.command(id, Command::Role(Role::Standby)),
            Action::Use(id, reason) => {
                self.peer.note_change(reason);
                if let Some(link) = self.links.get(&id) {
                    let transport = link.connection.transport().label();
                    let peer = self.peer.config.cluster.as_str();
                    let reason = reason.label();
                    tracing::info!(peer, transport, reason, connection = id.0, "link lane changed");
                    // At once, so that a stream opened now does not miss it.
                    link.set_rank(crate::link::Rank::Active);
                }
                self.command(id, Command::Role(Role::Active));
                self.peer.on_links_changed(clock::now());
                self.shared.notify();
            }
        }
    }

    fn dial(&mut self, transport: Transport) {
        let attempt = self.attempts.entry(transport).or_default();
        let work =
            handshake::dial(Arc::clone(&self.shared), Arc::clone(&self.peer), transport, *attempt);
        *attempt = attempt.wrapping_add(1);
        let dial = self.dials.spawn(async move { (transport, work.await) });
        self.dialing.insert(transport, dial);
    }

    fn on_dial_ended(
        &mut self,
        ended: Result<(Transport, Result<Established, HandshakeError>), tokio::task::JoinError>,
    ) {
        // A cancelled dial is none of the selector's business any more.
        let Ok((transport, result)) = ended else { return };
        let now = clock::now();
        match result {
            Ok(established) if self.dialing.remove(&transport).is_some() => {
                // The address is good: the next dial goes there again.
                if let Some(attempt) = self.attempts.get_mut(&transport) {
                    *attempt = attempt.wrapping_sub(1);
                }
                let lane = Some(self.events.0.clone());
                let (task, link) = LinkTask::new(&self.shared, &self.peer, established, lane);
                let id = link.id;
                let max = self.shared.limits.connections_per_peer;
                if !self.peer.add(now, &link, max) {
                    link.command(Command::Close(CloseCode::Limit));
                }
                self.links.insert(id, link);
                self.shared.tasks.spawn(task.run());
                self.selector.handle_event(now, Event::HandshakeDone(transport, id));
            }
            // It was cancelled in the moment it was done.
            Ok(established) => {
                established.connection.close(CloseCode::Superseded, "another won the race");
            }
            Err(error) => {
                self.dialing.remove(&transport);
                self.note_failure(transport, &error);
                self.selector.handle_event(now, Event::HandshakeFailed(transport));
            }
        }
    }

    fn note_failure(&self, transport: Transport, error: &HandshakeError) {
        let counters = &self.shared.counters;
        count(&counters.handshakes_failed);
        let (peer, transport) = (self.peer.config.cluster.as_str(), transport.label());
        if error.is_authentication() {
            count(&counters.auth_failures);
            tracing::warn!(peer, transport, %error, "peer could not authenticate");
        } else {
            tracing::debug!(peer, transport, %error, "link handshake failed");
        }
        self.peer.note_error(format!("{transport}: {error}"));
        self.shared.notify();
    }

    fn on_event(&mut self, event: Event) {
        if let Event::ConnectionLost(id) = &event {
            self.links.remove(id);
            self.retired.retain(|own| own != id);
        }
        self.selector.handle_event(clock::now(), event);
    }

    fn retire(&mut self, id: ConnectionId) {
        self.command(id, Command::Retire);
        self.retired.push_back(id);
        if self.retired.len() > self.shared.limits.retired_per_lane
            && let Some(oldest) = self.retired.pop_front()
        {
            self.command(oldest, Command::Close(CloseCode::Limit));
        }
    }

    fn command(&self, id: ConnectionId, command: Command) {
        if let Some(link) = self.links.get(&id) {
            link.command(command);
        }
    }
}

const EVENTS_MAX: usize = 64;
