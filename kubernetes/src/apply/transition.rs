//! Times of conditions: a time changes only with the condition's status. Pure.

use serde_json::Value;

/// Gives every condition in `desired` its `lastTransitionTime`.
///
/// Lists of listeners, parents and ancestors are matched by name or by what they refer to, so
/// that a listener that comes or goes does not touch the others' times.
pub(super) fn carry(desired: &mut Value, observed: &Value, now: &str) {
    match desired {
        Value::Object(fields) => {
            for (key, value) in fields {
                let before = observed.get(key).unwrap_or(&Value::Null);
                if key == "conditions" {
                    conditions(value, before, now);
                } else {
                    carry(value, before, now);
                }
            }
        }
        Value::Array(entries) => {
            for entry in entries {
                let before = counterpart(entry, observed);
                carry(entry, before, now);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Whether [`carry`] would give every condition the time of an observed one.
pub(super) fn is_carried(desired: &Value, observed: &Value) -> bool {
    match desired {
        Value::Object(fields) => fields.iter().all(|(key, value)| {
            let before = observed.get(key).unwrap_or(&Value::Null);
            if key == "conditions" {
                let mut all = value.as_array().into_iter().flatten();
                all.all(|condition| time(condition, before).is_some())
            } else {
                is_carried(value, before)
            }
        }),
        Value::Array(entries) => {
            entries.iter().all(|entry| is_carried(entry, counterpart(entry, observed)))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
    }
}

fn conditions(desired: &mut Value, observed: &Value, now: &str) {
    for condition in desired.as_array_mut().into_iter().flatten() {
        let time = time(condition, observed).cloned();
        if let Some(fields) = condition.as_object_mut() {
            let time = time.unwrap_or_else(|| Value::from(now));
            fields.insert("lastTransitionTime".to_owned(), time);
        }
    }
}

/// The time of the observed condition that says the same.
fn time<'o>(condition: &Value, observed: &'o Value) -> Option<&'o Value> {
    let before = observed.as_array().into_iter().flatten().find(|before| {
        before.get("type") == condition.get("type")
            && before.get("status") == condition.get("status")
    });
    before?.get("lastTransitionTime")
}

/// The observed entry of what a desired one is of; null when there is none.
fn counterpart<'o>(entry: &Value, observed: &'o Value) -> &'o Value {
    let before = observed.as_array().into_iter().flatten();
    before.into_iter().find(|before| is_same(entry, before)).unwrap_or(&Value::Null)
}

fn is_same(entry: &Value, before: &Value) -> bool {
    entry.get("name") == before.get("name")
        && entry.get("controllerName") == before.get("controllerName")
        && REFERENCES.iter().all(|reference| is_same_reference(reference, entry, before))
}

/// Whether two entries name the same parent or ancestor, or both name none.
fn is_same_reference(reference: &str, entry: &Value, before: &Value) -> bool {
    let (entry, before) = match (entry.get(reference), before.get(reference)) {
        (None, None) => return true,
        (Some(entry), Some(before)) => (entry, before),
        (None, Some(_)) | (Some(_), None) => return false,
    };
    // A Gateway and a ListenerSet may have one name; the server fills in the kind and
    // group of a Gateway.
    let with_default = |value: &Value, (field, default): (&str, &str)| {
        value.get(field).and_then(Value::as_str).unwrap_or(default).to_owned()
    };
    let fields = ["namespace", "name", "sectionName", "port"];
    fields.iter().all(|field| entry.get(field) == before.get(field))
        && DEFAULTS
            .iter()
            .all(|default| with_default(entry, *default) == with_default(before, *default))
}

/// The fields by which entries of routes' and policies' statuses are told apart.
const REFERENCES: &[&str] = &["parentRef", "ancestorRef"];
/// Spec: Gateway API `ParentReference`.
const DEFAULTS: &[(&str, &str)] = &[("group", "gateway.networking.k8s.io"), ("kind", "Gateway")];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(list: &str, reference: Value, time: Option<&str>) -> Value {
        let mut condition = json!({"type": "Accepted", "status": "True"});
        if let Some(time) = time {
            condition["lastTransitionTime"] = json!(time);
        }
        json!({list: reference, "controllerName": "c", "conditions": [condition]})
    }

    #[test]
    fn parents_and_ancestors_of_one_name_and_different_kinds_keep_their_own_times() {
        for reference in REFERENCES {
            let kind = |kind: &str| json!({"kind": kind, "name": "edge"});
            let before = json!([
                entry(reference, kind("ListenerSet"), Some("t1")),
                entry(reference, kind("Gateway"), Some("t2")),
            ]);
            let mut desired = json!([
                entry(reference, json!({"name": "edge"}), None),
                entry(reference, kind("ListenerSet"), None),
                entry(reference, json!({"name": "other"}), None),
            ]);
            carry(&mut desired, &before, "now");
            let time = |at: usize| desired[at]["conditions"][0]["lastTransitionTime"].clone();
            assert_eq!([time(0), time(1), time(2)], ["t2", "t1", "now"]);
        }
    }
}
