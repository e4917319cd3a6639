//! YAML text to a JSON value, with limits on what a small text may become.
//!
//! The parser has a budget of its own for events, depth and aliases. What it does not
//! count is the text that an alias repeats, so the value is built by a visitor that
//! counts nodes and bytes as they are made: a text of a few hundred bytes cannot become
//! more than [`VALUE_BYTES_MAX`].

use std::cell::RefCell;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::options::DuplicateKeyPolicy;

use crate::error::{FieldError, Reason, printable};

/// Reads one document. Fields that are `null` are left out, as Kubernetes does.
///
/// `first_line` is the line of the file where the text begins, from 1.
pub(crate) fn parse(text: &str, first_line: u64) -> Result<Value, FieldError> {
    let size = RefCell::new(Building::default());
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_documents: 1,
            max_depth: DEPTH_MAX,
            flow_nesting_limit: DEPTH_MAX,
            max_events: 4 * NODES_MAX,
            max_nodes: NODES_MAX,
            max_aliases: ALIASES_MAX,
            max_anchors: ALIASES_MAX,
            max_merge_keys: ALIASES_MAX,
            max_recorded_anchor_events: NODES_MAX,
            max_recorded_anchor_bytes: VALUE_BYTES_MAX,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: NODES_MAX,
        },
        duplicate_keys: DuplicateKeyPolicy::Error,
        // YAML 1.2: `on` and `y` are text, not `true`.
        strict_booleans: true,
        with_snippet: false,
    };
    let parsed =
        serde_saphyr::with_deserializer_from_str_with_options(text, options, |deserializer| {
            Node(&size).deserialize(deserializer)
        });
    parsed.map_err(|error| {
        let line = error.location().map_or(0, |location| location.line());
        let message = printable(&without_location(&error.to_string()));
        let line = first_line + line.saturating_sub(1);
        FieldError::new(size.into_inner().path(), Reason::Yaml { line, message })
    })
}

/// The parser ends its messages with the place in the text that it was given, which is
/// not the place in the file.
fn without_location(message: &str) -> String {
    let message = message.strip_prefix("error: ").unwrap_or(message);
    let at_line = message.find(" at line ").unwrap_or(message.len());
    let line_first = match message.split_once(": ") {
        Some((start, rest)) if start.starts_with("line ") => rest,
        Some(_) | None => &message[..at_line],
    };
    // An advice to programmers, not to the author of the document.
    let text = line_first.split(", set DuplicateKeyPolicy").next().unwrap_or_default();
    text.lines().next().unwrap_or_default().trim_end().to_owned()
}

/// What has been built so far, and where the visitor is.
#[derive(Default)]
struct Building {
    nodes: usize,
    bytes: usize,
    path: Vec<Step>,
}

enum Step {
    Index(usize),
    Key(String),
}

impl Building {
    fn count<E: Error>(&mut self, bytes: usize) -> Result<(), E> {
        self.nodes += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        if self.nodes > NODES_MAX {
            return Err(E::custom(format_args!("the document has more than {NODES_MAX} values")));
        }
        if self.bytes > VALUE_BYTES_MAX {
            let limit = format_args!("the document expands to more than {VALUE_BYTES_MAX} bytes");
            return Err(E::custom(limit));
        }
        Ok(())
    }

    fn path(&self) -> String {
        let mut text = String::new();
        for step in &self.path {
            match step {
                Step::Index(index) => text.push_str(&format!("[{index}]")),
                Step::Key(key) => {
                    if !text.is_empty() {
                        text.push('.');
                    }
                    text.push_str(key);
                }
            }
        }
        printable(&text)
    }
}

#[derive(Clone, Copy)]
struct Node<'b>(&'b RefCell<Building>);

impl Node<'_> {
    fn scalar<E: Error>(self, bytes: usize, value: Value) -> Result<Value, E> {
        self.0.borrow_mut().count(bytes)?;
        Ok(value)
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        self.scalar(0, Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        self.scalar(0, Value::from(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        self.scalar(0, Value::from(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        self.scalar(0, Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        self.scalar(value.len(), Value::String(value.to_owned()))
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        self.scalar(0, Value::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Value, E> {
        self.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        self.0.borrow_mut().count(0)?;
        let mut list = Vec::new();
        loop {
            self.0.borrow_mut().path.push(Step::Index(list.len()));
            let item = items.next_element_seed(self)?;
            self.0.borrow_mut().path.pop();
            match item {
                Some(item) => list.push(item),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        self.0.borrow_mut().count(0)?;
        let mut map = Map::new();
        while let Some(key) = entries.next_key_seed(Key(self.0))? {
            self.0.borrow_mut().path.push(Step::Key(key.clone()));
            let value = entries.next_value_seed(self)?;
            if map.contains_key(&key) {
                return Err(A::Error::custom("the key appears twice"));
            }
            self.0.borrow_mut().path.pop();
            if !value.is_null() {
                map.insert(key, value);
            }
        }
        Ok(Value::Object(map))
    }
}

/// A key: always text, also where YAML reads a number or a boolean.
struct Key<'b>(&'b RefCell<Building>);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        let key = String::deserialize(deserializer)?;
        self.0.borrow_mut().count(key.len())?;
        Ok(key)
    }
}

/// Values that one document may have, those of aliases counted as often as they appear.
const NODES_MAX: usize = 200_000;
/// Bytes of text that one document may become.
const VALUE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Maps and lists inside each other. Real objects have about 15.
const DEPTH_MAX: usize = 48;
/// Anchors and aliases in one document.
const ALIASES_MAX: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> String {
        let error = parse(text, 1).unwrap_err();
        format!("{}: {}", error.field, error.reason)
    }

    #[test]
    fn scalars_have_the_types_that_kubernetes_gives_them() {
        let value =
            parse("a: 1\nb: '1'\nc: true\nn: no\nd: null\n8080: x\ne: [1.5, ~]\n", 1).unwrap();
        let want = r#"{"8080":"x","a":1,"b":"1","c":true,"n":"no","e":[1.5,null]}"#;
        assert_eq!(value, serde_json::from_str::<Value>(want).unwrap());
    }

    #[test]
    fn a_syntax_error_names_the_line_of_the_file() {
        let error = parse("a: 1\nb: [1, 2\nc: 3\n", 11).unwrap_err();
        let Reason::Yaml { line, message } = error.reason else { panic!("{error:?}") };
        assert!((12..=14).contains(&line), "{line} {message}");
        assert!(!message.is_empty() && !message.contains("line "), "{message}");
    }

    #[test]
    fn a_key_that_appears_twice_is_named() {
        let text = message("spec:\n  ports:\n  - port: 1\n    port: 2\n");
        assert!(text.starts_with("spec.ports[0]"), "{text}");
        assert!(text.contains("port"), "{text}");
    }

    #[test]
    fn aliases_cannot_multiply_values() {
        let mut text = String::from("l0: &l0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n");
        for level in 1..9 {
            let before = format!("*l{}, ", level - 1).repeat(9);
            text.push_str(&format!("l{level}: &l{level} [{before}]\n"));
        }
        assert!(parse(&text, 1).is_err());
    }

    #[test]
    fn aliases_cannot_multiply_text() {
        let text = format!("a: &a {}\nb: [{}]\n", "x".repeat(100_000), "*a, ".repeat(90));
        assert!(message(&text).contains("expands to more than"), "{}", message(&text));
        let few = format!("a: &a {}\nb: [{}]\n", "x".repeat(100), "*a, ".repeat(9));
        assert!(parse(&few, 1).is_ok());
    }

    #[test]
    fn depth_is_bounded_in_both_styles() {
        assert!(parse(&format!("a: {}{}", "[".repeat(40), "]".repeat(40)), 1).is_ok());
        assert!(parse(&format!("a: {}{}", "[".repeat(100_000), "]".repeat(100_000)), 1).is_err());
        let block: String = (0..5_000).map(|n| format!("{}a:\n", " ".repeat(n))).collect();
        assert!(parse(&block, 1).is_err());
        let dashes = format!("{}1", "- ".repeat(50_000));
        assert!(parse(&dashes, 1).is_err());
    }
}
