//! Writes that the server has refused and that wait before they are sent again. Pure.
//!
//! What is held is one write to one object. A write that has *failed* waits while its text
//! is the same: another text for the same object is sent at once, since it may be the
//! mended one. Times of conditions are no part of the text; they are new in every plan of
//! a status that was never written. Nor is the version that a status was planned on, or
//! every write of somebody else would send a failed one again.
//!
//! A write that was *outdated* waits while its version is the same: the server has a newer
//! one, so it can only be refused. The watch brings that version, and what is planned on it
//! is sent at once. Where somebody writes an object without end, that is a race which is
//! lost again and again; after [`RACES_MAX`] of them every version waits.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::apply::execute::Failure;
use crate::apply::{Action, ObjectId};

/// Writes that were refused, by object and form of the write.
#[derive(Debug, Clone, Default)]
pub(super) struct Held {
    writes: BTreeMap<(ObjectId, Form), Write>,
}

/// What the server had against a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The write has failed.
    Failed(Failure),
    /// It was planned on an older version of the object.
    Outdated,
}

#[derive(Debug, Clone)]
struct Write {
    text: u64,
    version: Option<String>,
    /// Until when the same write waits.
    until: Instant,
    /// Until when every write of the object in this form waits.
    all_until: Instant,
    /// How often in a row it was refused for this.
    count: u32,
    last: Refusal,
}

/// An object and its status are written apart from each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Form {
    Delete,
    Object,
    Status,
}

impl Held {
    /// Forgets writes that no plan has any more, which bounds what is held.
    pub(super) fn keep(&mut self, actions: &[Action]) {
        if self.writes.is_empty() {
            return;
        }
        let planned: BTreeSet<(&ObjectId, Form)> =
            actions.iter().map(|action| (action.id(), form(action))).collect();
        self.writes.retain(|(id, form), _| planned.contains(&(id, *form)));
    }

    /// Why a write is not worth sending yet; `None` sends it.
    pub(super) fn refusal_of(&self, now: Instant, action: &Action) -> Option<&Refusal> {
        if self.writes.is_empty() {
            return None;
        }
        let held = self.writes.get(&(action.id().clone(), form(action)))?;
        let is_same = || match held.last {
            Refusal::Failed(_) => held.text == text(action),
            Refusal::Outdated => held.version.as_deref() == action.version(),
        };
        (now < held.all_until || now < held.until && is_same()).then_some(&held.last)
    }

    /// What has become of a write; `None` is that it was carried out.
    pub(super) fn handle(&mut self, now: Instant, action: &Action, refusal: Option<Refusal>) {
        let Some(last) = refusal else {
            if !self.writes.is_empty() {
                self.writes.remove(&(action.id().clone(), form(action)));
            }
            return;
        };
        let (key, text) = ((action.id().clone(), form(action)), text(action));
        let before = self.writes.get(&key).filter(|held| match (&held.last, &last) {
            (Refusal::Failed(_), Refusal::Failed(_)) => held.text == text,
            (Refusal::Outdated, Refusal::Outdated) => true,
            (Refusal::Failed(_), Refusal::Outdated) | (Refusal::Outdated, Refusal::Failed(_)) => {
                false
            }
        });
        let count = before.map_or(0, |held| held.count).saturating_add(1);
        let (wait, wait_all) = match last {
            Refusal::Failed(_) => (wait(count), Duration::ZERO),
            Refusal::Outdated => (HOLD_MAX, wait(count.saturating_sub(RACES_MAX))),
        };
        let version = action.version().map(str::to_owned);
        let (until, all_until) = (now + wait, now + wait_all);
        self.writes.insert(key, Write { text, version, until, all_until, count, last });
    }
}

/// The wait after so many refusals in a row.
fn wait(count: u32) -> Duration {
    match count.checked_sub(1) {
        None => Duration::ZERO,
        Some(doubled) => HOLD.saturating_mul(1 << doubled.min(10)).min(HOLD_MAX),
    }
}

fn form(action: &Action) -> Form {
    match action {
        Action::Apply { .. } => Form::Object,
        Action::ApplyStatus { .. } => Form::Status,
        Action::Delete { .. } => Form::Delete,
    }
}

fn text(action: &Action) -> u64 {
    let mut hasher = DefaultHasher::new();
    match action {
        Action::Apply { body, .. } | Action::ApplyStatus { body, .. } => hash(body, &mut hasher),
        Action::Delete { uid, .. } => uid.hash(&mut hasher),
    }
    hasher.finish()
}

fn hash(value: &Value, hasher: &mut DefaultHasher) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields.iter().filter(|(key, _)| !UNSAID.contains(&key.as_str())) {
                key.hash(hasher);
                hash(value, hasher);
            }
        }
        Value::Array(entries) => {
            entries.len().hash(hasher);
            entries.iter().for_each(|entry| hash(entry, hasher));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            value.to_string().hash(hasher);
        }
    }
}

/// Fields that are no part of what a write says.
const UNSAID: &[&str] = &["lastTransitionTime", "resourceVersion"];
/// How long the first refusal is waited out: shorter than the pause after which a plan
/// with failures is made again, so that that plan finds it free.
const HOLD: Duration = Duration::from_millis(250);
/// The longest wait, and that of an outdated write that nothing newer comes for: an object that an operator has made room for is written within it.
const HOLD_MAX: Duration = Duration::from_secs(15);
/// How many races for one object are lost in a row before newer versions of it wait, too.
const RACES_MAX: u32 = 3;

#[cfg(test)]
mod tests {
    use isthmus_runtime::clock;
    use serde_json::json;

    use super::*;

    fn status(name: &str, message: &str, time: &str) -> Action {
        let id = ObjectId {
            api_version: "v1".to_owned(),
            kind: "Gateway".to_owned(),
            namespace: "a".to_owned(),
            name: name.to_owned(),
        };
        let body = json!({"status": {"conditions": [
            {"message": message, "lastTransitionTime": time},
        ]}});
        Action::ApplyStatus { id, body }
    }

    fn failure(action: &Action) -> Refusal {
        let id = action.id().clone();
        Refusal::Failed(Failure { id, message: "no".to_owned(), is_temporary: false })
    }

    fn planned_on(mut action: Action, version: u32) -> Action {
        if let Action::ApplyStatus { body, .. } = &mut action {
            body["metadata"] = json!({ "resourceVersion": version.to_string() });
        }
        action
    }

    #[test]
    fn a_write_that_fails_waits_longer_each_time_up_to_a_bound() {
        let (mut held, mut now) = (Held::default(), clock::now());
        let action = status("edge", "m", "t1");
        for want in [250, 500, 1000, 2000, 4000, 8000, 15_000, 15_000] {
            assert_eq!(held.refusal_of(now, &action), None);
            held.handle(now, &action, Some(failure(&action)));
            // Another moment is the same write.
            let later = status("edge", "m", "t2");
            let last = now + Duration::from_millis(want - 1);
            assert_eq!(held.refusal_of(last, &later), Some(&failure(&action)), "{want}");
            now += Duration::from_millis(want);
        }
    }

    #[test]
    fn another_write_of_the_object_is_sent_at_once_and_so_are_those_of_others() {
        let (mut held, now) = (Held::default(), clock::now());
        let action = status("edge", "m", "t");
        held.handle(now, &action, Some(failure(&action)));
        assert!(held.refusal_of(now, &action).is_some());
        assert_eq!(held.refusal_of(now, &status("edge", "mended", "t")), None);
        assert_eq!(held.refusal_of(now, &status("other", "m", "t")), None);
        let delete = Action::Delete { id: action.id().clone(), uid: "u".to_owned() };
        assert_eq!(held.refusal_of(now, &delete), None);
    }

    #[test]
    fn a_failed_write_waits_also_when_somebody_else_has_written_the_object() {
        let (mut held, now) = (Held::default(), clock::now());
        let at = |version| planned_on(status("edge", "m", "t"), version);
        held.handle(now, &at(1), Some(failure(&at(1))));
        assert_eq!(held.refusal_of(now, &at(2)), Some(&failure(&at(1))));
    }

    #[test]
    fn an_outdated_write_waits_for_a_newer_version_and_that_is_sent_at_once() {
        let (mut held, now) = (Held::default(), clock::now());
        let at = |version, message| planned_on(status("edge", message, "t"), version);
        held.handle(now, &at(1, "m"), Some(Refusal::Outdated));
        assert_eq!(held.refusal_of(now, &at(1, "m")), Some(&Refusal::Outdated));
        assert_eq!(held.refusal_of(now, &at(1, "other")), Some(&Refusal::Outdated));
        assert_eq!(held.refusal_of(now, &at(2, "m")), None);
        held.handle(now, &at(2, "m"), None);
        assert_eq!(held.refusal_of(now, &at(2, "m")), None);
    }

    #[test]
    fn a_race_that_is_lost_again_and_again_is_run_less_often() {
        let (mut held, mut now) = (Held::default(), clock::now());
        let at = |version| planned_on(status("edge", "m", "t"), version);
        for version in 0..=RACES_MAX {
            assert_eq!(held.refusal_of(now, &at(version)), None, "{version}");
            held.handle(now, &at(version), Some(Refusal::Outdated));
        }
        assert_eq!(held.refusal_of(now, &at(100)), Some(&Refusal::Outdated));
        now += HOLD;
        assert_eq!(held.refusal_of(now, &at(101)), None);
        held.handle(now, &at(101), None);
        held.handle(now, &at(102), Some(Refusal::Outdated));
        assert_eq!(held.refusal_of(now, &at(103)), None, "and one that was won is forgotten");
    }

    #[test]
    fn what_is_written_or_no_longer_planned_is_forgotten() {
        let (mut held, now) = (Held::default(), clock::now());
        let (one, other) = (status("one", "m", "t"), status("other", "m", "t"));
        for action in [&one, &other] {
            held.handle(now, action, Some(failure(action)));
        }
        held.handle(now, &one, None);
        assert_eq!(held.refusal_of(now, &one), None);
        held.keep(std::slice::from_ref(&one));
        assert_eq!(held.writes.len(), 0);
    }
}
