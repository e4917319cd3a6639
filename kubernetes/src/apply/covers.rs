//! Whether an observed value holds everything that is desired. Pure.
//!
//! The server adds defaults to what was written, and others add entries to lists that
//! are merged by a key, so equality would write for ever. Fields that are desired must
//! be as desired; what is beside them does not matter, except in lists that belong to
//! one writer. Quantities are compared by what they mean: the server writes `0.5` as `500m`.

mod quantity;

use serde_json::Value;

use crate::apply::covers::quantity::Quantity;

/// How lists of objects are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lists {
    /// Entries of others may stand between ours.
    Merged,
    /// The list is ours; only top-level conditions are shared.
    Whole,
}

/// Whether `observed` holds all of `desired`.
pub(super) fn covers(desired: &Value, observed: &Value, lists: Lists) -> bool {
    value(desired, observed, lists, true)
}

fn value(desired: &Value, observed: &Value, lists: Lists, is_top: bool) -> bool {
    match (desired, observed) {
        (Value::Object(desired), Value::Object(observed)) => {
            desired.iter().all(|(key, wanted)| {
                let is_shared = is_top && key == "conditions";
                match observed.get(key) {
                    Some(found) if QUANTITIES.contains(&key.as_str()) => quantities(wanted, found),
                    Some(found) if is_shared => value(wanted, found, Lists::Merged, false),
                    Some(found) => value(wanted, found, lists, false),
                    // An absent field and an empty one are the same to the server.
                    None => is_empty(wanted),
                }
            })
        }
        (Value::Object(desired), Value::Null) => desired.values().all(is_empty),
        (Value::Array(desired), Value::Array(observed)) => list(desired, observed, lists),
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (desired, observed) => desired == observed || (is_empty(desired) && observed.is_null()),
    }
}

fn list(desired: &[Value], observed: &[Value], lists: Lists) -> bool {
    let is_same_length = desired.len() == observed.len();
    let has_keys = !desired.is_empty() && desired.iter().all(|entry| key(entry).is_some());
    if !has_keys || (is_same_length && lists == Lists::Whole) {
        let pairs = || desired.iter().zip(observed);
        return is_same_length && pairs().all(|(a, b)| value(a, b, lists, false));
    }
    // An entry may have no unique key (two ports of one name and two protocols), so any
    // observed entry that covers it will do.
    lists == Lists::Merged
        && desired.iter().all(|wanted| {
            observed
                .iter()
                .any(|found| key(found) == key(wanted) && value(wanted, found, lists, false))
        })
}

/// Maps of quantities; where a text is none, the texts are compared.
fn quantities(desired: &Value, observed: &Value) -> bool {
    let (Value::Object(desired), Value::Object(observed)) = (desired, observed) else {
        return desired == observed || (is_empty(desired) && is_empty(observed));
    };
    desired.iter().all(|(name, wanted)| {
        let Some(found) = observed.get(name) else { return is_empty(wanted) };
        let meant = (Quantity::of(wanted), Quantity::of(found));
        wanted == found || matches!(meant, (Some(wanted), Some(found)) if wanted == found)
    })
}

/// The field by which the server merges lists of this shape, in the usual APIs.
fn key(entry: &Value) -> Option<&Value> {
    MERGE_KEYS.iter().find_map(|key| entry.get(key))
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.values().all(is_empty),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// Fields that are maps of quantities.
///
/// Spec: Kubernetes `ResourceRequirements`.
const QUANTITIES: &[&str] = &["limits", "requests"];
/// Spec: `x-kubernetes-list-map-keys` of Service, Deployment, Pod and conditions.
const MERGE_KEYS: &[&str] =
    &["name", "type", "containerPort", "port", "mountPath", "key", "uid", "topologyKey", "ip"];
