//! The metrics port and the health port.
//!
//! Ready is a set of named conditions that the roles declare and fulfil; a probe that
//! fails says in its body what is missing.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::{StatusCode, header};

use crate::metrics::{ExpositionFormat, MetricsRegistry, render_metrics};
use crate::server::{ControlServer, ServeError, TEXT, is_read, method_not_allowed, reply};

/// What must hold before a process takes traffic; clones share it.
///
/// Without any condition a process is ready.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    conditions: Arc<Mutex<BTreeMap<String, Option<String>>>>,
}

impl Readiness {
    /// No conditions.
    pub fn new() -> Self {
        Self::default()
    }

    /// Declares a condition that does not hold yet, or does not hold any more.
    pub fn set_waiting(&self, condition: &str, reason: &str) {
        self.lock().insert(condition.to_owned(), Some(reason.to_owned()));
    }

    /// Says that a condition holds.
    pub fn set_ready(&self, condition: &str) {
        self.lock().insert(condition.to_owned(), None);
    }

    /// Forgets a condition.
    pub fn remove(&self, condition: &str) {
        self.lock().remove(condition);
    }

    /// The conditions that do not hold, each with its reason, sorted by name.
    pub fn missing(&self) -> Vec<(String, String)> {
        let missing = |(name, reason): (&String, &Option<String>)| {
            reason.as_ref().map(|reason| (name.clone(), reason.clone()))
        };
        self.lock().iter().filter_map(missing).collect()
    }

    /// Whether every condition holds.
    pub fn is_ready(&self) -> bool {
        self.lock().values().all(Option::is_none)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Option<String>>> {
        // A panic of another holder leaves a whole map behind.
        self.conditions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves `/metrics` and `/stats/prometheus` (conventionally on port 15020).
///
/// # Errors
///
/// [`ServeError`] when the address cannot be bound.
pub fn serve_metrics(
    address: SocketAddr,
    registry: &MetricsRegistry,
) -> Result<ControlServer, ServeError> {
    let registry = registry.clone();
    let handler = move |parts: &http::request::Parts| {
        if !matches!(parts.uri.path(), "/metrics" | "/stats/prometheus") {
            return reply(StatusCode::NOT_FOUND, TEXT, "try /metrics\n".to_owned());
        }
        if !is_read(&parts.method) {
            return method_not_allowed("GET, HEAD");
        }
        let accept = parts.headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
        let format = ExpositionFormat::for_accept(accept.unwrap_or_default());
        let body = render_metrics(&registry.gather(), format);
        reply(StatusCode::OK, format.content_type(), body)
    };
    ControlServer::start("metrics", address, Arc::new(handler))
}

/// Serves `/healthz/ready` and `/healthz/live` (conventionally on port 15021).
///
/// # Errors
///
/// [`ServeError`] when the address cannot be bound.
pub fn serve_health(
    address: SocketAddr,
    readiness: &Readiness,
) -> Result<ControlServer, ServeError> {
    let readiness = readiness.clone();
    let handler = move |parts: &http::request::Parts| match parts.uri.path() {
        "/healthz/live" | "/healthz/ready" if !is_read(&parts.method) => {
            method_not_allowed("GET, HEAD")
        }
        "/healthz/live" => reply(StatusCode::OK, TEXT, "live\n".to_owned()),
        "/healthz/ready" => {
            let missing = readiness.missing();
            if missing.is_empty() {
                return reply(StatusCode::OK, TEXT, "ready\n".to_owned());
            }
            let lines = missing.iter().map(|(name, reason)| format!("{name}: {reason}\n"));
            reply(StatusCode::SERVICE_UNAVAILABLE, TEXT, lines.collect())
        }
        _ => reply(StatusCode::NOT_FOUND, TEXT, "try /healthz/ready\n".to_owned()),
    };
    ControlServer::start("health", address, Arc::new(handler))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::exchange;

    #[tokio::test]
    async fn the_metrics_port_speaks_both_formats() {
        let registry = MetricsRegistry::new();
        registry.counter("x_total", "X").add(3);
        let server = serve_metrics("127.0.0.1:0".parse().unwrap(), &registry).unwrap();
        let at = server.local_addr();
        for path in ["/metrics", "/stats/prometheus"] {
            let answer = exchange(at, &format!("GET {path} HTTP/1.1\r\nhost: m\r\n\r\n")).await;
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
            assert!(answer.contains("content-type: text/plain; version=0.0.4"));
            assert!(answer.ends_with("# HELP x_total X\n# TYPE x_total counter\nx_total 3\n"));
        }
        let open =
            "GET /metrics HTTP/1.1\r\nhost: m\r\naccept: application/openmetrics-text\r\n\r\n";
        assert!(exchange(at, open).await.ends_with("# EOF\n"));
        let post = exchange(at, "POST /metrics HTTP/1.1\r\nhost: m\r\n\r\n").await;
        assert!(post.starts_with("HTTP/1.1 405 "));
        let other = exchange(at, "GET /debug/pprof HTTP/1.1\r\nhost: m\r\n\r\n").await;
        assert!(other.starts_with("HTTP/1.1 404 "));
        server.shutdown().await;
    }

    #[tokio::test]
    async fn a_failing_probe_says_what_is_missing() {
        let readiness = Readiness::new();
        readiness.set_waiting("certificate", "no SVID yet");
        readiness.set_waiting("snapshot", "the controller has not answered");
        let server = serve_health("127.0.0.1:0".parse().unwrap(), &readiness).unwrap();
        let probe = "GET /healthz/ready HTTP/1.1\r\nhost: h\r\n\r\n";
        let answer = exchange(server.local_addr(), probe).await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        let body = "certificate: no SVID yet\nsnapshot: the controller has not answered\n";
        assert!(answer.ends_with(body), "{answer}");
        let live = "GET /healthz/live HTTP/1.1\r\nhost: h\r\n\r\n";
        assert!(exchange(server.local_addr(), live).await.starts_with("HTTP/1.1 200 "));
        readiness.set_ready("certificate");
        readiness.remove("snapshot");
        assert!(readiness.is_ready());
        assert!(exchange(server.local_addr(), probe).await.ends_with("\r\n\r\nready\n"));
    }
}
