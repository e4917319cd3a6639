//! Settings text to a value, within limits, and where in the text a field stands.

use std::cell::Cell;
use std::fmt;

use serde::Deserialize;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_saphyr::Spanned;
use serde_saphyr::options::DuplicateKeyPolicy;

use super::Problem;

/// Reads one document.
pub(super) fn parse<T: DeserializeOwned>(text: &str) -> Result<T, Problem> {
    let mut field = String::new();
    let parsed = serde_saphyr::with_deserializer_from_str_with_options(text, options(), |yaml| {
        let mut track = serde_path_to_error::Track::new();
        let yaml = serde_path_to_error::Deserializer::new(yaml, &mut track);
        let outcome = T::deserialize(yaml);
        if outcome.is_err() {
            field = track.path().to_string();
        }
        outcome
    });
    parsed.map_err(|error| {
        let line = error.location().map(|location| location.line()).filter(|line| *line > 0);
        // The path of the root and what the path does not know.
        let field = if field == "." || field == "?" { String::new() } else { field.clone() };
        Problem { line, field, reason: message(&error.to_string()) }
    })
}

/// The line on which a field stands, or the nearest of those that contain it and exist;
/// `None` for the file as a whole.
///
/// The text has been parsed before, so it is walked without looking for errors.
pub(super) fn line_of(text: &str, field: &str) -> Option<u64> {
    let steps: Vec<&str> = field.split(['.', '[', ']']).filter(|step| !step.is_empty()).collect();
    let line = Cell::new(0);
    let walk = Walk { steps: &steps, line: &line };
    // An error on the way leaves the line of the last step that was found.
    let _ = serde_saphyr::with_deserializer_from_str_with_options(text, options(), |yaml| {
        walk.deserialize(yaml)
    });
    Some(line.get()).filter(|line| *line > 0)
}

/// Walks along names and indices, and notes the line of each.
#[derive(Clone, Copy)]
struct Walk<'w> {
    steps: &'w [&'w str],
    line: &'w Cell<u64>,
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.steps.is_empty() {
            return IgnoredAny::deserialize(deserializer).map(drop);
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list or a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Some((first, rest)) = self.steps.split_first() else { return Ok(()) };
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            if key.value == *first {
                self.line.set(key.referenced.line());
                map.next_value_seed(Walk { steps: rest, line: self.line })?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Some((first, rest)) = self.steps.split_first() else { return Ok(()) };
        let index: usize = first.parse().unwrap_or(usize::MAX);
        for _ in 0..index {
            if list.next_element::<IgnoredAny>()?.is_none() {
                return Ok(());
            }
        }
        list.next_element_seed(Walk { steps: rest, line: self.line })?;
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }
}

/// Limits that no honest settings file meets, so that a hostile one costs little.
fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_documents: 1,
            max_depth: DEPTH_MAX,
            flow_nesting_limit: DEPTH_MAX,
            max_aliases: ALIASES_MAX,
            max_anchors: ALIASES_MAX,
            max_merge_keys: ALIASES_MAX,
        },
        duplicate_keys: DuplicateKeyPolicy::Error,
        // YAML 1.2: `on` and `y` are text, not `true`.
        strict_booleans: true,
        with_snippet: false,
    }
}

/// The first line of the parser's message, without the place, which is given apart.
fn message(text: &str) -> String {
    let text = text.lines().next().unwrap_or_default();
    let text = text.strip_prefix("error: ").unwrap_or(text);
    let text = match text.split_once(": ") {
        Some((place, rest)) if place.starts_with("line ") => rest,
        Some(_) | None => text,
    };
    let text = text.split(" at line ").next().unwrap_or_default();
    // An advice to programmers, not to the author of the file.
    let text = text.split(", set DuplicateKeyPolicy").next().unwrap_or_default();
    let text = match text.trim_end() {
        "invalid u16" => "is not a whole number from 0 to 65535",
        "invalid u32" | "invalid u64" | "invalid usize" => "is not a whole number",
        "invalid f32" | "invalid f64" => "is not a number",
        other => other,
    };
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

const DEPTH_MAX: usize = 32;
const ALIASES_MAX: usize = 256;
