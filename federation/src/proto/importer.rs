//! The reader's side: what one peer says, as far as it is accepted.
//!
//! An importer has the last applied state, perhaps a full state that is being assembled,
//! and perhaps one that is *held*: a full state that lacks most of what the peer had before
//! is not believed at once, because a peer that lost its memory says the same as one that
//! withdrew everything. It replaces the current state when it has been repeated for the
//! hold-down, or when it is no longer so much smaller. Removals that the peer names one by
//! one are always believed.
//!
//! Only what the import rules grant is ever stored, so what is stored may be used.

mod intake;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use self::intake::{CHUNKS_MAX, admit, weight};
use super::admit::{Admitted, PeerRules, Quotas, RefusedCounts};
use super::bucket::Bucket;
use super::entry::{Entry, EntryKey};
use super::frame::{Body, EPOCH_MAX, Frame, Position, Request};
use super::lease::{Lease, LeaseChange};

/// Bounds and intervals of an importer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImporterSettings {
    /// How much the peer may bring.
    pub quotas: Quotas,
    /// How many entries it may change in a second.
    pub changes_per_second: u32,
    /// How many entries it may change at once.
    pub changes_burst: u32,
    /// How long a state without most services must be repeated.
    pub hold_down: Duration,
    /// A session without a frame for this long has ended.
    pub silence_max: Duration,
    /// Between two subscriptions of one session.
    pub resubscribe: Duration,
}

impl Default for ImporterSettings {
    fn default() -> Self {
        Self {
            quotas: Quotas::default(),
            changes_per_second: 1_000,
            changes_burst: 20_000,
            hold_down: Duration::from_secs(120),
            silence_max: Duration::from_secs(6),
            resubscribe: Duration::from_secs(2),
        }
    }
}

/// What a session is closed for: the peer broke the protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// The frame speaks for another cluster.
    #[error("the peer {peer} speaks for cluster {claimed}")]
    Cluster {
        /// The authenticated peer.
        peer: String,
        /// Whom it claims to be.
        claimed: String,
    },
    /// The epoch is too high to ever go on from.
    #[error("the epoch {epoch} is above the limit {EPOCH_MAX}")]
    Epoch {
        /// The epoch.
        epoch: u64,
    },
    /// A full state never ends.
    #[error("the full state has more than {CHUNKS_MAX} chunks")]
    Endless,
}

/// Why the importer wants its session closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// The peer said nothing for too long.
    Silent,
}

/// What survives a restart of the reader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedPeer {
    /// The applied position; `None` when everything must be asked for again.
    pub position: Option<Position>,
    /// The highest epoch seen.
    pub fence: u64,
    /// The accepted entries.
    pub entries: Vec<Arc<Entry>>,
}

/// One peer's state as this cluster accepts it.
#[derive(Debug)]
pub struct Importer {
    rules: PeerRules,
    settings: ImporterSettings,
    applied: Option<Position>,
    current: Admitted,
    held: Option<Held>,
    assembly: Option<Assembly>,
    /// The highest epoch seen: what an older one says is refused.
    fence: u64,
    /// Epoch and sequence of the last heartbeat that counted.
    heartbeat: (u64, u64),
    lease: Lease,
    heard_at: Option<Instant>,
    bucket: Bucket,
    session: Option<Session>,
    need: Need,
    changed: bool,
    refused: RefusedCounts,
}

#[derive(Debug)]
struct Held {
    state: Admitted,
    until: Instant,
}

#[derive(Debug)]
struct Assembly {
    position: Position,
    next: u32,
    state: Admitted,
}

#[derive(Debug)]
struct Session {
    frame_at: Instant,
    subscribe_at: Instant,
    ack: bool,
}

/// What the importer lacks. The derive order is the order of strength.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Need {
    Nothing,
    Difference,
    Everything,
}

impl Importer {
    /// An importer that knows nothing of its peer.
    pub fn new(rules: PeerRules, settings: ImporterSettings) -> Self {
        Self {
            rules,
            settings,
            applied: None,
            current: Admitted::default(),
            held: None,
            assembly: None,
            fence: 0,
            heartbeat: (0, 0),
            lease: Lease::Never,
            heard_at: None,
            bucket: Bucket::new(settings.changes_per_second, settings.changes_burst),
            session: None,
            need: Need::Everything,
            changed: false,
            refused: RefusedCounts::new(),
        }
    }

    /// An importer that continues from what was saved.
    ///
    /// The entries are judged again, since rules may have changed. `lease` is how long the
    /// peer's word holds without being heard, so that a restart here withdraws nothing.
    pub fn restore(
        now: Instant,
        rules: PeerRules,
        settings: ImporterSettings,
        saved: SavedPeer,
        lease: Option<Duration>,
    ) -> Self {
        let mut importer = Self::new(rules, settings);
        for entry in saved.entries {
            let outcome =
                admit(&importer.rules, &importer.settings.quotas, &mut importer.current, &entry);
            importer.count(outcome.err());
        }
        importer.applied = saved.position;
        importer.fence = saved.fence;
        if saved.position.is_some() {
            importer.need = Need::Difference;
        }
        importer.changed = true;
        if let Some(lease) = lease {
            importer.lease.renew(now, lease);
        }
        importer
    }

    /// The rules have changed. What is no longer granted is gone at once; what is newly
    /// granted comes with the next full state, which is asked for.
    pub fn set_rules(&mut self, now: Instant, rules: PeerRules) {
        if rules == self.rules {
            return;
        }
        self.rules = rules;
        self.assembly = None;
        self.need = Need::Everything;
        let held = self.held.as_mut().map(|held| &mut held.state);
        for state in [Some(&mut self.current), held].into_iter().flatten() {
            let old = std::mem::take(state);
            for entry in old.entries().values() {
                // Already counted when it came.
                let _ = admit(&self.rules, &self.settings.quotas, state, entry);
            }
        }
        self.changed = true;
        if let Some(session) = &mut self.session {
            session.subscribe_at = now;
        }
    }

    /// A session has been opened.
    pub fn handle_connected(&mut self, now: Instant) {
        self.assembly = None;
        self.need = self.need.max(Need::Difference);
        self.session = Some(Session { frame_at: now, subscribe_at: now, ack: false });
    }

    /// The session has ended. The state stays, and the lease runs on.
    pub fn handle_closed(&mut self) {
        self.session = None;
        self.assembly = None;
    }

    /// The peer said something.
    ///
    /// # Errors
    ///
    /// [`Violation`]: the session must be closed.
    pub fn handle_frame(&mut self, now: Instant, frame: Frame) -> Result<(), Violation> {
        if frame.cluster != self.rules.cluster {
            let (peer, claimed) = (self.rules.cluster.to_string(), frame.cluster.to_string());
            return Err(Violation::Cluster { peer, claimed });
        }
        if frame.epoch > EPOCH_MAX {
            return Err(Violation::Epoch { epoch: frame.epoch });
        }
        self.bucket.take(now, weight(&frame.body));
        if frame.epoch < self.fence {
            // A former writer, or a late message of one.
            return Ok(());
        }
        self.fence = frame.epoch;
        if let Some(session) = &mut self.session {
            session.frame_at = now;
            session.ack = true;
        }
        match frame.body {
            Body::Delta { base, version, changes } => {
                self.handle_delta(now, frame.epoch, (base, version), changes);
                Ok(())
            }
            Body::Full { version, index, last, entries } => {
                let position = Position { epoch: frame.epoch, version };
                self.handle_chunk(now, position, (index, last), entries)
            }
            Body::Heartbeat { sent, sequence, lease } => {
                self.handle_heartbeat(now, (frame.epoch, sequence), sent, lease);
                Ok(())
            }
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.lease.handle_timeout(now) == LeaseChange::Expired {
            self.changed = true;
        }
        // The hold-down is about a peer that repeats itself; without a lease it does not.
        if self.lease.is_valid(now)
            && let Some(held) = self.held.take_if(|held| held.until <= now)
        {
            self.current = held.state;
            self.changed = true;
        }
    }

    /// What to tell the peer, if there is something to tell now.
    pub fn poll_request(&mut self, now: Instant) -> Option<Request> {
        let session = self.session.as_mut()?;
        if self.need != Need::Nothing && now >= session.subscribe_at {
            session.subscribe_at = now + self.settings.resubscribe;
            let resume = if self.need == Need::Everything { None } else { self.applied };
            return Some(Request::Subscribe { fence: self.fence, resume });
        }
        if std::mem::take(&mut session.ack) {
            let position = self.applied.unwrap_or(Position { epoch: 0, version: 0 });
            return Some(Request::Ack { position, sequence: self.heartbeat.1 });
        }
        None
    }

    /// Whether the session should be closed now.
    pub fn poll_close(&self, now: Instant) -> Option<CloseReason> {
        let session = self.session.as_ref()?;
        let silence = now.saturating_duration_since(session.frame_at);
        (silence >= self.settings.silence_max).then_some(CloseReason::Silent)
    }

    /// Whether anything that others see has changed since this was asked last.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// When something may happen without any other input.
    pub fn next_timeout(&self) -> Option<Instant> {
        let session = self.session.as_ref();
        let silent = session.map(|session| session.frame_at + self.settings.silence_max);
        let subscribe = session.filter(|_| self.need != Need::Nothing).map(|s| s.subscribe_at);
        let valid = matches!(self.lease, Lease::Valid { .. });
        let held = self.held.as_ref().filter(|_| valid).map(|held| held.until);
        [silent, subscribe, held, self.lease.next_timeout()].into_iter().flatten().min()
    }

    /// Before this time no further frame should be read from the peer.
    pub fn ready_at(&self, now: Instant) -> Option<Instant> {
        self.bucket.ready_at(now)
    }

    /// Who the peer is, and what it may bring.
    pub fn rules(&self) -> &PeerRules {
        &self.rules
    }

    /// The accepted entries.
    pub fn entries(&self) -> &BTreeMap<EntryKey, Arc<Entry>> {
        self.current.entries()
    }

    /// How many services and endpoints are accepted.
    pub fn counts(&self) -> (usize, usize) {
        (self.current.service_count(), self.current.endpoint_count())
    }

    /// The applied position.
    pub fn position(&self) -> Option<Position> {
        self.applied
    }

    /// The lease.
    pub fn lease(&self) -> Lease {
        self.lease
    }

    /// When the lease was last renewed by the peer itself.
    pub fn heard_at(&self) -> Option<Instant> {
        self.heard_at
    }

    /// Whether a state without most services waits for its hold-down.
    pub fn is_holding(&self) -> bool {
        self.held.is_some()
    }

    /// What was refused, by reason.
    pub fn refused(&self) -> &RefusedCounts {
        &self.refused
    }

    /// What to keep for a restart.
    pub fn to_saved(&self) -> SavedPeer {
        let entries = self.current.entries().values().cloned().collect();
        // While a state is held the current one is not that of the applied position.
        let position = if self.held.is_some() { None } else { self.applied };
        SavedPeer { position, fence: self.fence, entries }
    }
}
