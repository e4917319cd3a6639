//! Fields of events and spans, escaped.

use std::fmt::{self, Write};

use tracing::field::{Field, Visit};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::Writer;

use crate::escape::{push_escaped, push_quoted};

/// Writes the fields of a span, each with a leading separator.
#[derive(Debug, Clone, Copy)]
pub(super) struct EscapedFields {
    /// JSON members (`,"a":1`) or text pairs (` a=1`).
    pub(super) json: bool,
}

impl<'writer> FormatFields<'writer> for EscapedFields {
    fn format_fields<R: RecordFields>(
        &self,
        mut writer: Writer<'writer>,
        fields: R,
    ) -> fmt::Result {
        let mut visitor = Visitor::new(self.json);
        fields.record(&mut visitor);
        if !visitor.message.is_empty() {
            visitor.name("message");
            push_quoted(&mut visitor.fields, visitor.message.as_bytes(), usize::MAX);
        }
        writer.write_str(&visitor.fields)
    }
}

/// Collects the fields of one event or span.
#[derive(Debug)]
pub(super) struct Visitor {
    json: bool,
    /// The message, not escaped.
    pub(super) message: String,
    /// The other fields, escaped, each with a leading separator.
    pub(super) fields: String,
}

impl Visitor {
    pub(super) fn new(json: bool) -> Self {
        Self { json, message: String::new(), fields: String::new() }
    }

    fn name(&mut self, name: &str) {
        // Field names are chosen in our code, so they need no escapes.
        let _ = if !self.json {
            write!(self.fields, " {name}=")
        } else if RESERVED.contains(&name) {
            write!(self.fields, ",\"field.{name}\":")
        } else {
            write!(self.fields, ",\"{name}\":")
        };
    }

    fn text(&mut self, field: &Field, text: &str) {
        if field.name() == "message" {
            text.clone_into(&mut self.message);
            return;
        }
        self.name(field.name());
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:/+".contains(&byte);
        if !self.json && !text.is_empty() && text.bytes().all(plain) {
            push_escaped(&mut self.fields, text.as_bytes(), VALUE_BYTES_MAX);
        } else {
            push_quoted(&mut self.fields, text.as_bytes(), VALUE_BYTES_MAX);
        }
    }

    fn raw(&mut self, field: &Field, value: impl fmt::Display) {
        self.name(field.name());
        let _ = write!(self.fields, "{value}");
    }
}

impl Visit for Visitor {
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.raw(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.raw(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.raw(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no NaN and no infinity.
        if value.is_finite() {
            self.raw(field, value);
        } else {
            self.text(field, &value.to_string());
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value);
    }

    /// The whole chain: `Display` of our errors does not print the source.
    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = value.to_string();
        let mut next = value.source();
        while let Some(error) = next {
            let _ = write!(text, ": {error}");
            next = error.source();
        }
        self.text(field, &text);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field, &format!("{value:?}"));
    }
}

/// Keys that every JSON line has.
const RESERVED: [&str; 5] = ["time", "level", "target", "spans", "name"];
/// Bytes of one value that are written.
pub(super) const VALUE_BYTES_MAX: usize = 4096;
