//! What commands print: tables for people, JSON and YAML for machines.
//!
//! Names and errors in it may come from other clusters, so nothing that a terminal would
//! act on gets through; colours are only for a terminal.

use std::io::{self, IsTerminal as _, Write as _};

use serde_json::Value;

use crate::args::Output;

/// Prints to standard output; a reader that has gone (`| head`) is no failure.
///
/// # Errors
///
/// Another failure to write.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        outcome => Ok(outcome?),
    }
}

/// Prints an error with its causes to standard error.
pub(crate) fn report(error: &anyhow::Error) {
    let paint = Paint { on: io::stderr().is_terminal() };
    let text = isthmus_runtime::error_chain(error.as_ref());
    // Nobody is left to tell when standard error cannot be written.
    let _ = writeln!(io::stderr(), "{} {}", paint.bad("error:"), clean_lines(&text));
}

/// Prints a value in the form that was asked for, with `table` for people; it is told
/// whether it is to be wide.
///
/// # Errors
///
/// The value cannot be printed.
pub(crate) fn show(
    value: &Value,
    output: Output,
    table: impl FnOnce(Paint, bool) -> String,
) -> anyhow::Result<()> {
    let paint = Paint { on: io::stdout().is_terminal() };
    let text = match output {
        Output::Json => format!("{value:#}\n"),
        Output::Yaml => serde_saphyr::to_string(value)?,
        Output::Table => table(paint, false),
        Output::Wide => table(paint, true),
    };
    print(&text)
}

/// Colours, or none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Paint {
    /// Whether there are any.
    pub(crate) on: bool,
}

impl Paint {
    /// A heading.
    pub(crate) fn head(self, text: &str) -> String {
        self.with("1", text)
    }

    /// Something that is well.
    pub(crate) fn good(self, text: &str) -> String {
        self.with("32", text)
    }

    /// Something to look at.
    pub(crate) fn warn(self, text: &str) -> String {
        self.with("33", text)
    }

    /// Something that is broken.
    pub(crate) fn bad(self, text: &str) -> String {
        self.with("31", text)
    }

    /// A word of a state.
    pub(crate) fn word(self, text: &str) -> String {
        match text {
            "up" | "valid" | "fresh" | "connected" => self.good(text),
            "draining" | "never" | "due" | "pending" => self.warn(text),
            "down" | "expired" | "alarm" | "missing" | "refused" => self.bad(text),
            _ => text.to_owned(),
        }
    }

    fn with(self, code: &str, text: &str) -> String {
        if self.on { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// Text without what a terminal acts on or reorders.
pub(crate) fn clean(text: &str) -> String {
    text.chars().map(|c| if harmless(c) { c } else { '\u{fffd}' }).collect()
}

fn clean_lines(text: &str) -> String {
    text.lines().map(clean).collect::<Vec<_>>().join("\n")
}

fn harmless(c: char) -> bool {
    let reorders =
        matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    !c.is_control() && !reorders
}
