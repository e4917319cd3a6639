//! The election as a state machine. Pure: time and answers of the server are parameters.
//!
//! A holder leads from the moment *before* it sent the write that the server accepted,
//! and for [`LeaseSettings::renew_deadline`]. Others count from the moment *after* they
//! have seen that write, on their own monotonic clock, for [`LeaseSettings::duration`],
//! which is longer. No wall clock is compared with another, so clocks may be wrong by
//! hours; only a clock that runs faster than another by the ratio of the two durations
//! (1.5 by default) could make two leaders.
//!
//! Two contenders that write at the same time are told apart by the resource version:
//! the server accepts one.

use std::time::{Duration, Instant};

use crate::lease::LeaseSettings;

/// The lease as the server has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// Who holds it; empty after a release.
    pub holder: String,
    /// For how long, from a renewal.
    pub duration: Duration,
    /// How often the holder has changed.
    pub transitions: i32,
    /// The server's version of the object, which every renewal changes; empty for a
    /// lease that does not exist.
    pub version: String,
}

/// What the shell is to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Read the lease, and tell [`Election::on_read`].
    Read,
    /// Wait until then, and ask again.
    Wait(Instant),
    /// Write this record, if the server's version is still the one in it.
    Write(Record),
}

/// One contender.
#[derive(Debug, Clone)]
pub struct Election {
    settings: LeaseSettings,
    seen: Option<(Record, Instant)>,
    lead: Option<Instant>,
    next: Option<Instant>,
    needs_read: bool,
    /// When the last request was sent.
    sent: Option<Instant>,
    /// The number of holders as of the last own write that was accepted.
    transitions: Option<i32>,
    /// Whether another has held the lease since then.
    was_taken: bool,
}

impl Election {
    /// A contender that knows nothing yet.
    pub fn new(settings: LeaseSettings) -> Self {
        Self {
            settings,
            seen: None,
            lead: None,
            next: None,
            needs_read: true,
            sent: None,
            transitions: None,
            was_taken: false,
        }
    }

    /// Takes what was read at `now`; `None` means that there is no lease.
    pub fn on_read(&mut self, now: Instant, record: Option<Record>) {
        let record = record.unwrap_or_default();
        self.needs_read = false;
        // One that came and has released it leaves its mark on this number alone.
        self.was_taken |= self.transitions.is_some_and(|own| record.transitions > own);
        if record.holder != self.settings.identity {
            self.lead = None;
        }
        // An unchanged version is the same renewal: its time goes on running.
        let is_same = self.seen.as_ref().is_some_and(|(seen, _)| seen.version == record.version);
        if !is_same {
            self.seen = Some((record, now));
        }
    }

    /// The server has accepted a write that was sent at `sent`; `record` is its answer.
    pub fn on_written(&mut self, sent: Instant, record: Record) {
        self.lead = Some(sent);
        self.next = Some(sent + self.settings.retry);
        // The next renewal needs no look: if another has written, the server refuses it.
        self.needs_read = false;
        self.transitions = Some(record.transitions);
        self.seen = Some((record, sent));
    }

    /// A read or write has failed, or the write came too late. Whether a write was
    /// accepted is then unknown and it does not count.
    pub fn on_failed(&mut self, now: Instant) {
        self.needs_read = true;
        // From when it was sent: one that took long leaves time for another before the end.
        self.next = Some(self.sent.map_or(now, |sent| now.max(sent + self.settings.retry)));
    }

    /// Gives the leadership up at once. The record to write tells the others; `None` if
    /// there was nothing to give up.
    pub fn on_release(&mut self) -> Option<Record> {
        let was_leader = self.lead.take().is_some();
        let (seen, _) = self.seen.take()?;
        self.needs_read = true;
        (was_leader && seen.holder == self.settings.identity)
            .then(|| Record { holder: String::new(), ..seen })
    }

    /// What to do at `now`.
    pub fn poll_step(&mut self, now: Instant) -> Step {
        if let Some(next) = self.next
            && now < next
        {
            return Step::Wait(next);
        }
        self.next = None;
        self.sent = Some(now);
        let is_leader = self.leads_until().is_some_and(|until| now < until);
        let Some((seen, at)) = self.seen.clone().filter(|_| !self.needs_read) else {
            return Step::Read;
        };
        let is_own = seen.holder == self.settings.identity;
        if !is_leader && !seen.holder.is_empty() && !is_own {
            // The record's own duration may be longer than ours: the holder relies on it.
            let expires = at + seen.duration.max(self.settings.duration);
            if now < expires {
                self.needs_read = true;
                self.next = Some(expires.min(now + self.settings.retry));
                return Step::Wait(expires.min(now + self.settings.retry));
            }
        }
        // Until the answer says otherwise the outcome is unknown.
        self.needs_read = true;
        Step::Write(Record {
            holder: self.settings.identity.clone(),
            duration: self.settings.duration,
            transitions: if is_own { seen.transitions } else { seen.transitions.saturating_add(1) },
            version: seen.version,
        })
    }

    /// Whether another holds the lease, or has held it since this contender did.
    pub fn is_taken(&self) -> bool {
        let other =
            |record: &Record| !record.holder.is_empty() && record.holder != self.settings.identity;
        self.was_taken || self.seen.as_ref().is_some_and(|(record, _)| other(record))
    }

    /// Until when this contender leads, if it does.
    pub fn leads_until(&self) -> Option<Instant> {
        self.lead.map(|lead| lead + self.settings.renew_deadline)
    }
}

#[cfg(test)]
mod tests;
