//! Settings of telemetry and of the process log.

use std::net::SocketAddr;
use std::path::PathBuf;

use isthmus_telemetry::{
    AccessFormat, AccessLogMode, AccessLogOptions, AccessLogTarget, LogFormat,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::roles::loopback;

/// Metrics, traces, the access log, and the ports that show the state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct TelemetrySettings {
    /// The OTLP collector (gRPC, http://) that gets traces, metrics and access records.
    /// Default: none.
    #[schemars(example = "http://127.0.0.1:4317")]
    pub(crate) otlp: Option<String>,
    /// Which requests have a line in the access log: off, failures (status 500 and above,
    /// or not answered by the backend) or all.
    pub(crate) access_log: AccessLogSetting,
    /// The format of the access log: text or json.
    pub(crate) access_log_format: FormatSetting,
    /// The file to which access log lines are appended. Default: standard output.
    #[schemars(example = "./access.log")]
    pub(crate) access_log_file: Option<PathBuf>,
    /// The share of traces that the ingress begins or continues and that are exported,
    /// 0.0 to 1.0; sidecars follow their callers. Costs nothing without `otlp`.
    pub(crate) sampling: f64,
    /// Where Prometheus scrapes /metrics.
    #[schemars(with = "String")]
    pub(crate) metrics: SocketAddr,
    /// Where /healthz/ready and /healthz/live are answered.
    #[schemars(with = "String")]
    pub(crate) ready: SocketAddr,
    /// Where `isthmus status` and `isthmus explain` ask. A loopback address.
    #[schemars(with = "String")]
    pub(crate) admin: SocketAddr,
}

impl TelemetrySettings {
    /// The access log.
    pub(crate) fn access_log_options(&self) -> AccessLogOptions {
        let target = self.access_log_file.clone();
        AccessLogOptions {
            mode: match self.access_log {
                AccessLogSetting::Off => AccessLogMode::Off,
                AccessLogSetting::Failures => AccessLogMode::Failures,
                AccessLogSetting::All => AccessLogMode::All,
            },
            format: match self.access_log_format {
                FormatSetting::Json => AccessFormat::Json,
                FormatSetting::Text => AccessFormat::Text,
            },
            target: target.map_or(AccessLogTarget::Stdout, AccessLogTarget::File),
        }
    }
}

impl Default for TelemetrySettings {
    fn default() -> Self {
        Self {
            otlp: None,
            access_log: AccessLogSetting::Off,
            access_log_format: FormatSetting::Text,
            access_log_file: None,
            sampling: 1.0,
            metrics: loopback(15020),
            ready: loopback(15021),
            admin: loopback(15000),
        }
    }
}

/// Which requests have a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) enum AccessLogSetting {
    /// None.
    Off,
    /// Those that failed.
    Failures,
    /// All.
    All,
}

/// Text for people or JSON for machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) enum FormatSetting {
    /// One JSON object a line.
    Json,
    /// One line of text.
    Text,
}

impl From<FormatSetting> for LogFormat {
    fn from(format: FormatSetting) -> Self {
        match format {
            FormatSetting::Json => Self::Json,
            FormatSetting::Text => Self::Text,
        }
    }
}

/// The log of the process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct LogSettings {
    /// The format: text or json.
    pub(crate) format: FormatSetting,
    /// What is logged: a level, or levels by module as in info,isthmus_link=debug.
    pub(crate) filter: String,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { format: FormatSetting::Text, filter: "info".to_owned() }
    }
}
