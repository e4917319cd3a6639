//! The index as `isthmus status` shows it.

use std::sync::Arc;
use std::time::Instant;

use isthmus_model::ClusterId;

use super::{Index, Peer};
use crate::decided::{Decided, PeerState};
use crate::mcs::{Condition, ConditionStatus};
use crate::proto::{Entry, Lease};
use crate::status::{ConditionStatusRow, LeaseStatus, PeerStatus, ServiceStatus, Status};

impl Index {
    /// The state of federation now.
    pub(crate) fn status(&self, now: Instant) -> Status {
        let (mut exports, mut imports, mut problems) = (Vec::new(), Vec::new(), Vec::new());
        if let Some(plan) = &self.plan {
            for (name, conditions) in &plan.federated.export_conditions {
                exports.push(ServiceStatus {
                    name: name.to_string(),
                    clusters: Vec::new(),
                    winner: None,
                    conditions: conditions.iter().map(row).collect(),
                });
            }
            for (name, status) in &plan.federated.import_status {
                imports.push(ServiceStatus {
                    name: name.to_string(),
                    clusters: status.clusters.clone(),
                    winner: Some(status.winner.clone()),
                    conditions: status.conditions.iter().map(row).collect(),
                });
            }
            let bad = plan.conditions.iter().filter(|condition| condition.is_problem());
            problems.extend(bad.map(ToString::to_string));
        }
        let id = self.configured.properties.get(ID_PROPERTY);
        if let Some(id) = id.filter(|id| **id != self.own.cluster.as_str()) {
            problems.push(format!(
                "ClusterProperty {ID_PROPERTY} says {id:?} and the settings say {:?}, which is used",
                self.own.cluster.as_str()
            ));
        }
        for (link, reason) in &self.configured.refused_links {
            problems.push(format!("ClusterLink {link} is not used: {reason}"));
        }
        Status {
            cluster: self.own.cluster.clone(),
            trust_domain: self.own.trust_domain.clone(),
            generation: self.generation.0,
            peers: self.peers.iter().map(|(id, peer)| self.peer_status(now, id, peer)).collect(),
            exports,
            imports,
            problems,
        }
    }

    /// What was decided last; `None` before the first plan, and while a new one is due:
    /// what is known of the peers would be newer than the plan.
    pub(crate) fn decided(&self) -> Option<Decided> {
        if self.changed {
            return None;
        }
        Some(Decided {
            configuration: Arc::clone(self.configuration.as_ref()?),
            plan: Arc::clone(self.plan.as_ref()?),
            peers: self.peers.iter().map(|(id, peer)| self.peer_state(id, peer)).collect(),
            refused_links: self.configured.refused_links.clone(),
        })
    }

    fn peer_state(&self, cluster: &ClusterId, peer: &Peer) -> PeerState {
        PeerState {
            cluster: cluster.clone(),
            trust_domain: peer.importer.rules().trust_domain.clone(),
            lease: lease(peer),
            transport: self.links.state(cluster).transport,
            reading: peer.reading.is_some(),
            writing: peer.writing.is_some(),
            is_known: peer.importer.position().is_some() || !peer.importer.entries().is_empty(),
            services_imported: peer.importer.counts().0,
            services_exported: services_offered(peer),
            holding: peer.importer.is_holding(),
            last_error: peer.last_error.clone(),
        }
    }

    fn peer_status(&self, now: Instant, cluster: &ClusterId, peer: &Peer) -> PeerStatus {
        let importer = &peer.importer;
        let (services_imported, endpoints_imported) = importer.counts();
        let link = self.links.state(cluster);
        PeerStatus {
            cluster: cluster.clone(),
            trust_domain: importer.rules().trust_domain.clone(),
            lease: lease(peer),
            heard_seconds_ago: importer
                .heard_at()
                .map(|at| now.saturating_duration_since(at).as_secs()),
            transport: link.transport,
            rtt_micros: link.rtt_micros,
            reading: peer.reading.is_some(),
            writing: peer.writing.is_some(),
            services_imported,
            endpoints_imported,
            services_exported: services_offered(peer),
            holding: importer.is_holding(),
            bundle_sequence: self
                .bundles
                .bundle(&importer.rules().trust_domain)
                .and_then(isthmus_certs::Bundle::sequence),
            refused: importer.refused().iter().map(|(r, count)| (r.label(), *count)).collect(),
            last_error: peer.last_error.clone(),
        }
    }
}

fn lease(peer: &Peer) -> LeaseStatus {
    match peer.importer.lease() {
        Lease::Expired { .. } => LeaseStatus::Expired,
        Lease::Never => LeaseStatus::Never,
        Lease::Valid { .. } => LeaseStatus::Valid,
    }
}

fn services_offered(peer: &Peer) -> usize {
    peer.exporter.entries().filter(|entry| matches!(entry.as_ref(), Entry::Service(_))).count()
}

fn row(condition: &Condition) -> ConditionStatusRow {
    ConditionStatusRow {
        kind: condition.kind,
        status: match condition.status {
            ConditionStatus::False => "False",
            ConditionStatus::True => "True",
            ConditionStatus::Unknown => "Unknown",
        },
        reason: condition.reason.clone(),
        message: condition.message.clone(),
    }
}

/// Spec: KEP-2149: the id of the cluster in its clusterset.
const ID_PROPERTY: &str = "cluster.clusterset.k8s.io";
