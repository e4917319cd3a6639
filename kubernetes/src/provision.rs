//! What every Gateway of ours needs in the cluster: processes, an identity, a Service.
//!
//! Pure: the same objects, settings and observed state give the same plan. A Gateway has
//! processes of its own in its namespace, or, with parameters of mode `Shared`, it is
//! served together with all others of these parameters in their namespace. Both are a
//! *set*: ServiceAccount, ConfigMap of settings, Service, Deployment and, with several
//! pods, a PodDisruptionBudget, all of one name. Listeners are no part of the pods: they
//! arrive by discovery, so a changed listener changes the Service and restarts nothing.
//!
//! Every object names the Gateway (or the parameters) as its owner, so that it goes with
//! it even while no controller runs; what is superfluous for another reason is deleted by
//! [`crate::apply::plan`]. The ConfigMap of the roots has no owner: it is that of its
//! whole namespace.

mod name;
mod nodes;
pub mod place;
mod pods;
mod reach;
mod service;
mod set;
mod settings;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use isthmus_config::{Kind, ObjectKey, ObjectRef, Objects};
use isthmus_model::{ClusterId, ObjectName, SpiffeId, TrustDomain, name::SYSTEM_NAMESPACE};
use serde_json::{Value, json};

pub use crate::provision::place::{GatewayPlace, PlaceAddress, PlaceProblem};
use crate::provision::reach::ByName;
use crate::provision::set::Set;
use crate::source::{NodeState, PodState};

/// What is planned from.
#[derive(Debug, Clone, Copy)]
pub struct ProvisionInputs<'i> {
    /// The objects of the cluster.
    pub objects: &'i Objects,
    /// The uids of Gateways and GatewayParameters, as [`uids`] finds them. What is not
    /// among them is being deleted and gets nothing.
    pub uids: &'i BTreeMap<ObjectRef, String>,
    /// What all gateways have in common.
    pub settings: &'i ProvisionSettings,
    /// Our objects as the server has them, from [`crate::Observed`].
    pub observed: &'i [&'i Value],
    /// The nodes, for Services of type NodePort; without addresses of theirs the place of
    /// such a Gateway is the address inside the cluster.
    pub nodes: &'i [NodeState],
    /// The pods; those of the gateways are among them.
    pub pods: &'i [PodState],
}

/// What all gateways of a cluster have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvisionSettings {
    /// The image, whose entry point is the binary.
    pub image: String,
    /// `imagePullPolicy` of the pods; `None` leaves the choice to the server.
    pub image_pull_policy: Option<String>,
    /// This cluster.
    pub cluster: ClusterId,
    /// Its clusterset.
    pub clusterset: ObjectName,
    /// Its trust domain.
    pub trust_domain: TrustDomain,
    /// The region of pods that their labels do not place; empty is none.
    pub region: String,
    /// The zone of such pods; empty is none.
    pub zone: String,
    /// `host:port` of the authority that takes tokens.
    pub authority: String,
    /// `host:port` of discovery.
    pub discovery: String,
    /// `ip:port` of the east-west gateway; `None` reaches no other cluster.
    pub eastwest: Option<String>,
    /// The roots of the cluster, PEM.
    pub roots_pem: String,
    /// The OTLP collector.
    pub otlp: Option<String>,
    /// The filter of the process log.
    pub log_filter: String,
    /// Where pods bind listeners and probes: `::`, or `0.0.0.0` where nodes have no IPv6.
    pub bind: IpAddr,
}

/// What is to be in the cluster, and where Gateways are.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Provisioned {
    /// The objects, in the order in which they are to be written.
    pub objects: Vec<Value>,
    /// Where each Gateway is reached.
    pub places: BTreeMap<ObjectKey, GatewayPlace>,
}

/// The uids of the Gateways and GatewayParameters among documents of the API server,
/// without those that are being deleted.
pub fn uids<'v>(documents: impl IntoIterator<Item = &'v Value>) -> BTreeMap<ObjectRef, String> {
    let mut found = BTreeMap::new();
    for value in documents {
        // Every object of the cluster comes by here, so nothing is copied for its kind.
        let top = |field| value.get(field).and_then(Value::as_str).unwrap_or_default();
        let group = top("apiVersion").split_once('/').map_or("", |(group, _)| group);
        let kinds = [Kind::Gateway, Kind::GatewayParameters].into_iter();
        let mut kinds = kinds.filter(|k| k.label() == top("kind") && k.group() == group);
        let Some(kind) = kinds.next() else { continue };
        let text = |pointer| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let uid = text("/metadata/uid");
        if uid.is_empty() || !text("/metadata/deletionTimestamp").is_empty() {
            continue;
        }
        let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
        let reference = ObjectRef { kind, namespace: namespace.to_owned(), name: name.to_owned() };
        found.insert(reference, uid.to_owned());
    }
    found
}

/// The identity of the processes that serve each Gateway of ours.
pub fn served_by(objects: &Objects, trust_domain: &TrustDomain) -> BTreeMap<ObjectKey, SpiffeId> {
    let mut found = BTreeMap::new();
    for set in set::sets(objects) {
        let identity = SpiffeId::workload(trust_domain, &set.namespace, &set.name);
        for served in &set.gateways {
            found.insert(served.gateway.key.clone(), identity.clone());
        }
    }
    found
}

/// Plans the objects of every Gateway of ours, and reads where Gateways are.
pub fn desired(inputs: &ProvisionInputs<'_>) -> Provisioned {
    let mut provisioned = Provisioned::default();
    let sets: Vec<(Set<'_>, &String)> =
        set::sets(inputs.objects).into_iter().filter_map(|set| set.living(inputs.uids)).collect();
    let mut namespaces: BTreeSet<&str> =
        sets.iter().map(|(set, _)| set.namespace.as_str()).collect();
    namespaces.insert(SYSTEM_NAMESPACE);
    for namespace in namespaces {
        provisioned.objects.push(roots(namespace, &inputs.settings.roots_pem));
    }
    let observed = reach::by_name(inputs.observed);
    for (set, uid) in &sets {
        one(inputs, &observed, (set, uid.as_str()), &mut provisioned);
    }
    provisioned
}

/// The objects of one set with the uid of its owner, and the places of its Gateways.
fn one(
    inputs: &ProvisionInputs<'_>,
    observed: &ByName<'_>,
    (set, uid): (&Set<'_>, &str),
    out: &mut Provisioned,
) {
    let seen = |kind: &str| reach::find(observed, kind, set);
    let settings = settings::text(inputs.settings, set);
    let (deployment, service) = (seen("Deployment"), seen("Service"));
    out.objects.push(pods::account(set, uid));
    out.objects.push(settings::config_map(set, uid, &settings));
    out.objects.extend(service::service(set, uid, service));
    out.objects.push(pods::deployment(set, uid, inputs.settings, &settings));
    out.objects.extend(pods::disruption_budget(set, uid));
    for served in &set.gateways {
        let place = reach::place(&reach::Seen {
            set,
            gateway: served.gateway,
            service,
            deployment,
            nodes: inputs.nodes,
            pods: inputs.pods,
        });
        out.places.insert(served.gateway.key.clone(), place);
    }
}

/// The roots that pods trust before they have a certificate. They are no part of the hash
/// of a pod: a new root must restart nothing.
fn roots(namespace: &str, pem: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": ROOTS_CONFIG_MAP,
            "namespace": namespace,
            "labels": { "app.kubernetes.io/name": "isthmus" },
        },
        "data": { ROOTS_KEY: pem },
    })
}

/// The ConfigMap with the roots of the cluster, in every namespace with pods of ours.
pub const ROOTS_CONFIG_MAP: &str = "isthmus-roots";
/// Its key.
pub const ROOTS_KEY: &str = "roots.pem";

#[cfg(test)]
mod tests;
