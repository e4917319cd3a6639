//! What upstreams said, for as long as they allowed and a while longer for bad days.
//!
//! The number of entries is bounded. When it is reached, the entry whose time ends first
//! goes, so a flood of names that do not exist (short times) cannot push out the answers
//! that matter.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use hickory_proto::rr::Record;

use crate::forward::{Lookup, Resolved};

/// What the cache knows about a question.
#[derive(Debug, PartialEq)]
pub(super) enum Hit {
    Fresh(Resolved),
    Miss,
    /// Out of time, but better than nothing.
    Stale(Resolved),
}

#[derive(Debug)]
pub(super) struct Cache {
    entries_max: usize,
    sequence: u64,
    entries: HashMap<Lookup, Entry>,
    /// Expiry and sequence number lead back to the key, in the order of expiry.
    order: BTreeSet<(Instant, u64)>,
    keys: HashMap<u64, Lookup>,
}

impl Cache {
    pub(super) fn new(entries_max: usize) -> Self {
        Self {
            entries_max,
            sequence: 0,
            entries: HashMap::new(),
            order: BTreeSet::new(),
            keys: HashMap::new(),
        }
    }

    pub(super) fn insert(
        &mut self,
        now: Instant,
        lookup: Lookup,
        resolved: Resolved,
        lifetime: Duration,
    ) {
        if self.entries_max == 0 || lifetime.is_zero() {
            return;
        }
        self.remove(&lookup);
        while self.entries.len() >= self.entries_max {
            let Some((_, sequence)) = self.order.first().copied() else { break };
            let Some(oldest) = self.keys.get(&sequence).cloned() else { break };
            self.remove(&oldest);
        }
        self.sequence += 1;
        let expires = now + lifetime;
        self.order.insert((expires, self.sequence));
        self.keys.insert(self.sequence, lookup.clone());
        let entry = Entry { sequence: self.sequence, stored: now, expires, resolved };
        self.entries.insert(lookup, entry);
    }

    pub(super) fn get(&mut self, now: Instant, lookup: &Lookup) -> Hit {
        let Some(entry) = self.entries.get(lookup) else { return Hit::Miss };
        let mut resolved = entry.resolved.clone();
        if now < entry.expires {
            let age = now.saturating_duration_since(entry.stored).as_secs();
            let age = u32::try_from(age).unwrap_or(u32::MAX);
            for record in records(&mut resolved) {
                record.ttl = record.ttl.saturating_sub(age);
            }
            return Hit::Fresh(resolved);
        }
        if now >= entry.expires + STALE_MAX {
            self.remove(lookup);
            return Hit::Miss;
        }
        for record in records(&mut resolved) {
            record.ttl = STALE_TTL_SECONDS;
        }
        Hit::Stale(resolved)
    }

    fn remove(&mut self, lookup: &Lookup) {
        if let Some(entry) = self.entries.remove(lookup) {
            self.order.remove(&(entry.expires, entry.sequence));
            self.keys.remove(&entry.sequence);
        }
    }
}

#[derive(Debug)]
struct Entry {
    sequence: u64,
    stored: Instant,
    expires: Instant,
    resolved: Resolved,
}

fn records(resolved: &mut Resolved) -> impl Iterator<Item = &mut Record> {
    resolved.answers.iter_mut().chain(&mut resolved.authorities)
}

/// How long an answer may be given after its time. RFC 8767 suggests one to three days;
/// addresses in a cloud change owners faster.
const STALE_MAX: Duration = Duration::from_secs(3600);
/// Spec: RFC 8767 section 4.
const STALE_TTL_SECONDS: u32 = 30;

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::op::ResponseCode;
    use hickory_proto::rr::rdata::A;
    use hickory_proto::rr::{Name, RData, RecordType};

    fn lookup(text: &str) -> Lookup {
        Lookup::new(&Name::from_ascii(text).unwrap(), RecordType::A)
    }

    fn resolved(ttl: u32) -> Resolved {
        let data = RData::A(A::new(192, 0, 2, 1));
        let record = Record::from_rdata(Name::from_ascii("a.test.").unwrap(), ttl, data);
        Resolved { code: ResponseCode::NoError, answers: vec![record], authorities: Vec::new() }
    }

    #[test]
    fn times_run_down_then_the_answer_is_stale_then_gone() {
        let start = isthmus_runtime::clock::now();
        let mut cache = Cache::new(10);
        let name = lookup("a.test.");
        cache.insert(start, name.clone(), resolved(60), Duration::from_secs(60));
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(cache.get(at(0), &lookup("A.TEST.")), Hit::Fresh(resolved(60)));
        assert_eq!(cache.get(at(59), &name), Hit::Fresh(resolved(1)));
        assert_eq!(cache.get(at(60), &name), Hit::Stale(resolved(30)));
        assert_eq!(cache.get(at(3659), &name), Hit::Stale(resolved(30)));
        assert_eq!(cache.get(at(3660), &name), Hit::Miss);
        assert!(cache.entries.is_empty() && cache.order.is_empty() && cache.keys.is_empty());
    }

    #[test]
    fn the_cache_is_bounded_and_drops_what_ends_first() {
        let start = isthmus_runtime::clock::now();
        let mut cache = Cache::new(3);
        cache.insert(start, lookup("keep.test."), resolved(60), Duration::from_secs(60));
        for n in 0..1000 {
            let name = lookup(&format!("n{n}.test."));
            cache.insert(start, name, resolved(5), Duration::from_secs(5));
        }
        assert_eq!((cache.entries.len(), cache.order.len(), cache.keys.len()), (3, 3, 3));
        assert!(matches!(cache.get(start, &lookup("keep.test.")), Hit::Fresh(_)));
        let mut off = Cache::new(0);
        off.insert(start, lookup("a.test."), resolved(5), Duration::from_secs(5));
        assert_eq!(off.get(start, &lookup("a.test.")), Hit::Miss);
    }

    #[test]
    fn the_key_is_the_whole_question() {
        let start = isthmus_runtime::clock::now();
        let mut cache = Cache::new(10);
        cache.insert(start, lookup("a.test."), resolved(60), Duration::from_secs(60));
        let name = Name::from_ascii("a.test.").unwrap();
        assert_eq!(cache.get(start, &Lookup::new(&name, RecordType::AAAA)), Hit::Miss);
        assert_eq!(cache.get(start, &lookup("a.test.").with_dnssec(true, false)), Hit::Miss);
        assert_eq!(cache.get(start, &lookup("a.test.").with_dnssec(false, true)), Hit::Miss);
    }
}
