//! Writes that have failed and wait before they are sent again. Pure.
//!
//! What is held is one write to one object: another text for the same object is sent at
//! once, since it may be the mended one. Times of conditions are no part of the text;
//! they are new in every plan of a status that was never written.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::apply::execute::Failure;
use crate::apply::{Action, ObjectId};

/// Writes that have failed, by object and form of the write.
#[derive(Debug, Clone, Default)]
pub(super) struct Held {
    writes: BTreeMap<(ObjectId, Form), Write>,
}

#[derive(Debug, Clone)]
struct Write {
    text: u64,
    until: Instant,
    failures: u32,
    last: Failure,
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
    pub(super) fn failure_of(&self, now: Instant, action: &Action) -> Option<&Failure> {
        if self.writes.is_empty() {
            return None;
        }
        let held = self.writes.get(&(action.id().clone(), form(action)))?;
        (now < held.until && held.text == text(action)).then_some(&held.last)
    }

    /// What has become of a write.
    pub(super) fn handle(&mut self, now: Instant, action: &Action, failure: Option<&Failure>) {
        let Some(failure) = failure else {
            if !self.writes.is_empty() {
                self.writes.remove(&(action.id().clone(), form(action)));
            }
            return;
        };
        let (key, text) = ((action.id().clone(), form(action)), text(action));
        let before = self.writes.get(&key).filter(|held| held.text == text);
        let failures = before.map_or(0, |held| held.failures).saturating_add(1);
        let wait = HOLD.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(HOLD_MAX);
        let held = Write { text, until: now + wait, failures, last: failure.clone() };
        self.writes.insert(key, held);
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
            for (key, value) in fields.iter().filter(|(key, _)| *key != TIME) {
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

const TIME: &str = "lastTransitionTime";
/// How long the first failure is waited out: shorter than the pause after which a plan
/// with failures is made again, so that that plan finds it free.
const HOLD: Duration = Duration::from_millis(250);
/// The longest wait: an object that an operator has made room for is written within it.
const HOLD_MAX: Duration = Duration::from_secs(15);

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

    fn failure(action: &Action) -> Failure {
        Failure { id: action.id().clone(), message: "no".to_owned(), is_temporary: false }
    }

    #[test]
    fn a_write_that_fails_waits_longer_each_time_up_to_a_bound() {
        let (mut held, mut now) = (Held::default(), clock::now());
        let action = status("edge", "m", "t1");
        for want in [250, 500, 1000, 2000, 4000, 8000, 15_000, 15_000] {
            assert_eq!(held.failure_of(now, &action), None);
            held.handle(now, &action, Some(&failure(&action)));
            // Another moment is the same write.
            let later = status("edge", "m", "t2");
            let last = now + Duration::from_millis(want - 1);
            assert_eq!(held.failure_of(last, &later), Some(&failure(&action)), "{want}");
            now += Duration::from_millis(want);
        }
    }

    #[test]
    fn another_write_of_the_object_is_sent_at_once_and_so_are_those_of_others() {
        let (mut held, now) = (Held::default(), clock::now());
        let action = status("edge", "m", "t");
        held.handle(now, &action, Some(&failure(&action)));
        assert!(held.failure_of(now, &action).is_some());
        assert_eq!(held.failure_of(now, &status("edge", "mended", "t")), None);
        assert_eq!(held.failure_of(now, &status("other", "m", "t")), None);
        let delete = Action::Delete { id: action.id().clone(), uid: "u".to_owned() };
        assert_eq!(held.failure_of(now, &delete), None);
    }

    #[test]
    fn what_is_written_or_no_longer_planned_is_forgotten() {
        let (mut held, now) = (Held::default(), clock::now());
        let (one, other) = (status("one", "m", "t"), status("other", "m", "t"));
        for action in [&one, &other] {
            held.handle(now, action, Some(&failure(action)));
        }
        held.handle(now, &one, None);
        assert_eq!(held.failure_of(now, &one), None);
        held.keep(std::slice::from_ref(&one));
        assert_eq!(held.writes.len(), 0);
    }
}
