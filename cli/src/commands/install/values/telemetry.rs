//! What the processes say of themselves.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The logs of the processes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Log {
    /// A level, or levels by module as in info,isthmus_link=debug.
    pub(crate) filter: String,
    /// The format.
    pub(crate) format: Format,
}

impl Default for Log {
    fn default() -> Self {
        Self { filter: "info".to_owned(), format: Format::Text }
    }
}

/// The format of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Format {
    /// One JSON object a line.
    Json,
    /// One line of text.
    Text,
}

/// Traces, metrics and the access log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Telemetry {
    /// The OTLP collector (gRPC, http://); empty is none.
    pub(crate) otlp: String,
    /// Which requests have a line in the access log of the east-west gateway.
    pub(crate) access_log: AccessLog,
    /// The share of traces that are exported, 0.0 to 1.0.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub(crate) sampling: f64,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self { otlp: String::new(), access_log: AccessLog::Off, sampling: 1.0 }
    }
}

/// Which requests have a line in the access log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) enum AccessLog {
    /// All.
    All,
    /// Those that failed.
    Failures,
    /// None.
    Off,
}
