//! What the controller says of itself: to the admin endpoint, and as metrics.

use std::sync::{Arc, PoisonError};

use isthmus_config::ConfigError;
use isthmus_federation::Status;
use isthmus_telemetry::{MetricFamily, MetricKind, MetricsRegistry, PointValue};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::Errors;

/// What the controller says of itself, in the form of the admin endpoint.
pub(super) fn status_json(status: &Status, errors: &Errors) -> Value {
    let errors = errors.lock().unwrap_or_else(PoisonError::into_inner);
    let error = |error: &ConfigError| {
        json!({
            "file": error.origin.file,
            "document": error.origin.document,
            "object": error.object.as_ref().map(ToString::to_string),
            "field": error.field,
            "reason": error.reason.to_string(),
        })
    };
    let peers: Vec<Value> = status
        .peers
        .iter()
        .map(|peer| {
            let mut row = json!(peer);
            row["importedServices"] = json!(peer.services_imported);
            row["exportedServices"] = json!(peer.services_exported);
            row
        })
        .collect();
    json!({
        "peers": peers,
        "configErrors": errors.iter().map(error).collect::<Vec<_>>(),
        "conditions": status.problems,
        "federation": status,
    })
}

/// Exports the controller's metrics.
pub(super) fn export(registry: &MetricsRegistry, status: watch::Receiver<Arc<Status>>) {
    registry.collector(move |out: &mut Vec<MetricFamily>| {
        let status = status.borrow().clone();
        let gauge = |name, help| MetricFamily::new(name, help, MetricKind::Gauge);
        // Counts and generations are far below 2^52, so the conversions are exact.
        let generation = status.generation as f64;
        out.push(
            gauge("isthmus_controller_generation", "Generation published last.")
                .with(&[], PointValue::Gauge(generation)),
        );
        let mut imported =
            gauge("isthmus_federation_imported_services", "Services imported, by peer.");
        let mut valid = gauge("isthmus_federation_lease_valid", "Whether a peer's lease is valid.");
        for peer in &status.peers {
            let labels = [("peer", peer.cluster.as_str())];
            imported = imported.with(&labels, PointValue::Gauge(peer.services_imported as f64));
            let is_valid = peer.lease == isthmus_federation::LeaseStatus::Valid;
            valid = valid.with(&labels, PointValue::Gauge(f64::from(u8::from(is_valid))));
        }
        out.extend([imported, valid]);
    });
}
