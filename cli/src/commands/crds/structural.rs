//! JSON Schema to the structural schemas of the API server.
//!
//! Spec: Kubernetes "Specifying a structural schema".

use serde_json::{Map, Value, json};

/// The structural schema that says the same.
pub(super) fn structural(mut schema: Value) -> Value {
    tidy(&mut schema);
    schema
}

fn tidy(schema: &mut Value) {
    let Value::Object(fields) = schema else { return };
    let is_either = fields.contains_key("x-kubernetes-int-or-string");
    if !is_either {
        take_option(fields);
        take_words(fields);
    }
    for keyword in ["$schema", "title", "format"] {
        fields.remove(keyword);
    }
    // Unknown fields are pruned, and named by `kubectl apply --validate`.
    if fields.get("additionalProperties") == Some(&Value::Bool(false)) {
        fields.remove("additionalProperties");
    }
    // An object that may have anything.
    if fields.get("additionalProperties") == Some(&Value::Bool(true)) {
        fields.remove("additionalProperties");
        fields.insert("x-kubernetes-preserve-unknown-fields".to_owned(), json!(true));
    }
    // An empty list or map says what its absence says, and would be written into objects.
    let nothing = [Value::Null, json!({}), json!([])];
    if fields.get("default").is_some_and(|default| nothing.contains(default)) {
        fields.remove("default");
    }
    if let Some(Value::String(text)) = fields.get_mut("description") {
        *text =
            text.split("\n\n").map(|part| part.replace('\n', " ")).collect::<Vec<_>>().join("\n");
    }
    if let Some(Value::Object(properties)) = fields.get_mut("properties") {
        properties.values_mut().for_each(tidy);
    }
    for keyword in ["items", "additionalProperties"] {
        if let Some(inner) = fields.get_mut(keyword) {
            tidy(inner);
        }
    }
}

/// What may be null may be absent, which `required` says.
fn take_option(fields: &mut Map<String, Value>) {
    if let Some(Value::Array(types)) = fields.get("type") {
        let first = types.iter().find(|kind| *kind != "null").cloned();
        fields.insert("type".to_owned(), first.unwrap_or_else(|| json!("string")));
    }
    let Some(Value::Array(choices)) = fields.get("anyOf") else { return };
    let Some(Value::Object(inner)) =
        choices.iter().find(|choice| choice["type"] != "null").cloned()
    else {
        return;
    };
    fields.remove("anyOf");
    for (key, value) in inner {
        // The description of the field says more than that of its type.
        fields.entry(key).or_insert(value);
    }
}

/// An enum of words, each with its meaning, becomes a list of words; the meanings go to
/// the description.
fn take_words(fields: &mut Map<String, Value>) {
    let Some(Value::Array(choices)) = fields.remove("oneOf") else { return };
    let mut words = Vec::new();
    let mut meanings = String::new();
    for choice in &choices {
        let of_choice = match (&choice["const"], &choice["enum"]) {
            (Value::String(word), _) => vec![json!(word)],
            (_, Value::Array(list)) => list.clone(),
            (_, _) => Vec::new(),
        };
        if let (Some(Value::String(word)), Some(meaning)) =
            (of_choice.first(), choice["description"].as_str())
        {
            meanings.push_str(&format!("\n\n{word}: {meaning}"));
        }
        words.extend(of_choice);
    }
    fields.insert("type".to_owned(), json!("string"));
    fields.insert("enum".to_owned(), json!(words));
    let description = fields.get("description").and_then(Value::as_str).unwrap_or_default();
    let description = format!("{description}{meanings}");
    fields.insert("description".to_owned(), json!(description));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_fields_that_may_be_absent() {
        let schema = json!({ "type": ["integer", "null"], "format": "uint16", "default": null });
        assert_eq!(structural(schema), json!({ "type": "integer" }));
        let schema = json!({
            "description": "The field.",
            "anyOf": [{ "type": "object", "description": "Its type." }, { "type": "null" }],
        });
        assert_eq!(structural(schema), json!({ "description": "The field.", "type": "object" }));
    }

    #[test]
    fn words_are_listed_and_their_meanings_stay() {
        let schema = json!({
            "description": "How.",
            "oneOf": [
                { "const": "A", "type": "string", "description": "One way." },
                { "enum": ["B", "C"], "type": "string" },
            ],
        });
        let want = json!({
            "description": "How.\nA: One way.", "type": "string", "enum": ["A", "B", "C"],
        });
        assert_eq!(structural(schema), want);
    }

    #[test]
    fn objects_with_anything_keep_it_and_closed_ones_say_nothing() {
        let open = json!({ "type": "object", "additionalProperties": true });
        let want = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
        assert_eq!(structural(open), want);
        let closed = json!({ "type": "object", "additionalProperties": false });
        assert_eq!(structural(closed), json!({ "type": "object" }));
    }
}
