//! From what is known to what is published: pure, total, the same for the same inputs.
//!
//! [`federate`] takes this cluster's exports, the links and what the peers brought, and
//! gives the model's resources, what each peer gets to see, and the conditions of
//! ServiceExports and ServiceImports. It decides everything; who executes its result
//! makes no choices.
//!
//! # Flow
//!
//! 1. [`inputs`]: what is known.
//! 2. [`endpoint_id`]: local endpoints get ids that say nothing.
//! 3. [`export`]: what each peer gets to see, and the gateway's allow-list.
//! 4. [`import`]: merged services with endpoints of all clusters.
//! 5. [`unmeshed`]: who serves imports to pods without a sidecar, and at which port.
//! 6. [`peer`]: linked clusters, trust bundles, and the reserved service of controllers.
//! 7. [`link`]: measured links, without their noise.
//! 8. [`translate`]: the inputs from configuration, and its resources merged in.

pub mod inputs;

pub mod endpoint_id;

pub mod export;

pub mod import;

pub mod unmeshed;

pub mod peer;

pub mod link;

pub mod translate;

use std::collections::BTreeMap;
use std::sync::Arc;

use isthmus_model::{ClusterId, Resource, ResourceKey, Service, ServiceKey};

use crate::mcs::{Condition, ImportPort, VipPool};
use crate::proto::{Entry, EntryKey, ExportedMetadata, ExportedTraffic, ServiceName};

pub use self::endpoint_id::EndpointSecret;
pub use self::inputs::{ExportInvalid, Inputs, LinkRules, OwnCluster, OwnExport, PeerView};
pub use self::link::{LinkTable, LinkTableLimits};
pub use self::translate::{Configuration, Configured, LinkRefused, Plan, configured, plan};

/// What follows from the inputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Federated {
    /// Peers, bundles, imports with their endpoints, and the allow-list.
    pub resources: BTreeMap<ResourceKey, Arc<Resource>>,
    /// The ServiceImports that exist now, which routes may name.
    pub imports: BTreeMap<ServiceKey, Service>,
    /// What each linked peer gets to see.
    pub publications: BTreeMap<ClusterId, BTreeMap<EntryKey, Arc<Entry>>>,
    /// Conditions of the ServiceExports of this cluster.
    pub export_conditions: BTreeMap<ServiceName, Vec<Condition>>,
    /// ServiceImports: who contributes, who won, and their conditions.
    pub import_status: BTreeMap<ServiceName, ImportStatus>,
    /// The ClusterSetIPs of our own range, to be kept.
    pub vips: VipPool,
    /// The port at which the gateway serves a port of an import to pods without a sidecar.
    pub unmeshed: BTreeMap<(ServiceName, u16), u16>,
}

/// The status of one ServiceImport.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportStatus {
    /// Clusters that export the service.
    pub clusters: Vec<ClusterId>,
    /// The cluster whose export is the oldest.
    pub winner: ClusterId,
    /// Its conditions.
    pub conditions: Vec<Condition>,
    /// What the exports disagree about.
    pub conflict: Option<String>,
    /// Its ports, with the clusters that expose each.
    pub ports: Vec<ImportPort>,
    /// How its traffic is spread.
    pub traffic: ExportedTraffic,
    /// Its labels and annotations.
    pub metadata: ExportedMetadata,
}

/// Decides what follows from the inputs.
pub fn federate(inputs: &Inputs<'_>) -> Federated {
    let exported = export::plan_exports(inputs);
    let imported = import::plan_imports(inputs);
    let mut resources = Vec::new();
    resources.extend(exported.resources);
    resources.extend(imported.resources);
    let unmeshed = unmeshed::plan_unmeshed(inputs, &imported.services);
    resources.extend(unmeshed.resources);
    resources.extend(peer::plan_peers(inputs));
    let mut export_conditions = exported.conditions;
    for (name, conditions) in &mut export_conditions {
        if let Some(conflict) = imported.conflicts.get(name) {
            conditions.push(Condition::conflict(conflict.as_ref()));
        }
    }
    Federated {
        resources: resources.into_iter().map(|r| (r.key(), Arc::new(r))).collect(),
        imports: imported.services,
        publications: exported.publications,
        export_conditions,
        import_status: imported.status,
        vips: imported.vips,
        unmeshed: unmeshed.ports,
    }
}

#[cfg(test)]
mod tests;
