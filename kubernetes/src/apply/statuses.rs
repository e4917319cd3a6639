//! Which statuses are to be written. Pure.
//!
//! Most statuses of a cluster are as they should be, and were so a moment ago. So a status
//! is compared as it is, without the times of its conditions; it is copied and gets them
//! only when it is written. And a [`StatusPlanner`] passes over what it has found to be as
//! it should be for as long as neither the desired nor the observed value is another one.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde_json::{Value, json};

use crate::apply::covers::{Lists, covers};
use crate::apply::{
    Action, Name, ObjectId, Plan, PlanError, VERSION, group, is_ending, text, transition,
};

/// The status that an object should have, and the object.
///
/// Two are equal when they are of the same values, by the pointers alone: whoever holds one
/// knows that its pointers are of nothing else meanwhile.
#[derive(Debug, Clone)]
pub struct StatusPair {
    /// The names of the object, and `status`.
    pub desired: Arc<Value>,
    /// The object as the server has it.
    pub observed: Arc<Value>,
}

impl PartialEq for StatusPair {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.desired, &other.desired) && Arc::ptr_eq(&self.observed, &other.observed)
    }
}

impl Eq for StatusPair {}

impl Hash for StatusPair {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.desired).hash(state);
        Arc::as_ptr(&self.observed).hash(state);
    }
}

/// Plans one state of statuses after the other.
///
/// A plan depends on its arguments alone and never on those before, which decide only what
/// has to be compared.
#[derive(Debug)]
pub struct StatusPlanner {
    own_conditions: &'static [&'static str],
    /// The pairs of the last state that were as they should be; so they are as many as
    /// there are objects, at most.
    current: HashSet<StatusPair>,
}

impl StatusPlanner {
    /// A planner without a past. `own_conditions` as for [`plan_status`].
    pub fn new(own_conditions: &'static [&'static str]) -> Self {
        Self { own_conditions, current: HashSet::new() }
    }

    /// Plans the statuses of a state, as [`plan_status`] does.
    ///
    /// # Errors
    ///
    /// [`PlanError`] when a status that is to be written has no `apiVersion`, `kind` or
    /// name.
    pub fn plan(&mut self, pairs: &[StatusPair], now: &str) -> Result<Plan, PlanError> {
        let before = std::mem::take(&mut self.current);
        self.current.reserve(pairs.len());
        let mut plan = Plan::default();
        for pair in pairs {
            let outcome = if before.contains(pair) {
                Outcome::Current
            } else {
                outcome(&pair.desired, &pair.observed, self.own_conditions)
            };
            match outcome {
                Outcome::Current => {
                    plan.unchanged += 1;
                    self.current.insert(pair.clone());
                }
                Outcome::Different => {
                    let id = ObjectId::of(&pair.desired)?;
                    plan.actions.push(write(id, &pair.desired, &pair.observed, now));
                }
                Outcome::Ending => {}
            }
        }
        Ok(plan)
    }
}

/// Plans the status of objects that others own.
///
/// Each desired value has the names of the object and `status`; its conditions need no
/// `lastTransitionTime`: it is taken from the observed condition while the condition's
/// status is the same, and is `now` (RFC 3339) otherwise. `own_conditions` are the types
/// of top-level conditions that we write, so that one that is no longer desired is taken
/// away and those of others are left. An object that is not observed, or is being
/// deleted, is passed over. A write carries the `resourceVersion` of the observed object,
/// if that has one, and is good for that version alone.
///
/// # Errors
///
/// [`PlanError`] when a desired object has no `apiVersion`, `kind` or name.
pub fn plan_status<'v>(
    desired: &[Value],
    observed: impl IntoIterator<Item = &'v Value>,
    own_conditions: &[&str],
    now: &str,
) -> Result<Plan, PlanError> {
    let mut plan = Plan::default();
    if desired.is_empty() {
        return Ok(plan);
    }
    let ids = desired.iter().map(ObjectId::of).collect::<Result<Vec<_>, _>>()?;
    // Most objects of a cluster are of kinds whose status is not ours.
    let kinds: BTreeSet<&str> = ids.iter().map(|id| &*id.kind).collect();
    let observed = observed.into_iter();
    let observed = observed.filter(|it| text(it, "kind").is_some_and(|kind| kinds.contains(kind)));
    // Only looked up, never walked.
    let known: HashMap<Name<'_>, &Value> =
        observed.filter_map(|object| Some((name(object)?, object))).collect();
    for (id, object) in ids.iter().zip(desired) {
        let Some(current) = known.get(&id.object()) else { continue };
        match outcome(object, current, own_conditions) {
            Outcome::Current => plan.unchanged += 1,
            Outcome::Different => plan.actions.push(write(id.clone(), object, current, now)),
            Outcome::Ending => {}
        }
    }
    Ok(plan)
}

/// How a status compares.
enum Outcome {
    /// It is as it should be.
    Current,
    /// It is to be written.
    Different,
    /// Its object is being deleted.
    Ending,
}

fn outcome(desired: &Value, observed: &Value, own_conditions: &[&str]) -> Outcome {
    if is_ending(observed) {
        return Outcome::Ending;
    }
    let before = observed.get("status").unwrap_or(&Value::Null);
    let none = json!({});
    let status = desired.get("status").unwrap_or(&none);
    let is_current = covers(status, before, Lists::Whole)
        && transition::is_carried(status, before)
        && !has_stale_condition(status, before, own_conditions);
    if is_current { Outcome::Current } else { Outcome::Different }
}

fn write(id: ObjectId, desired: &Value, observed: &Value, now: &str) -> Action {
    let mut status = desired.get("status").cloned().unwrap_or_else(|| json!({}));
    transition::carry(&mut status, observed.get("status").unwrap_or(&Value::Null), now);
    let mut metadata = json!({ "name": id.name });
    if !id.namespace.is_empty() {
        metadata["namespace"] = json!(id.namespace);
    }
    if let Some(version) = observed.pointer(VERSION).filter(|version| version.is_string()) {
        metadata["resourceVersion"] = version.clone();
    }
    let body = json!({
        "apiVersion": id.api_version, "kind": id.kind, "metadata": metadata, "status": status,
    });
    Action::ApplyStatus { id, body }
}

/// The name of an object that has one.
pub(crate) fn name(object: &Value) -> Option<Name<'_>> {
    let metadata = object.get("metadata")?;
    let namespace = text(metadata, "namespace").unwrap_or_default();
    let group = group(text(object, "apiVersion")?);
    Some((group, text(object, "kind")?, namespace, text(metadata, "name")?))
}

fn has_stale_condition(desired: &Value, observed: &Value, own: &[&str]) -> bool {
    let types = |status: &Value| -> BTreeSet<String> {
        let conditions = status.get("conditions").and_then(Value::as_array).into_iter().flatten();
        conditions.filter_map(|c| Some(c.get("type")?.as_str()?.to_owned())).collect()
    };
    let desired = types(desired);
    types(observed).iter().any(|kind| own.contains(&kind.as_str()) && !desired.contains(kind))
}

#[cfg(test)]
mod tests;
