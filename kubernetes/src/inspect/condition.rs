//! Conditions as they stand in the status of an object of whatever kind. Pure.
//!
//! Gateway API, MCS and our own kinds write conditions of one form at four places:
//! `status.conditions`, `status.listeners[]`, `status.parents[]` and
//! `status.ancestors[]`. What another controller writes there is none of our business.

use std::fmt;

use isthmus_config::CONTROLLER_NAME;
use serde_json::Value;

/// A condition of an object's status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawCondition {
    /// Which part of the status has it, as in `listener https`; empty is the object.
    pub part: String,
    /// Its `type`.
    pub kind: String,
    /// Its `status`.
    pub status: RawStatus,
    /// Its `reason`.
    pub reason: String,
    /// Its `message`.
    pub message: String,
    /// Its `observedGeneration`; 0 when it has none.
    pub observed_generation: i64,
}

/// The status of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RawStatus {
    /// `False`.
    False,
    /// `True`.
    True,
    /// `Unknown`, or what is none of the three.
    Unknown,
}

impl RawCondition {
    /// Whether the condition says that something does not work, for every type that the
    /// APIs we serve define. `Unknown` is no problem: nobody has looked yet.
    pub fn is_problem(&self) -> bool {
        match self.status {
            // Spec: Gateway API and KEP-1645; these are bad when true.
            RawStatus::True => BAD_WHEN_TRUE.contains(&self.kind.as_str()),
            RawStatus::False => GOOD_WHEN_TRUE.contains(&self.kind.as_str()),
            RawStatus::Unknown => false,
        }
    }

    /// Whether what it says is only that something has not come yet.
    pub fn is_pending(&self) -> bool {
        self.status == RawStatus::Unknown || self.reason == "Pending"
    }
}

impl fmt::Display for RawCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.part.is_empty() {
            write!(f, "{}: ", self.part)?;
        }
        let status = match self.status {
            RawStatus::False => "False",
            RawStatus::True => "True",
            RawStatus::Unknown => "Unknown",
        };
        write!(f, "{} is {status}: {}", self.kind, self.reason)?;
        if self.message.is_empty() { Ok(()) } else { write!(f, ": {}", self.message) }
    }
}

/// The conditions in a status; in `parents` and `ancestors`, those that we wrote.
pub fn conditions(status: &Value) -> Vec<RawCondition> {
    let mut found = Vec::new();
    collect(status, "", &mut found);
    for listener in list(status, "listeners") {
        collect(listener, &format!("listener {}", text(listener, "name")), &mut found);
    }
    for (field, reference) in [("parents", "parentRef"), ("ancestors", "ancestorRef")] {
        for entry in list(status, field) {
            if text(entry, "controllerName") == CONTROLLER_NAME {
                collect(entry, &parent(&entry[reference]), &mut found);
            }
        }
    }
    found
}

/// `Gateway infra/web listener https port 443`.
fn parent(reference: &Value) -> String {
    let kind = reference.get("kind").and_then(Value::as_str).unwrap_or("Gateway");
    let mut name = format!("{kind} ");
    if let Some(namespace) = reference.get("namespace").and_then(Value::as_str) {
        name.push_str(&format!("{namespace}/"));
    }
    name.push_str(text(reference, "name"));
    if let Some(section) = reference.get("sectionName").and_then(Value::as_str) {
        name.push_str(&format!(" listener {section}"));
    }
    if let Some(port) = reference.get("port").and_then(Value::as_u64) {
        name.push_str(&format!(" port {port}"));
    }
    name
}

fn collect(entry: &Value, part: &str, found: &mut Vec<RawCondition>) {
    for condition in list(entry, "conditions").take(CONDITIONS_MAX) {
        found.push(RawCondition {
            part: part.to_owned(),
            kind: text(condition, "type").to_owned(),
            status: match text(condition, "status") {
                "True" => RawStatus::True,
                "False" => RawStatus::False,
                _ => RawStatus::Unknown,
            },
            reason: text(condition, "reason").to_owned(),
            message: text(condition, "message").to_owned(),
            observed_generation: condition["observedGeneration"].as_i64().unwrap_or(0),
        });
    }
}

fn list<'v>(value: &'v Value, field: &str) -> impl Iterator<Item = &'v Value> {
    value.get(field).and_then(Value::as_array).into_iter().flatten()
}

fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// Conditions that are read of one list; the APIs allow 8 to 16.
const CONDITIONS_MAX: usize = 32;
const BAD_WHEN_TRUE: &[&str] =
    &["Conflict", "Conflicted", "OverlappingTLSConfig", "PartiallyInvalid"];
const GOOD_WHEN_TRUE: &[&str] =
    &["Accepted", "Connected", "Exported", "Programmed", "Ready", "ResolvedRefs", "Valid"];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn conditions_are_found_at_every_place_and_those_of_others_are_not() {
        let condition =
            json!([{"type": "Accepted", "status": "False", "reason": "R", "message": "m"}]);
        let status = json!({
            "conditions": condition,
            "listeners": [{"name": "https", "conditions": condition}],
            "parents": [
                {"controllerName": CONTROLLER_NAME, "conditions": condition,
                 "parentRef": {"name": "web", "namespace": "infra", "sectionName": "s", "port": 80}},
                {"controllerName": "example.com/other", "conditions": condition},
            ],
            "ancestors": [{"controllerName": CONTROLLER_NAME, "conditions": condition,
                 "ancestorRef": {"name": "web", "kind": "Service"}}],
        });
        let found: Vec<String> = conditions(&status).iter().map(ToString::to_string).collect();
        let want = [
            "Accepted is False: R: m",
            "listener https: Accepted is False: R: m",
            "Gateway infra/web listener s port 80: Accepted is False: R: m",
            "Service web: Accepted is False: R: m",
        ];
        assert_eq!(found, want);
    }

    #[test]
    fn a_type_is_a_problem_as_its_api_means_it() {
        let of = |kind: &str, status: &str| {
            let status = json!({"conditions": [{"type": kind, "status": status}]});
            conditions(&status)[0].is_problem()
        };
        assert!(of("Programmed", "False") && of("Valid", "False") && of("Connected", "False"));
        assert!(of("Conflict", "True") && of("Conflicted", "True"));
        assert!(!of("Programmed", "True") && !of("Conflict", "False"));
        assert!(!of("Accepted", "Unknown") && !of("Foreign", "False") && !of("Foreign", "True"));
    }

    #[test]
    fn whatever_a_status_is_it_can_be_read() {
        for odd in [
            json!(null),
            json!([]),
            json!({"conditions": 3, "listeners": [null, 1], "parents": {}}),
        ] {
            assert!(conditions(&odd).is_empty());
        }
        assert_eq!(conditions(&json!({"conditions": [null]})).len(), 1);
    }
}
