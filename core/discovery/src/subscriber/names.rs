//! The services that a sidecar asked for: fetched when first called, kept while used.
//!
//! # States of a name
//!
//! `Pending` from the first call until the controller has answered; `Known` while it is
//! used; `Absent` for a short time, so that a caller of a name that does not exist asks
//! once and not for each request. An absent name is given up after that time.
//!
//! Use is noted by the request path in a shared flag that is only written when it is not
//! yet set, and is collected here by a sweep. While there is no controller nothing is
//! given up: what is held must go on being used.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use isthmus_model::ServiceKey;

use crate::message::ClientMessage;

/// Limits of on-demand discovery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NamesSettings {
    pub(crate) idle: Duration,
    pub(crate) absent: Duration,
    pub(crate) count_max: usize,
}

/// The names that are asked for.
#[derive(Debug)]
pub(crate) struct Names {
    settings: NamesSettings,
    names: BTreeMap<ServiceKey, Name>,
    connected: bool,
    sweep_at: Instant,
    added: BTreeSet<ServiceKey>,
    removed: BTreeSet<ServiceKey>,
    known_changed: bool,
}

/// What to do with a caller who wants a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Want {
    /// The number of names is at its limit and none can be given up.
    Full,
    /// The answer is here.
    Resolved(Resolved),
    /// There is no state yet, and nothing will be asked.
    Unready,
    /// The controller was asked.
    Wait,
}

/// What a name turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resolved {
    /// There is no such service.
    Absent,
    /// The service is held.
    Known,
}

/// Flags by which the request path notes the use of a known name.
pub(crate) type UsageTable = HashMap<ServiceKey, Arc<AtomicBool>>;

#[derive(Debug)]
struct Name {
    phase: Phase,
    last_used: Instant,
    used: Arc<AtomicBool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Absent { until: Instant },
    Known,
    Pending,
}

impl Names {
    pub(crate) fn new(now: Instant, settings: NamesSettings) -> Self {
        Self {
            settings,
            names: BTreeMap::new(),
            connected: false,
            sweep_at: now + sweep_interval(&settings),
            added: BTreeSet::new(),
            removed: BTreeSet::new(),
            known_changed: false,
        }
    }

    /// Takes names from a saved state, where their services are held.
    pub(crate) fn restore(&mut self, now: Instant, names: Vec<ServiceKey>) {
        for name in names.into_iter().take(self.settings.count_max) {
            self.names.insert(name, Name::new(now, Phase::Known));
        }
        self.known_changed = true;
    }

    /// Every name, for the hello.
    pub(crate) fn handle_connected(&mut self, now: Instant) -> Vec<ServiceKey> {
        self.added.clear();
        self.removed.clear();
        // Time without a controller does not count as time without use.
        if !std::mem::replace(&mut self.connected, true) {
            self.names.values_mut().for_each(|name| name.last_used = now);
        }
        self.names.keys().cloned().collect()
    }

    pub(crate) fn handle_disconnected(&mut self) {
        self.connected = false;
    }

    pub(crate) fn handle_want(&mut self, now: Instant, key: &ServiceKey, held: bool) -> Want {
        if let Some(name) = self.names.get_mut(key) {
            name.last_used = now;
            match name.phase {
                Phase::Known => return Want::Resolved(Resolved::Known),
                Phase::Absent { until } if now < until => {
                    return Want::Resolved(Resolved::Absent);
                }
                Phase::Absent { .. } => {
                    name.phase = Phase::Pending;
                    self.added.insert(key.clone());
                }
                Phase::Pending => {}
            }
        } else {
            if self.names.len() >= self.settings.count_max && !self.give_one_up() {
                return Want::Full;
            }
            self.names.insert(key.clone(), Name::new(now, Phase::Pending));
            self.removed.remove(key);
            self.added.insert(key.clone());
        }
        // Without a controller, what is held is better than a wait that cannot end.
        let stale = held && !self.connected;
        if stale { Want::Resolved(Resolved::Known) } else { Want::Wait }
    }

    /// Takes the controller's answer; returns it if the name is still asked for.
    pub(crate) fn handle_answer(
        &mut self,
        now: Instant,
        key: ServiceKey,
        known: bool,
    ) -> Option<(ServiceKey, Resolved)> {
        let name = self.names.get_mut(&key)?;
        let until = now + self.settings.absent;
        let phase = if known { Phase::Known } else { Phase::Absent { until } };
        self.known_changed |= (name.phase == Phase::Known) != known;
        name.phase = phase;
        Some((key, if known { Resolved::Known } else { Resolved::Absent }))
    }

    /// When [`Self::handle_timeout`] is due.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        (self.connected && !self.names.is_empty()).then_some(self.sweep_at)
    }

    /// Collects use, and gives up what was not used.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if now < self.sweep_at {
            return;
        }
        self.sweep_at = now + sweep_interval(&self.settings);
        let mut gone = Vec::new();
        for (key, name) in &mut self.names {
            if name.used.swap(false, Ordering::Relaxed) {
                name.last_used = now;
            }
            let over = match name.phase {
                Phase::Absent { until } => until <= now,
                Phase::Known | Phase::Pending => name.last_used + self.settings.idle <= now,
            };
            if over && self.connected {
                gone.push(key.clone());
            }
        }
        gone.into_iter().for_each(|key| self.remove(key));
    }

    /// The changes since the last call, while there is a stream.
    pub(crate) fn poll(&mut self) -> Vec<ClientMessage> {
        if !self.connected {
            return Vec::new();
        }
        let mut messages = Vec::new();
        if !self.added.is_empty() {
            let names = std::mem::take(&mut self.added).into_iter().collect();
            messages.push(ClientMessage::Subscribe(names));
        }
        if !self.removed.is_empty() {
            let names = std::mem::take(&mut self.removed).into_iter().collect();
            messages.push(ClientMessage::Unsubscribe(names));
        }
        messages
    }

    /// The flags of the known names, if the names have changed since the last call.
    pub(crate) fn poll_usage(&mut self) -> Option<UsageTable> {
        if !std::mem::take(&mut self.known_changed) {
            return None;
        }
        let known = self.names.iter().filter(|(_, name)| name.phase == Phase::Known);
        Some(known.map(|(key, name)| (key.clone(), Arc::clone(&name.used))).collect())
    }

    /// The names worth saving.
    pub(crate) fn to_saved(&self) -> Vec<ServiceKey> {
        let known = self.names.iter().filter(|(_, name)| name.phase == Phase::Known);
        known.map(|(key, _)| key.clone()).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }

    fn remove(&mut self, key: ServiceKey) {
        if let Some(name) = self.names.remove(&key) {
            self.known_changed |= name.phase == Phase::Known;
            self.added.remove(&key);
            self.removed.insert(key);
        }
    }

    /// Makes room: absent names go first, then the one used longest ago. A name whose
    /// answer is awaited stays.
    fn give_one_up(&mut self) -> bool {
        let rank = |name: &Name| match name.phase {
            Phase::Absent { .. } => Some((0, name.last_used)),
            Phase::Known if !name.used.load(Ordering::Relaxed) => Some((1, name.last_used)),
            Phase::Known => Some((2, name.last_used)),
            Phase::Pending => None,
        };
        let ranked = self.names.iter().filter_map(|(key, name)| Some((rank(name)?, key)));
        match ranked.min().map(|(_, key)| key.clone()) {
            Some(key) => {
                self.remove(key);
                true
            }
            None => false,
        }
    }
}

impl Name {
    fn new(now: Instant, phase: Phase) -> Self {
        Self { phase, last_used: now, used: Arc::new(AtomicBool::new(false)) }
    }
}

/// Often enough that an absent name is given up soon after its time, and that use is seen
/// well before the idle time is over.
fn sweep_interval(settings: &NamesSettings) -> Duration {
    settings.absent.min(settings.idle / 4).max(SWEEP_MIN)
}

/// The shortest interval between two sweeps.
const SWEEP_MIN: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::key;

    const SETTINGS: NamesSettings = NamesSettings {
        idle: Duration::from_secs(600),
        absent: Duration::from_secs(5),
        count_max: 2,
    };

    fn start() -> (Names, Instant) {
        let now = isthmus_runtime::clock::now();
        let mut names = Names::new(now, SETTINGS);
        assert!(names.handle_connected(now).is_empty());
        (names, now)
    }

    fn subscribe(names: &[&str]) -> ClientMessage {
        ClientMessage::Subscribe(names.iter().map(|name| key(name)).collect())
    }

    fn unsubscribe(names: &[&str]) -> ClientMessage {
        ClientMessage::Unsubscribe(names.iter().map(|name| key(name)).collect())
    }

    #[test]
    fn a_name_is_asked_for_once_and_then_known() {
        let (mut names, now) = start();
        assert_eq!(names.handle_want(now, &key("a"), false), Want::Wait);
        assert_eq!(names.handle_want(now, &key("a"), false), Want::Wait);
        assert_eq!(names.poll(), [subscribe(&["a"])]);
        assert!(names.poll().is_empty());
        let resolved = names.handle_answer(now, key("a"), true);
        assert_eq!(resolved, Some((key("a"), Resolved::Known)));
        assert!(names.poll_usage().unwrap().contains_key(&key("a")));
        assert!(names.poll_usage().is_none());
        assert_eq!(names.handle_want(now, &key("a"), true), Want::Resolved(Resolved::Known));
    }

    #[test]
    fn an_absent_name_is_remembered_shortly_and_then_given_up() {
        let (mut names, now) = start();
        names.handle_want(now, &key("a"), false);
        names.poll();
        names.handle_answer(now, key("a"), false);
        let soon = now + Duration::from_secs(4);
        assert_eq!(names.handle_want(soon, &key("a"), false), Want::Resolved(Resolved::Absent));
        names.handle_timeout(now + Duration::from_secs(5));
        assert_eq!(names.poll(), [unsubscribe(&["a"])]);
        assert_eq!(names.len(), 0);
    }

    #[test]
    fn a_name_is_kept_while_used_and_given_up_after_the_idle_time() {
        let (mut names, mut now) = start();
        names.handle_want(now, &key("a"), false);
        names.handle_answer(now, key("a"), true);
        names.poll();
        let used = names.poll_usage().unwrap()[&key("a")].clone();
        for _ in 0..200 {
            used.store(true, Ordering::Relaxed);
            now += Duration::from_secs(5);
            names.handle_timeout(now);
        }
        assert_eq!(names.len(), 1);
        names.handle_timeout(now + Duration::from_secs(599));
        assert_eq!(names.len(), 1);
        names.handle_timeout(now + Duration::from_secs(605));
        assert_eq!(names.poll(), [unsubscribe(&["a"])]);
        assert!(names.poll_usage().unwrap().is_empty());
    }

    #[test]
    fn without_a_controller_nothing_is_given_up_and_held_names_are_known() {
        let (mut names, now) = start();
        names.handle_want(now, &key("a"), false);
        names.handle_answer(now, key("a"), true);
        names.handle_disconnected();
        assert_eq!(names.next_timeout(), None);
        names.handle_timeout(now + Duration::from_secs(3600));
        assert_eq!(names.len(), 1);
        let later = now + Duration::from_secs(3600);
        assert_eq!(names.handle_want(later, &key("b"), true), Want::Resolved(Resolved::Known));
        assert!(names.poll().is_empty());
        assert_eq!(names.handle_connected(later), [key("a"), key("b")]);
        assert!(names.poll().is_empty());
    }

    #[test]
    fn names_are_bounded_and_the_least_used_goes_first() {
        let (mut names, now) = start();
        let at = |secs| now + Duration::from_secs(secs);
        names.handle_want(at(0), &key("a"), false);
        names.handle_want(at(1), &key("b"), false);
        assert_eq!(names.handle_want(at(2), &key("c"), false), Want::Full);
        names.handle_answer(at(2), key("a"), true);
        names.handle_answer(at(2), key("b"), true);
        assert_eq!(names.handle_want(at(3), &key("c"), false), Want::Wait);
        assert_eq!(names.len(), 2);
        assert_eq!(names.handle_want(at(3), &key("b"), true), Want::Resolved(Resolved::Known));
    }
}
