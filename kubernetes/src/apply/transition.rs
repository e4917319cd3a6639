//! Times of conditions: a time changes only with the condition's status. Pure.

use serde_json::Value;

/// Gives every condition in `desired` its `lastTransitionTime`.
///
/// Lists of listeners and of parents are matched by name or by parent and controller, so
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
                let before = observed.as_array().into_iter().flatten();
                let same = before.into_iter().find(|before| is_same(entry, before));
                carry(entry, same.unwrap_or(&Value::Null), now);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn conditions(desired: &mut Value, observed: &Value, now: &str) {
    for condition in desired.as_array_mut().into_iter().flatten() {
        let before = observed.as_array().into_iter().flatten().find(|before| {
            before.get("type") == condition.get("type")
                && before.get("status") == condition.get("status")
        });
        let time = before.and_then(|before| before.get("lastTransitionTime")).cloned();
        if let Some(fields) = condition.as_object_mut() {
            let time = time.unwrap_or_else(|| Value::from(now));
            fields.insert("lastTransitionTime".to_owned(), time);
        }
    }
}

fn is_same(entry: &Value, before: &Value) -> bool {
    let parent = |value: &Value, field: &str| {
        let pointer = format!("/parentRef/{field}");
        value.pointer(&pointer).cloned().unwrap_or_default()
    };
    // The server fills in group and kind of a parent, so they are not compared.
    let is_same_parent = ["namespace", "name", "sectionName", "port"]
        .iter()
        .all(|field| parent(entry, field) == parent(before, field));
    entry.get("name") == before.get("name")
        && entry.get("controllerName") == before.get("controllerName")
        && is_same_parent
}
