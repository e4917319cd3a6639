//! The process log: events of `tracing` as text or JSON on standard error.
//!
//! Both formats are written here and not by `tracing-subscriber`'s own formatters, which
//! let line ends and bidirectional marks in a field through; ours give one escaped,
//! bounded line for each event (security.md A-09).

mod fields;
mod format;

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::logs::fields::EscapedFields;
use crate::logs::format::EscapedEvents;

/// How the process log is written.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// Text for people or JSON for machines. Default: text.
    pub format: LogFormat,
    /// Directives as in `info,isthmus_link=debug`. Default: `info`.
    pub filter: String,
    /// Whether text has colour. Default: only on a terminal.
    pub colour: Colour,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { format: LogFormat::Text, filter: FILTER_DEFAULT.to_owned(), colour: Colour::Auto }
    }
}

/// The format of the process log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// One line of text an event.
    Text,
}

/// Whether text has colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    /// Only when standard error is a terminal.
    Auto,
    /// Never.
    Never,
}

/// The log could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Another subscriber was installed before.
    #[error("the process log was set up before")]
    AlreadySet {
        /// What tracing said.
        source: tracing_subscriber::util::TryInitError,
    },
    /// The filter is not valid.
    #[error("log filter {filter:?} is not valid")]
    Filter {
        /// The filter as given.
        filter: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
}

/// Sends events of the whole process to standard error; called once, in `main`.
///
/// # Errors
///
/// [`LogError::Filter`] when the filter is not valid, [`LogError::AlreadySet`] on a
/// second call.
pub fn init(options: &LogOptions) -> Result<(), LogError> {
    let filter = EnvFilter::builder()
        .parse(&options.filter)
        .map_err(|source| LogError::Filter { filter: options.filter.clone(), source })?;
    let colour = options.format == LogFormat::Text
        && options.colour == Colour::Auto
        && std::io::stderr().is_terminal();
    let json = options.format == LogFormat::Json;
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .fmt_fields(EscapedFields { json })
        .event_format(EscapedEvents { json, colour });
    tracing_subscriber::registry()
        .with(filter)
        .with(layer)
        .try_init()
        .map_err(|source| LogError::AlreadySet { source })
}

const FILTER_DEFAULT: &str = "info";

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let mut sink = self.0.lock().map_err(|_| std::io::ErrorKind::Other)?;
            sink.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn written(json: bool, colour: bool, events: impl FnOnce()) -> String {
        let sink = Sink::default();
        let writer = sink.clone();
        let layer = tracing_subscriber::fmt::layer()
            .with_writer(move || writer.clone())
            .fmt_fields(EscapedFields { json })
            .event_format(EscapedEvents { json, colour });
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), events);
        let bytes = sink.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_hostile_field_stays_inside_one_line() {
        let evil = "a\n\u{1b}[2J\",\"admin\":true,\"\u{202e}";
        for json in [false, true] {
            let line = written(json, false, || {
                tracing::info_span!("connection", peer = evil).in_scope(|| {
                    tracing::warn!(path = evil, debug = ?evil, count = 3, "refused {evil}");
                });
            });
            assert_eq!(line.find('\n'), Some(line.len() - 1), "{line}");
            assert!(!line.contains('\u{1b}') && !line.contains('\u{202e}'), "{line}");
            if json {
                let value: serde_json::Value = serde_json::from_str(&line).unwrap();
                assert!(value.get("admin").is_none());
                assert_eq!(value["path"], evil);
                assert_eq!(value["message"], format!("refused {evil}"));
                assert_eq!((&value["count"], &value["level"]), (&3.into(), &"WARN".into()));
                assert_eq!(value["spans"][0]["name"], "connection");
                assert_eq!(value["spans"][0]["peer"], evil);
            } else {
                assert!(line.contains(" WARN ") && line.contains(" count=3"), "{line}");
                assert!(line.contains("connection{peer=\"a\\n"), "{line}");
            }
        }
    }

    #[test]
    fn reserved_keys_cannot_be_taken_by_a_field() {
        let line = written(true, false, || tracing::info!(level = "x", time = "y", "m"));
        assert_eq!(line.matches("\"level\":").count(), 1, "{line}");
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&value["level"], &value["field.level"]), (&"INFO".into(), &"x".into()));
    }

    #[test]
    fn long_values_are_cut_and_colour_is_ours_alone() {
        let long = "x".repeat(100_000);
        let line = written(false, true, || tracing::error!(value = long, "m"));
        assert!(line.len() < 10_000 && line.contains("\u{1b}[31mERROR\u{1b}[0m"), "{}", line.len());
    }

    #[test]
    fn a_bad_filter_is_an_error() {
        let options = LogOptions { filter: "a=b=c".to_owned(), ..LogOptions::default() };
        assert!(matches!(init(&options), Err(LogError::Filter { .. })));
    }
}
