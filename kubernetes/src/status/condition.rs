//! Conditions in the form in which a status has them.

use isthmus_config::ObjectCondition;
use serde_json::{Value, json};

/// One condition, without its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) kind: &'static str,
    pub(super) status: bool,
    pub(super) reason: &'static str,
    pub(super) message: String,
    /// The generation of the object that it is said of.
    pub(super) generation: i64,
}

impl Condition {
    /// Says that something is so, with the type as the reason.
    pub(super) fn yes(kind: &'static str, generation: i64) -> Self {
        Self { kind, status: true, reason: kind, message: String::new(), generation }
    }

    /// Says that something is not so, and why.
    pub(super) fn no(
        kind: &'static str,
        reason: &'static str,
        message: impl Into<String>,
        generation: i64,
    ) -> Self {
        Self { kind, status: false, reason, message: message.into(), generation }
    }

    /// Whether that is what the translation says.
    pub(super) fn says(&self, condition: &ObjectCondition) -> bool {
        self.kind == condition.condition.label()
            && self.status == condition.status
            && self.reason == condition.reason
            && self.message == condition.message
            && self.generation == condition.observed_generation
    }

    fn to_value(&self) -> Value {
        json!({
            "type": self.kind,
            "status": if self.status { "True" } else { "False" },
            "reason": self.reason,
            "message": cut(&self.message),
            "observedGeneration": self.generation,
        })
    }
}

impl From<&ObjectCondition> for Condition {
    fn from(condition: &ObjectCondition) -> Self {
        Self {
            kind: condition.condition.label(),
            status: condition.status,
            reason: condition.reason,
            message: condition.message.clone(),
            generation: condition.observed_generation,
        }
    }
}

/// The list in a status: each type once, the first that is said of it, ordered by type
/// so that equal states have equal text.
pub(super) fn list(conditions: impl IntoIterator<Item = Condition>) -> Value {
    let mut all: Vec<Condition> = Vec::new();
    for condition in conditions {
        if !all.iter().any(|known| known.kind == condition.kind) {
            all.push(condition);
        }
    }
    all.truncate(CONDITIONS_MAX);
    all.sort_by_key(|condition| condition.kind);
    all.iter().map(Condition::to_value).collect()
}

/// The message, cut to what the server takes.
fn cut(message: &str) -> &str {
    let mut end = message.len().min(MESSAGE_BYTES_MAX);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    &message[..end]
}

/// Spec: `maxLength` of `metav1.Condition.message`.
const MESSAGE_BYTES_MAX: usize = 32_768;
/// Spec: `maxItems` of every list of conditions of Gateway API.
const CONDITIONS_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_cut_at_a_character() {
        let long = format!("a{}", "é".repeat(MESSAGE_BYTES_MAX));
        let value = Condition::no("Accepted", "Invalid", long, 1).to_value();
        let text = value["message"].as_str().unwrap();
        assert_eq!(text.len(), MESSAGE_BYTES_MAX - 1);
    }

    #[test]
    fn a_type_is_said_once_and_the_first_counts() {
        let conditions =
            [Condition::no("Accepted", "Invalid", "x", 2), Condition::yes("Accepted", 1)];
        let value = list(conditions);
        assert_eq!(value.as_array().map(Vec::len), Some(1));
        assert_eq!(value[0]["status"], "False");
    }
}
