//! What `isthmus status` shows of federation.

use std::collections::BTreeMap;

use isthmus_model::{ClusterId, LinkTransport, TrustDomain};
use serde::Serialize;

/// The state of federation at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// This cluster.
    pub cluster: ClusterId,
    /// Its trust domain.
    pub trust_domain: TrustDomain,
    /// The generation published last; 0 before the first.
    pub generation: u64,
    /// Linked clusters, by id.
    pub peers: Vec<PeerStatus>,
    /// ServiceExports of this cluster.
    pub exports: Vec<ServiceStatus>,
    /// ServiceImports of this cluster.
    pub imports: Vec<ServiceStatus>,
    /// Conditions of other objects that say that something does not work, and links that
    /// are not used.
    pub problems: Vec<String>,
}

/// One linked cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerStatus {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its trust domain.
    pub trust_domain: TrustDomain,
    /// Whether its word holds.
    pub lease: LeaseStatus,
    /// Seconds since it renewed its lease; `None` when it has not since the start.
    pub heard_seconds_ago: Option<u64>,
    /// The transport of the link; `None` while it is down.
    pub transport: Option<LinkTransport>,
    /// Measured round-trip time of the link, as published.
    pub rtt_micros: Option<u64>,
    /// Whether this cluster reads from it now.
    pub reading: bool,
    /// Whether it reads from this cluster now.
    pub writing: bool,
    /// Services that it brought and that are granted.
    pub services_imported: usize,
    /// Endpoints that it brought and that are granted.
    pub endpoints_imported: usize,
    /// Services that it may see.
    pub services_exported: usize,
    /// Whether a state without most of its services waits to be believed.
    pub holding: bool,
    /// Sequence of the peer's trust bundle that is in use.
    pub bundle_sequence: Option<u64>,
    /// Entries refused, by reason.
    pub refused: BTreeMap<&'static str, u64>,
    /// The last error of a session or of its bundle.
    pub last_error: Option<String>,
}

/// Whether a peer's word holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum LeaseStatus {
    /// It ended; what the peer brought is kept, out of selection.
    Expired,
    /// The peer has not been heard yet.
    Never,
    /// It holds.
    Valid,
}

/// A ServiceExport or ServiceImport.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceStatus {
    /// `namespace/name`.
    pub name: String,
    /// Clusters that contribute, for an import.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub clusters: Vec<ClusterId>,
    /// The cluster whose export wins conflicts, for an import.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub winner: Option<ClusterId>,
    /// Conditions.
    pub conditions: Vec<ConditionStatusRow>,
}

/// One condition, ready to print.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConditionStatusRow {
    /// The type.
    pub kind: &'static str,
    /// `True`, `False` or `Unknown`.
    pub status: &'static str,
    /// The reason.
    pub reason: String,
    /// What a person reads.
    pub message: String,
}
