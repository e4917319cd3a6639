//! Events: what a person sees at the end of `kubectl describe`.
//!
//! A condition says what is; an event says that it has changed. So an event is made where
//! a condition turns from good to bad (Warning), has another reason than before (Warning)
//! or turns from bad to good (Normal), and nowhere else: a controller that restarts finds
//! the old conditions in the status and says nothing twice.
//!
//! [`of_plan`] and [`desired`] are pure, so is the [`budget`] that bounds what is said.
//! [`Recorder`] only posts.

pub mod budget;

mod post;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;

use serde_json::Value;

use crate::apply::{self, Action, ObjectId, Plan};
pub use crate::events::post::Recorder;
use crate::inspect::condition::{RawCondition, conditions};

/// An object and the conditions in one of its states.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The object.
    pub id: ObjectId,
    /// Its uid, by which `kubectl describe` finds the events; may be empty.
    pub uid: String,
    /// Its conditions.
    pub conditions: Vec<RawCondition>,
}

/// An event that is to be posted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// The object that it is about.
    pub id: ObjectId,
    /// The object's uid; may be empty.
    pub uid: String,
    /// Whether something broke or was mended.
    pub severity: Severity,
    /// The condition's reason: one word.
    pub reason: String,
    /// The condition's type: what we did when it turned out so.
    pub action: String,
    /// What people read, cut to [`NOTE_BYTES_MAX`].
    pub note: String,
}

/// The type of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Something works again.
    Normal,
    /// Something does not work.
    Warning,
}

impl Severity {
    /// The event's `type`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

impl fmt::Display for Draft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}: {}", self.severity.label(), self.id, self.reason, self.note)
    }
}

/// The events of a plan of statuses: what each write changes in the conditions of the
/// object as it is observed. To be called before the plan is executed; objects are told
/// apart by their names, whatever version they were read in.
pub fn of_plan<'v>(plan: &Plan, observed: impl IntoIterator<Item = &'v Value>) -> Vec<Draft> {
    let statuses = plan.actions.iter().filter_map(|action| match action {
        Action::ApplyStatus { id, body } => Some((id, body)),
        Action::Apply { .. } | Action::Delete { .. } => None,
    });
    let statuses: Vec<(&ObjectId, &Value)> = statuses.collect();
    // Few are written, and many are observed: those are looked for, and no other is named.
    let kinds: BTreeSet<&str> = statuses.iter().map(|(id, _)| id.kind.as_str()).collect();
    let wanted: HashSet<apply::Name<'_>> = statuses.iter().map(|(id, _)| id.object()).collect();
    let is_written = |object: &&Value| {
        object.get("kind").and_then(Value::as_str).is_some_and(|kind| kinds.contains(kind))
    };
    let named = observed.into_iter().filter(is_written);
    let named = named.filter_map(|object| Some((apply::name(object)?, object)));
    // Only looked up, never walked.
    let known: HashMap<_, _> = named.filter(|(name, _)| wanted.contains(name)).collect();
    let mut drafts = Vec::new();
    for (id, body) in statuses {
        let Some(object) = known.get(&id.object()) else { continue };
        let uid = object.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default();
        let subject = |status: &Value| Subject {
            id: id.clone(),
            uid: uid.to_owned(),
            conditions: conditions(status),
        };
        drafts.extend(desired(&subject(&object["status"]), &subject(&body["status"])));
    }
    drafts
}

/// The events of one object that goes from one state to the next.
///
/// A condition that the next state does not have is another writer's, or its part has
/// gone: neither is worth an event. One that only waits (`Unknown`, `Pending`) is no
/// problem yet.
pub fn desired(before: &Subject, after: &Subject) -> Vec<Draft> {
    let mut drafts: Vec<Draft> = Vec::new();
    for now in &after.conditions {
        let same = |old: &&RawCondition| old.part == now.part && old.kind == now.kind;
        let old = before.conditions.iter().find(same);
        let was_bad = old.is_some_and(is_bad);
        let severity = if is_bad(now) {
            let is_news = !was_bad || old.is_some_and(|old| old.reason != now.reason);
            is_news.then_some(Severity::Warning)
        } else {
            (was_bad && !now.is_pending()).then_some(Severity::Normal)
        };
        let Some(severity) = severity else { continue };
        let draft = draft(after, now, severity);
        if !drafts.contains(&draft) {
            drafts.push(draft);
        }
    }
    drafts
}

fn is_bad(condition: &RawCondition) -> bool {
    condition.is_problem() && !condition.is_pending()
}

fn draft(subject: &Subject, condition: &RawCondition, severity: Severity) -> Draft {
    let word = |text: &str, other: &str| {
        let text = if text.is_empty() { other } else { text };
        text.chars().take(WORD_CHARS_MAX).collect::<String>()
    };
    let mut note = String::new();
    if !condition.part.is_empty() {
        note.push_str(&format!("{}: ", condition.part));
    }
    match (severity, condition.message.as_str()) {
        (Severity::Normal, "") => note.push_str(&format!("{} again", condition.kind)),
        (Severity::Normal, message) => note.push_str(message),
        (Severity::Warning, "") => note.push_str(&format!("not {}", condition.kind)),
        (Severity::Warning, message) => note.push_str(message),
    }
    Draft {
        id: subject.id.clone(),
        uid: subject.uid.clone(),
        severity,
        reason: word(&condition.reason, &condition.kind),
        action: word(&condition.kind, "Judge"),
        note: cut(&note),
    }
}

/// The text within the bound of a note, cut between characters.
fn cut(note: &str) -> String {
    if note.len() <= NOTE_BYTES_MAX {
        return note.to_owned();
    }
    let end = (0..=NOTE_BYTES_MAX - ELLIPSIS.len()).rev().find(|at| note.is_char_boundary(*at));
    format!("{}{ELLIPSIS}", &note[..end.unwrap_or(0)])
}

/// Bytes of a note.
///
/// Spec: `events.k8s.io/v1` Event, `note` has at most 1 kB.
pub const NOTE_BYTES_MAX: usize = 1024;
/// Spec: `events.k8s.io/v1` Event, `reason` and `action` have at most 128 characters.
const WORD_CHARS_MAX: usize = 128;
const ELLIPSIS: &str = "...";

#[cfg(test)]
mod tests;
