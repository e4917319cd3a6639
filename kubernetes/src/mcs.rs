//! The Multi-Cluster Services API as objects: what federation decided, for everybody who
//! reads it from the API server. Pure.
//!
//! A pod without a sidecar must reach an imported service too. Each import of type
//! ClusterSetIP therefore has a *derived Service*, without a selector: the address that
//! the cluster gives it is the ClusterSetIP, and the cluster's own proxy carries
//! connections to the endpoints of its EndpointSlices. Those are not the service's pods,
//! which another cluster cannot reach, but the pods of our east-west gateway, at a port
//! that means this port of this import. So the address goes round in a circle that this
//! module closes: [`clusterset_ips`] and [`given_ports`] read from the cluster what was
//! given there, federation decides with it, and [`desired`] writes what follows.
//!
//! The derived Service has a name that is a hash, and nobody meets it by accident. If a
//! Service has the name that is not ours it is left alone, and the import says so. A
//! ServiceImport is ours by the specification, whoever made it.
//!
//! A controller that begins with nothing, on another node perhaps, does not know what other
//! clusters export before it has heard them. What its predecessor wrote for them stays until
//! then: a derived Service that is deleted and made again has another address.
//!
//! Nothing here changes with time alone, so nothing is written while nothing changes.
//!
//! Spec: KEP-1645; `multicluster.x-k8s.io` of sigs.k8s.io/mcs-api v0.5.2.
//!
//! # Flow
//!
//! 1. `names`: names, labels and reading them back.
//! 2. `import`: ServiceImports.
//! 3. `service`: derived Services.
//! 4. `slices`: their EndpointSlices.
//! 5. `unheard`: what is kept for clusters that have not been heard yet.
//! 6. `statuses`: statuses of ServiceExports, ServiceImports and ClusterLinks.

mod import;

mod names;

mod service;

mod slices;

mod statuses;

mod unheard;

use std::collections::BTreeSet;

use isthmus_config::objects::{IpFamily, ServiceType};
use isthmus_federation::Decided;
use isthmus_federation::plan::ImportStatus;
use isthmus_federation::proto::ServiceName;
use isthmus_model::{Service, ServiceKey};
use serde_json::Value;

pub use self::names::{clusterset_ips, given_ports};
use crate::source::{NodeState, PodState};

/// What the objects are made from.
#[derive(Debug, Clone, Copy)]
pub struct McsInputs<'i> {
    /// What the controller decided.
    pub decided: &'i Decided,
    /// The pods; those of the east-west gateway are among them.
    pub pods: &'i [PodState],
    /// The nodes.
    pub nodes: &'i [NodeState],
    /// Our own objects as the server has them.
    pub observed: &'i [&'i Value],
    /// The user's objects as the server has them; ServiceExports and ClusterLinks are
    /// among them.
    pub documents: &'i [&'i Value],
}

/// What is to be written.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct McsPlan {
    /// ServiceImports, derived Services and EndpointSlices, for [`crate::apply::plan`].
    pub objects: Vec<Value>,
    /// Statuses, for [`crate::apply::plan_status`] with [`OWN_CONDITIONS`].
    pub statuses: Vec<Value>,
}

/// Everything that is to be written, ordered by namespace and name of the imports.
pub fn desired(inputs: &McsInputs<'_>) -> McsPlan {
    let world = World::new(inputs);
    let mut plan = McsPlan::default();
    for (name, status) in &inputs.decided.plan.federated.import_status {
        let key = ServiceKey::clusterset(name.namespace.clone(), name.name.clone());
        let Some(service) = inputs.decided.plan.federated.imports.get(&key) else { continue };
        let import = Import { name, status, service, derived: names::derived(name) };
        let is_refused = !service.headless && world.is_of_others(&import);
        plan.objects.push(import::object(&world, &import, is_refused));
        plan.statuses.push(statuses::import(&world, &import, is_refused));
        if service.headless {
            plan.objects.extend(slices::of_own_pods(&world, &import));
        } else if !is_refused {
            plan.objects.push(service::object(&world, &import));
            plan.objects.extend(slices::of_gateways(&world, &import));
        }
    }
    plan.objects.extend(unheard::kept(inputs));
    plan.statuses.extend(statuses::exports(inputs));
    plan.statuses.extend(statuses::links(inputs));
    plan
}

/// One ServiceImport.
struct Import<'i> {
    name: &'i ServiceName,
    status: &'i ImportStatus,
    service: &'i Service,
    /// The name of its derived Service.
    derived: String,
}

/// The inputs, and what follows from them for every import.
struct World<'i> {
    inputs: &'i McsInputs<'i>,
    /// The `apiVersion` of ServiceImports.
    import_version: &'static str,
    /// The IP families of the cluster, as far as its Services show them.
    families: BTreeSet<IpFamily>,
    /// The pods of the east-west gateway, ordered by name.
    gateways: Vec<&'i PodState>,
}

impl<'i> World<'i> {
    fn new(inputs: &'i McsInputs<'i>) -> Self {
        let mut gateways: Vec<_> =
            inputs.pods.iter().filter(|pod| names::is_gateway(pod)).collect();
        gateways.sort_by_key(|pod| &pod.name);
        let services = inputs.decided.configuration.objects.services.values();
        let given = services.flat_map(|service| match &service.service_type {
            ServiceType::ClusterIp(addresses) => addresses.as_slice(),
            ServiceType::ExternalName(_) | ServiceType::Headless => &[],
        });
        let bound = gateways.iter().flat_map(|pod| &pod.addresses);
        let families = given.chain(bound).map(|address| IpFamily::of(*address)).collect();
        let import_version = names::import_version(inputs);
        Self { inputs, import_version, families, gateways }
    }

    /// Whether the name of the derived Service belongs to somebody else.
    fn is_of_others(&self, import: &Import<'_>) -> bool {
        let services = &self.inputs.decided.configuration.objects.services;
        let found = services.values().find(|service| {
            service.key.namespace == import.name.namespace
                && service.key.name.as_str() == import.derived
        });
        found.is_some_and(|service| !service.is_derived())
    }

    /// One of our own objects as the server has it.
    fn observed(&self, kind: &str, import: &Import<'_>, name: &str) -> Option<&'i Value> {
        self.inputs.observed.iter().copied().find(|object| {
            names::text(object, "/kind") == kind
                && names::text(object, "/metadata/name") == name
                && names::text(object, "/metadata/namespace") == import.name.namespace.as_str()
        })
    }
}

/// The types of the conditions that [`desired`] writes.
pub const OWN_CONDITIONS: &[&str] = &["Accepted", "Conflict", "Connected", "Ready", "Valid"];

#[cfg(test)]
mod tests;
