//! One event as one line.

use std::fmt::{self, Write};

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::{FormatEvent, Writer};
use tracing_subscriber::fmt::{FmtContext, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

use crate::escape::{push_escaped, push_quoted};
use crate::logs::fields::{EscapedFields, VALUE_BYTES_MAX, Visitor};
use crate::timestamp::push_timestamp;

/// Writes events, escaped.
#[derive(Debug, Clone, Copy)]
pub(super) struct EscapedEvents {
    /// JSON or text.
    pub(super) json: bool,
    /// Whether the level of a text line has a colour.
    pub(super) colour: bool,
}

impl<S> FormatEvent<S, EscapedFields> for EscapedEvents
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, EscapedFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut visitor = Visitor::new(self.json);
        event.record(&mut visitor);
        let mut line = String::with_capacity(LINE_BYTES_TYPICAL);
        let spans = spans(context, self.json);
        let (level, target) = (*event.metadata().level(), event.metadata().target());
        if self.json {
            line.push_str("{\"time\":\"");
            push_timestamp(&mut line, isthmus_runtime::clock::wall());
            let _ = write!(line, "\",\"level\":\"{level}\",\"target\":\"{target}\",\"message\":");
            push_quoted(&mut line, visitor.message.as_bytes(), VALUE_BYTES_MAX);
            line.push_str(&visitor.fields);
            if !spans.is_empty() {
                let _ = write!(line, ",\"spans\":[{spans}]");
            }
            line.push('}');
        } else {
            push_timestamp(&mut line, isthmus_runtime::clock::wall());
            line.push(' ');
            push_level(&mut line, level, self.colour);
            let _ = write!(line, " {target}: {spans}");
            push_escaped(&mut line, visitor.message.as_bytes(), VALUE_BYTES_MAX);
            line.push_str(&visitor.fields);
        }
        line.push('\n');
        writer.write_str(&line)
    }
}

fn spans<S>(context: &FmtContext<'_, S, EscapedFields>, json: bool) -> String
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let mut out = String::new();
    for span in context.event_scope().into_iter().flat_map(|scope| scope.from_root()) {
        let extensions = span.extensions();
        let fields = extensions.get::<FormattedFields<EscapedFields>>();
        let fields = fields.map_or("", |fields| fields.fields.as_str());
        let name = span.name();
        let _ = if json {
            let comma = if out.is_empty() { "" } else { "," };
            write!(out, "{comma}{{\"name\":\"{name}\"{fields}}}")
        } else {
            write!(out, "{name}{{{}}}: ", fields.trim_start())
        };
    }
    out
}

fn push_level(out: &mut String, level: Level, colour: bool) {
    let code = match level {
        Level::ERROR => 31,
        Level::WARN => 33,
        Level::INFO => 32,
        Level::DEBUG => 34,
        Level::TRACE => 35,
    };
    let pad = if level.as_str().len() == 4 { " " } else { "" };
    let _ = if colour {
        write!(out, "{pad}\u{1b}[{code}m{level}\u{1b}[0m")
    } else {
        write!(out, "{pad}{level}")
    };
}

const LINE_BYTES_TYPICAL: usize = 256;
