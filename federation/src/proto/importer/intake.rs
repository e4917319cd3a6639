//! What an importer makes of each frame.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Assembly, Held, Importer, Need, Violation};
use crate::proto::admit::{Admitted, PeerRules, Quotas, Refused};
use crate::proto::entry::{Entry, EntryKey};
use crate::proto::frame::{Body, Change, Position};
use crate::proto::lease::LeaseChange;

impl Importer {
    pub(super) fn handle_delta(
        &mut self,
        now: Instant,
        epoch: u64,
        (base, version): (u64, u64),
        changes: Vec<Change>,
    ) {
        let known = self.applied.filter(|applied| applied.epoch == epoch);
        let Some(applied) = known.filter(|applied| base <= applied.version) else {
            self.lack(now, Need::Difference);
            return;
        };
        if version <= applied.version {
            return;
        }
        for change in &changes {
            if let Some(held) = &mut self.held {
                // Counted once, for the state that is in use.
                let _ = apply(&self.rules, &self.settings.quotas, &mut held.state, change);
            }
            let outcome = apply(&self.rules, &self.settings.quotas, &mut self.current, change);
            self.changed |= outcome.unwrap_or(false);
            self.count(outcome.err());
        }
        self.applied = Some(Position { epoch, version });
        self.satisfy(Need::Difference);
        if let Some(held) = self.held.take_if(|held| !vanishes(&self.current, &held.state)) {
            self.current = held.state;
            self.changed = true;
        }
    }

    pub(super) fn handle_chunk(
        &mut self,
        now: Instant,
        position: Position,
        (index, last): (u32, bool),
        entries: Vec<Change>,
    ) -> Result<(), Violation> {
        if index >= CHUNKS_MAX {
            self.assembly = None;
            return Err(Violation::Endless);
        }
        let repeated = self.applied == Some(position) && self.need != Need::Everything;
        let late = self.applied.is_some_and(|applied| position < applied)
            || self.assembly.as_ref().is_some_and(|assembly| position < assembly.position);
        if repeated || late {
            return Ok(());
        }
        let matching = self.assembly.take_if(|assembly| assembly.position == position);
        let mut assembly = match (matching, index) {
            (Some(assembly), _) if index < assembly.next => {
                self.assembly = Some(assembly);
                return Ok(());
            }
            (Some(assembly), _) if index == assembly.next => assembly,
            (None, 0) => Assembly { position, next: 0, state: Admitted::default() },
            (Some(_) | None, _) => {
                self.assembly = None;
                self.lack(now, Need::Difference);
                return Ok(());
            }
        };
        for change in &entries {
            let quotas = &self.settings.quotas;
            let outcome = apply(&self.rules, quotas, &mut assembly.state, change);
            self.count(outcome.err());
        }
        assembly.next += 1;
        if let Some(session) = &mut self.session {
            session.subscribe_at = now + self.settings.resubscribe;
        }
        if last {
            self.commit(now, assembly);
        } else {
            self.assembly = Some(assembly);
        }
        Ok(())
    }

    fn commit(&mut self, now: Instant, assembly: Assembly) {
        self.applied = Some(assembly.position);
        self.satisfy(Need::Everything);
        if vanishes(&self.current, &assembly.state) {
            let until = match &self.held {
                Some(held) => held.until,
                None => now + self.settings.hold_down,
            };
            self.held = Some(Held { state: assembly.state, until });
            return;
        }
        self.held = None;
        if self.current != assembly.state {
            self.current = assembly.state;
            self.changed = true;
        }
    }

    pub(super) fn handle_heartbeat(
        &mut self,
        now: Instant,
        heartbeat: (u64, u64),
        sent: Option<u64>,
        lease: Duration,
    ) {
        let Some(applied) = self.applied.filter(|applied| applied.epoch == heartbeat.0) else {
            if self.assembly.is_none() {
                self.lack(now, Need::Difference);
            }
            return;
        };
        match sent {
            Some(version) if version > applied.version => self.lack(now, Need::Difference),
            Some(_) => self.satisfy(Need::Difference),
            None => {}
        }
        if heartbeat > self.heartbeat {
            self.heartbeat = heartbeat;
            self.heard_at = Some(now);
            self.changed |= self.lease.renew(now, lease) == LeaseChange::Granted;
        }
    }

    fn lack(&mut self, now: Instant, need: Need) {
        if self.need == Need::Nothing
            && let Some(session) = &mut self.session
        {
            session.subscribe_at = session.subscribe_at.max(now);
        }
        self.need = self.need.max(need);
    }

    fn satisfy(&mut self, need: Need) {
        if self.need <= need {
            self.need = Need::Nothing;
        }
    }

    pub(super) fn count(&mut self, refused: Option<Refused>) {
        if let Some(refused) = refused {
            let count = self.refused.entry(refused).or_default();
            *count = count.saturating_add(1);
        }
    }
}

/// Applies one change; returns whether the state changed.
fn apply(
    rules: &PeerRules,
    quotas: &Quotas,
    state: &mut Admitted,
    change: &Change,
) -> Result<bool, Refused> {
    match change {
        Change::Invalid(_) => Err(Refused::Invalid),
        Change::Remove(key) => Ok(state.remove(key)),
        Change::Set(entry) => admit(rules, quotas, state, entry),
        Change::Unknown => Err(Refused::UnknownKind),
    }
}

pub(super) fn admit(
    rules: &PeerRules,
    quotas: &Quotas,
    state: &mut Admitted,
    entry: &Arc<Entry>,
) -> Result<bool, Refused> {
    match rules.admit(entry) {
        Ok(reduced) => state.set(reduced, quotas),
        // What is not granted any more must not stay; anything else that is wrong leaves
        // the last good version.
        Err(Refused::NotGranted) if state.remove(&entry.key()) => Ok(true),
        Err(refused) => Err(refused),
    }
}

/// Whether `next` lacks more than half of the services of `current`.
fn vanishes(current: &Admitted, next: &Admitted) -> bool {
    let services = current.entries().keys().filter(|key| matches!(key, EntryKey::Service(_)));
    let lost = services.filter(|key| !next.entries().contains_key(*key)).count();
    lost * 2 > current.service_count()
}

pub(super) fn weight(body: &Body) -> usize {
    match body {
        Body::Delta { changes, .. } => changes.len().max(1),
        Body::Full { entries, .. } => entries.len().max(1),
        Body::Heartbeat { .. } => 1,
    }
}

/// Chunks of one full state. The exporter's chunks hold 500 entries, so this is far above
/// what the quotas allow.
pub(super) const CHUNKS_MAX: u32 = 10_000;
