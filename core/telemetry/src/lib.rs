//! Logs, metrics, traces, access records and the admin endpoint.
