//! Documents of a file, and what object a document holds.

use std::borrow::Cow;

use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::Segment;

use crate::error::{FieldError, Reason, excerpt, printable};
use crate::kind::{Kind, ObjectRef};

/// One document of a file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Part<'t> {
    /// Its number in the file, from 1.
    pub(crate) number: u32,
    /// The line where it begins, from 1.
    pub(crate) line: u64,
    /// The text, with its own `---` line.
    pub(crate) text: &'t str,
}

/// Splits a file at its document markers, so that a document that cannot be parsed
/// leaves the others alone. Documents of comments only are not counted.
///
/// Spec: YAML 1.2 section 9.1.2: a line that begins with `---` or `...` is a marker
/// wherever it stands, also in a scalar.
pub(crate) fn split(text: &str) -> Vec<Part<'_>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut parts = Vec::new();
    let (mut start, mut start_line, mut at, mut line) = (0, 1, 0, 1);
    let mut close = |from: usize, to: usize, line: u64| {
        let text = &text[from..to];
        if has_content(text) {
            let number = u32::try_from(parts.len() + 1).unwrap_or(u32::MAX);
            parts.push(Part { number, line, text });
        }
    };
    for full in text.split_inclusive('\n') {
        if is_marker(full, "---") {
            close(start, at, start_line);
            (start, start_line) = (at, line);
        } else if is_marker(full, "...") {
            close(start, at, start_line);
            (start, start_line) = (at + full.len(), line + 1);
        }
        at += full.len();
        line += 1;
    }
    close(start, text.len(), start_line);
    parts
}

fn is_marker(line: &str, marker: &str) -> bool {
    line.strip_prefix(marker)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\n', '\r']))
}

fn has_content(text: &str) -> bool {
    text.lines().any(|line| {
        let rest = if is_marker(line, "---") { &line[3..] } else { line };
        let rest = rest.trim();
        !rest.is_empty() && !rest.starts_with('#') && !line.starts_with('%')
    })
}

/// What a value is, before its fields are looked at.
#[derive(Debug, PartialEq)]
pub(crate) enum Identified {
    /// An object of a kind that is read.
    Object { reference: ObjectRef, value: Value },
    /// An object that cannot be named or is of an unknown version.
    Invalid { reference: Option<ObjectRef>, error: FieldError },
    /// An object of a kind that is not read: `apps/v1 Deployment`.
    Unread { kind: String },
}

/// Finds out which objects a value holds; a `List` holds several.
pub(crate) fn identify(value: Value) -> Vec<Identified> {
    let mut found = Vec::new();
    unpack(value, 0, &mut found);
    found
}

fn unpack(value: Value, depth: usize, found: &mut Vec<Identified>) {
    let list = value.get("kind").and_then(Value::as_str).is_some_and(|kind| {
        kind == "List" || (kind.ends_with("List") && value.get("items").is_some())
    });
    if !list || depth > LIST_DEPTH_MAX {
        if !value.is_null() {
            found.push(identify_one(value));
        }
        return;
    }
    if let Value::Object(mut map) = value
        && let Some(Value::Array(items)) = map.remove("items")
    {
        for item in items {
            unpack(item, depth + 1, found);
        }
    }
}

fn identify_one(mut value: Value) -> Identified {
    strip_nulls(&mut value);
    let invalid = |error| Identified::Invalid { reference: None, error };
    if !value.is_object() {
        let rule = "the document is not an object with apiVersion, kind and metadata";
        return invalid(FieldError::rule("", rule));
    }
    let text = |field: &'static str| match value.get(field) {
        None => Err(FieldError::new(field, Reason::Missing)),
        Some(Value::String(text)) => Ok(text.as_str()),
        Some(_) => Err(FieldError::rule(field, "must be text")),
    };
    let (api_version, label) = match (text("apiVersion"), text("kind")) {
        (Ok(api_version), Ok(label)) => (api_version, label),
        (Err(error), _) | (_, Err(error)) => return invalid(error),
    };
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    let Some(kind) = Kind::find(group, label) else {
        return Identified::Unread { kind: printable(&format!("{api_version} {label}")) };
    };
    let reference = match reference(kind, &value) {
        Ok(reference) => reference,
        Err(error) => return invalid(error),
    };
    if !kind.versions().contains(&version) {
        let slash = if group.is_empty() { "" } else { "/" };
        let known = kind.versions().iter().map(|v| format!("{group}{slash}{v}"));
        let known = known.collect::<Vec<_>>().join(", ");
        let reason = Reason::Version { given: excerpt(api_version), known };
        let error = FieldError::new("apiVersion", reason);
        return Identified::Invalid { reference: Some(reference), error };
    }
    Identified::Object { reference, value }
}

fn reference(kind: Kind, value: &Value) -> Result<ObjectRef, FieldError> {
    let text = |field: &str| match value.pointer(&format!("/metadata/{field}")) {
        None => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) if text.len() <= NAME_BYTES_MAX => Ok(Some(text.clone())),
        Some(Value::String(text)) => {
            let form = "a name of at most 253 bytes";
            Err(FieldError::new(format!("metadata.{field}"), Reason::value(text, form)))
        }
        Some(_) => Err(FieldError::rule(format!("metadata.{field}"), "must be text")),
    };
    let name = text("name")?.ok_or_else(|| FieldError::new("metadata.name", Reason::Missing))?;
    let namespace = match (kind.is_cluster_scoped(), text("namespace")?) {
        (true, _) => String::new(),
        (false, Some(namespace)) => namespace,
        (false, None) => DEFAULT_NAMESPACE.to_owned(),
    };
    Ok(ObjectRef { kind, namespace, name })
}

/// A field that is `null` is an absent field, as Kubernetes reads it.
fn strip_nulls(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(strip_nulls),
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(strip_nulls);
        }
        Value::Bool(_) | Value::Null | Value::Number(_) | Value::String(_) => {}
    }
}

/// What is made of fields that are not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Schema {
    /// They are an error: nobody else has checked the object, and a field that is not
    /// known is a typing error.
    Closed,
    /// They are passed over: an API server has checked the object by a schema that may be
    /// newer than ours.
    Open,
}

/// Reads the fields of an object; the error names the field and never a secret's value.
pub(crate) fn fields<T: DeserializeOwned>(
    kind: Kind,
    value: &Value,
    schema: Schema,
) -> Result<T, FieldError> {
    let mut value = Cow::Borrowed(value);
    let mut rounds = match schema {
        Schema::Closed => 0,
        Schema::Open => UNKNOWN_FIELDS_MAX,
    };
    loop {
        let error = match serde_path_to_error::deserialize(value.as_ref()) {
            Ok(read) => return Ok(read),
            Err(error) => error,
        };
        let is_unknown = error.inner().to_string().starts_with("unknown field `");
        let path: Vec<&Segment> = error.path().iter().collect();
        if rounds == 0 || !is_unknown || remove(value.to_mut(), &path) == 0 {
            return Err(field_error(kind, &error));
        }
        rounds -= 1;
    }
}

/// Removes a field from an object, and from every entry of the lists on the way to it, so
/// that a long list of newer entries takes one round. Says how many were removed.
fn remove(value: &mut Value, path: &[&Segment]) -> usize {
    match (path, value) {
        ([Segment::Map { key }], Value::Object(map)) => usize::from(map.remove(key).is_some()),
        ([Segment::Map { key }, rest @ ..], Value::Object(map)) => {
            map.get_mut(key).map_or(0, |value| remove(value, rest))
        }
        ([Segment::Seq { .. }, rest @ ..], Value::Array(items)) => {
            items.iter_mut().map(|item| remove(item, rest)).sum()
        }
        _ => 0,
    }
}

fn field_error(kind: Kind, error: &serde_path_to_error::Error<serde_json::Error>) -> FieldError {
    let path = error.path().to_string();
    let path = if path == "." { String::new() } else { printable(&path) };
    let message = error.inner().to_string();
    let secret = kind == Kind::Secret && message.starts_with("invalid ");
    if let Some(missing) = message.strip_prefix("missing field `")
        && let Some((missing, _)) = missing.split_once('`')
    {
        let dot = if path.is_empty() { "" } else { "." };
        return FieldError::new(format!("{path}{dot}{missing}"), Reason::Missing);
    }
    let message = if secret { "has the wrong type".to_owned() } else { printable(&message) };
    FieldError::new(path, Reason::Shape { message })
}

/// The namespace of objects that name none.
pub(crate) const DEFAULT_NAMESPACE: &str = "default";

const LIST_DEPTH_MAX: usize = 3;
/// Places of unknown fields that are passed over in one object.
const UNKNOWN_FIELDS_MAX: usize = 100;
const NAME_BYTES_MAX: usize = 253;

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<(u32, u64)> {
        split(text).into_iter().map(|part| (part.number, part.line)).collect()
    }

    #[test]
    fn documents_are_split_at_markers_and_counted_without_empty_ones() {
        assert_eq!(texts("a: 1\n"), [(1, 1)]);
        assert_eq!(texts("---\na: 1\n---\n# nothing\n---\nb: 2"), [(1, 1), (2, 5)]);
        assert_eq!(texts("# c\n%YAML 1.2\n---\na: 1\n...\n---\nb: 1\n"), [(1, 3), (2, 6)]);
        assert_eq!(texts("--- {a: 1}\n--- # x\nb: 1\n"), [(1, 1), (2, 2)]);
        assert_eq!(texts("a: |\n  --- not a marker\n  ---\n---x: 1\n"), [(1, 1)]);
        assert_eq!(texts("\r\n---\r\na: 1\r\n---\r\n"), [(1, 2)]);
        assert!(texts("").is_empty() && texts("---\n---\n...\n").is_empty());
    }

    #[test]
    fn lists_are_unpacked_and_unknown_kinds_are_named() {
        let value = serde_json::json!({
            "apiVersion": "v1", "kind": "List", "items": [
                {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}},
                {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}},
                {"apiVersion": "gateway.networking.k8s.io/v1alpha2", "kind": "Gateway",
                 "metadata": {"name": "g", "namespace": "x"}},
                {"kind": "Service"},
            ]
        });
        let found = identify(value);
        assert!(matches!(&found[0], Identified::Object { reference, .. }
            if reference.to_string() == "Service default/a"));
        assert_eq!(found[1], Identified::Unread { kind: "apps/v1 Deployment".into() });
        let Identified::Invalid { reference: Some(reference), error } = &found[2] else {
            panic!("{found:?}")
        };
        assert_eq!(reference.to_string(), "Gateway x/g");
        assert!(error.reason.to_string().contains("gateway.networking.k8s.io/v1beta1"));
        assert!(matches!(&found[3], Identified::Invalid { error, .. }
            if error.field == "apiVersion"));
    }
}
