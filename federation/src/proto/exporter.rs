//! The writer's side: one peer's view of this cluster's state, and how it gets there.
//!
//! There is one exporter for each peer, because each peer may see different services. It
//! holds the view as it is now, the version at which each entry last changed, and the
//! versions of removed entries (tombstones). That is enough to compute the difference from
//! any version, so there is no log that could grow.
//!
//! A session is in one of three phases: waiting for a request, sending a full state, or
//! following. The shell calls [`Exporter::poll_frame`] only when it can send.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use isthmus_model::ClusterId;

use super::entry::{Entry, EntryKey};
use super::frame::{Body, Change, Frame, Position, Request};

/// Bounds and intervals of an exporter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExporterSettings {
    /// Entries in one frame.
    pub chunk_entries_max: usize,
    /// Bytes in one frame, apart from a single entry that is larger.
    pub chunk_bytes_max: usize,
    /// Removed entries that are remembered.
    pub tombstones_max: usize,
    /// Between two heartbeats.
    pub heartbeat: Duration,
    /// What a heartbeat grants.
    pub lease: Duration,
    /// A session without any request for this long has ended.
    pub silence_max: Duration,
}

impl Default for ExporterSettings {
    fn default() -> Self {
        Self {
            chunk_entries_max: 500,
            chunk_bytes_max: 256 * 1024,
            tombstones_max: 10_000,
            heartbeat: Duration::from_secs(2),
            lease: Duration::from_secs(10),
            silence_max: Duration::from_secs(10),
        }
    }
}

/// What a subscription got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubscribeOutcome {
    /// The full state follows.
    Full,
    /// The differences from the position follow.
    Resumed,
    /// The peer knows a later position of this cluster than this writer has.
    ///
    /// Either another writer took over, and this one must end, or this one lost its state
    /// and must call [`Exporter::adopt_epoch`]. Only the owner can know.
    Superseded {
        /// The epoch that the peer has seen.
        epoch: u64,
    },
}

/// One peer's view of this cluster's state.
#[derive(Debug)]
pub struct Exporter {
    cluster: ClusterId,
    settings: ExporterSettings,
    position: Position,
    entries: BTreeMap<EntryKey, Versioned>,
    tombstones: BTreeMap<EntryKey, u64>,
    /// Differences from versions below this are not known any more.
    floor: u64,
    sequence: u64,
    session: Option<Session>,
}

#[derive(Debug)]
struct Versioned {
    entry: Arc<Entry>,
    version: u64,
}

#[derive(Debug)]
struct Session {
    phase: Phase,
    heartbeat_at: Instant,
    heard_at: Instant,
    acked: Option<Position>,
}

#[derive(Debug)]
enum Phase {
    Following { sent: u64 },
    Sending { version: u64, index: u32, left: VecDeque<Arc<Entry>> },
    Waiting,
}

impl Exporter {
    /// An exporter of an empty state. `epoch` must be higher than at the last start.
    pub fn new(cluster: ClusterId, epoch: u64, settings: ExporterSettings) -> Self {
        Self {
            cluster,
            settings,
            position: Position { epoch, version: 0 },
            entries: BTreeMap::new(),
            tombstones: BTreeMap::new(),
            floor: 0,
            sequence: 0,
            session: None,
        }
    }

    /// Replaces the view; returns how many entries changed.
    pub fn set_entries(&mut self, entries: BTreeMap<EntryKey, Arc<Entry>>) -> usize {
        let before = self.position.version;
        let gone: Vec<EntryKey> =
            self.entries.keys().filter(|key| !entries.contains_key(*key)).cloned().collect();
        for key in gone {
            self.entries.remove(&key);
            self.position.version += 1;
            self.tombstones.insert(key, self.position.version);
        }
        for (key, entry) in entries {
            if self.entries.get(&key).is_some_and(|old| old.entry == entry) {
                continue;
            }
            self.position.version += 1;
            self.tombstones.remove(&key);
            self.entries.insert(key, Versioned { entry, version: self.position.version });
        }
        self.forget_tombstones();
        usize::try_from(self.position.version - before).unwrap_or(usize::MAX)
    }

    /// Continues above an epoch that the peer has seen; for a writer that lost its state.
    pub fn adopt_epoch(&mut self, epoch: u64) {
        if epoch <= self.position.epoch {
            return;
        }
        self.position.epoch = epoch;
        self.sequence = 0;
        let full = self.full();
        if let Some(session) = &mut self.session {
            session.phase = full;
        }
    }

    /// A session has been opened. A former one is forgotten.
    pub fn handle_connected(&mut self, now: Instant) {
        self.session =
            Some(Session { phase: Phase::Waiting, heartbeat_at: now, heard_at: now, acked: None });
    }

    /// The session has ended.
    pub fn handle_closed(&mut self) {
        self.session = None;
    }

    /// The peer asked for something; `None` for an acknowledgement, or without a session.
    pub fn handle_request(&mut self, now: Instant, request: Request) -> Option<SubscribeOutcome> {
        let session = self.session.as_mut()?;
        session.heard_at = now;
        match request {
            Request::Ack { position, .. } => {
                session.acked = Some(position);
                None
            }
            Request::Subscribe { fence, resume } => Some(self.subscribe(now, fence, resume)),
        }
    }

    /// The next frame of the session, if there is one to send now.
    pub fn poll_frame(&mut self, now: Instant) -> Option<Frame> {
        // A long full state must not starve the heartbeats of a peer that holds a lease.
        let overdue = self.session.as_ref().is_some_and(|session| {
            now.saturating_duration_since(session.heartbeat_at) >= self.settings.heartbeat
        });
        let body = if overdue { self.poll_heartbeat(now) } else { None };
        let body = body
            .or_else(|| self.poll_full())
            .or_else(|| self.poll_delta())
            .or_else(|| self.poll_heartbeat(now));
        body.map(|body| Frame { cluster: self.cluster.clone(), epoch: self.position.epoch, body })
    }

    /// Whether the peer has been silent for too long; the session should be closed.
    pub fn is_silent(&self, now: Instant) -> bool {
        self.session.as_ref().is_some_and(|session| {
            now.saturating_duration_since(session.heard_at) >= self.settings.silence_max
        })
    }

    /// When [`Self::poll_frame`] or [`Self::is_silent`] may have something without any
    /// other input.
    pub fn next_timeout(&self) -> Option<Instant> {
        let session = self.session.as_ref()?;
        let silent_at = session.heard_at + self.settings.silence_max;
        Some(match session.phase {
            Phase::Waiting => silent_at,
            Phase::Following { .. } | Phase::Sending { .. } => session.heartbeat_at.min(silent_at),
        })
    }

    /// Where the state is now.
    pub fn position(&self) -> Position {
        self.position
    }

    /// What the peer has applied, in the current session.
    pub fn acked(&self) -> Option<Position> {
        self.session.as_ref().and_then(|session| session.acked)
    }

    /// How many entries the view has, and how many removed ones it remembers.
    pub fn len(&self) -> (usize, usize) {
        (self.entries.len(), self.tombstones.len())
    }

    /// Whether the view is empty.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entries of the view.
    pub fn entries(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.entries.values().map(|versioned| &versioned.entry)
    }

    fn forget_tombstones(&mut self) {
        let excess = self.tombstones.len().saturating_sub(self.settings.tombstones_max);
        if excess == 0 {
            return;
        }
        let mut versions: Vec<u64> = self.tombstones.values().copied().collect();
        versions.sort_unstable();
        let Some(highest) = versions.get(excess - 1).copied() else { return };
        self.floor = self.floor.max(highest);
        self.tombstones.retain(|_, version| *version > highest);
    }

    fn subscribe(
        &mut self,
        now: Instant,
        fence: u64,
        resume: Option<Position>,
    ) -> SubscribeOutcome {
        let here = self.position;
        if fence > here.epoch || resume.is_some_and(|position| position > here) {
            let epoch = resume.map_or(fence, |position| position.epoch.max(fence));
            return SubscribeOutcome::Superseded { epoch };
        }
        let known = resume.filter(|p| p.epoch == here.epoch && p.version >= self.floor);
        let (phase, outcome) = match known {
            Some(position) => {
                (Phase::Following { sent: position.version }, SubscribeOutcome::Resumed)
            }
            None => (self.full(), SubscribeOutcome::Full),
        };
        if let Some(session) = &mut self.session {
            session.phase = phase;
            // The peer needs a heartbeat before it may use what it gets.
            session.heartbeat_at = now;
        }
        outcome
    }

    fn full(&self) -> Phase {
        let left = self.entries().cloned().collect();
        Phase::Sending { version: self.position.version, index: 0, left }
    }

    fn poll_full(&mut self) -> Option<Body> {
        let session = self.session.as_mut()?;
        let Phase::Sending { version, index, left } = &mut session.phase else { return None };
        let mut entries = Vec::new();
        let mut bytes = 0;
        while let Some(next) = left.front() {
            let size = next.size();
            if is_full(&self.settings, entries.len(), bytes, size) {
                break;
            }
            bytes += size;
            entries.extend(left.pop_front().map(Change::Set));
        }
        let last = left.is_empty();
        let body = Body::Full { version: *version, index: *index, last, entries };
        *index += 1;
        if last {
            session.phase = Phase::Following { sent: *version };
        }
        Some(body)
    }

    fn poll_delta(&mut self) -> Option<Body> {
        let Some(Session { phase: Phase::Following { sent }, .. }) = &self.session else {
            return None;
        };
        let base = *sent;
        if base == self.position.version {
            return None;
        }
        if base < self.floor {
            // The session is slower than tombstones are forgotten.
            let full = self.full();
            self.session.as_mut()?.phase = full;
            return self.poll_full();
        }
        let (version, changes) = self.difference(base);
        self.session.as_mut()?.phase = Phase::Following { sent: version };
        Some(Body::Delta { base, version, changes })
    }

    /// Changes after `base` in order of their versions, as many as one frame may hold.
    /// Every version has one change, so that any prefix is a state of its own.
    fn difference(&self, base: u64) -> (u64, Vec<Change>) {
        let set = self.entries.values().filter(|v| v.version > base);
        let set = set.map(|v| (v.version, Change::Set(Arc::clone(&v.entry)), v.entry.size()));
        let removed = self.tombstones.iter().filter(|(_, version)| **version > base);
        let removed = removed.map(|(key, v)| (*v, Change::Remove(key.clone()), REMOVE_BYTES));
        let mut all: Vec<(u64, Change, usize)> = set.chain(removed).collect();
        all.sort_by_key(|(version, _, _)| *version);
        let total = all.len();
        let mut changes = Vec::new();
        let (mut last, mut bytes) = (base, 0);
        for (version, change, size) in all {
            if is_full(&self.settings, changes.len(), bytes, size) {
                break;
            }
            (last, bytes) = (version, bytes + size);
            changes.push(change);
        }
        // Versions whose entries changed again later have no change of their own.
        let version = if changes.len() == total { self.position.version } else { last };
        (version, changes)
    }

    fn poll_heartbeat(&mut self, now: Instant) -> Option<Body> {
        let session = self.session.as_mut()?;
        let sent = match session.phase {
            Phase::Following { sent } => Some(sent),
            Phase::Sending { .. } => None,
            Phase::Waiting => return None,
        };
        if now < session.heartbeat_at {
            return None;
        }
        session.heartbeat_at = now + self.settings.heartbeat;
        self.sequence += 1;
        Some(Body::Heartbeat { sent, sequence: self.sequence, lease: self.settings.lease })
    }
}

/// Whether a frame has no room for the next entry. A frame always has room for one.
fn is_full(settings: &ExporterSettings, count: usize, bytes: usize, next: usize) -> bool {
    count > 0 && (count >= settings.chunk_entries_max || bytes + next > settings.chunk_bytes_max)
}

/// Bytes of a removal on the wire, rounded up.
const REMOVE_BYTES: usize = 160;
