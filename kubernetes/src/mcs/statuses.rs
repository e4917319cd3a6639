//! Statuses of ServiceImports, ServiceExports and ClusterLinks.

use isthmus_config::{ConditionPart, ConditionType, Kind, ObjectRef};
use isthmus_federation::mcs::{Condition, ConditionStatus};
use isthmus_federation::plan::LinkRefused;
use isthmus_federation::proto::ServiceName;
use isthmus_federation::{LeaseStatus, PeerState};
use isthmus_model::{Label, ObjectName};
use serde_json::{Value, json};

use crate::mcs::names::text;
use crate::mcs::{Import, McsInputs, World};

/// The status of a ServiceImport.
pub(super) fn import(world: &World<'_>, import: &Import<'_>, is_refused: bool) -> Value {
    let observed = world.observed("ServiceImport", import, import.name.name.as_str());
    let generation = observed.and_then(|object| object.pointer("/metadata/generation")?.as_i64());
    let conditions: Vec<Value> = if is_refused {
        let message = format!(
            "the derived Service cannot be made: Service {}/{} is of somebody else; delete it",
            import.name.namespace, import.derived
        );
        vec![condition("Ready", "False", "Pending", &message, generation)]
    } else {
        import.status.conditions.iter().map(|it| of_federation(it, generation)).collect()
    };
    let clusters: Vec<Value> =
        import.status.clusters.iter().map(|cluster| json!({ "cluster": cluster })).collect();
    json!({
        "apiVersion": world.import_version,
        "kind": "ServiceImport",
        "metadata": { "namespace": import.name.namespace, "name": import.name.name },
        "status": { "clusters": clusters, "conditions": conditions },
    })
}

/// The statuses of the ServiceExports.
pub(super) fn exports(inputs: &McsInputs<'_>) -> Vec<Value> {
    let known = &inputs.decided.plan.federated.export_conditions;
    let exports = inputs.documents.iter().copied();
    let exports = exports.filter(|it| text(it, "/kind") == "ServiceExport");
    let status = |export: &Value| {
        let (namespace, name) =
            (text(export, "/metadata/namespace"), text(export, "/metadata/name"));
        let key = ServiceName::new(Label::new(namespace).ok()?, Label::new(name).ok()?);
        let object = ObjectRef {
            kind: Kind::ServiceExport,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        let generation = generation(inputs, &object);
        let conditions: Vec<Value> =
            known.get(&key)?.iter().map(|it| of_federation(it, generation)).collect();
        Some(with_status(export, json!({ "conditions": conditions })))
    };
    exports.filter_map(status).collect()
}

/// The statuses of the ClusterLinks.
pub(super) fn links(inputs: &McsInputs<'_>) -> Vec<Value> {
    let links = inputs.documents.iter().copied();
    let links = links.filter(|it| text(it, "/kind") == "ClusterLink");
    let status = |link: &Value| {
        let name = text(link, "/metadata/name");
        let known = &inputs.decided.configuration.objects.cluster_links;
        let object = known.get(&ObjectName::new(name).ok()?)?;
        let refused = inputs.decided.refused_links.get(name);
        let peer = inputs.decided.peer(&object.cluster).filter(|_| refused.is_none());
        let reference = ObjectRef::cluster(Kind::ClusterLink, name);
        let generation = generation(inputs, &reference);
        let mut status = json!({ "conditions": [
            accepted(inputs, &reference, refused, generation),
            connected(peer, generation),
        ]});
        if let Some(peer) = peer {
            status["lease"] = json!(peer.lease);
            status["servicesImported"] = json!(peer.services_imported);
            status["servicesExported"] = json!(peer.services_exported);
            if let Some(transport) = peer.transport {
                status["transport"] = json!(transport.label());
            }
        }
        Some(with_status(link, status))
    };
    links.filter_map(status).collect()
}

fn accepted(
    inputs: &McsInputs<'_>,
    link: &ObjectRef,
    refused: Option<&LinkRefused>,
    generation: Option<i64>,
) -> Value {
    // Translation and federation refuse for the same reasons; federation has one more.
    let said = inputs.decided.plan.conditions.iter().find(|said| {
        said.object == *link
            && said.part == ConditionPart::Object
            && said.condition == ConditionType::Accepted
    });
    match (said, refused) {
        (Some(said), _) if !said.status => {
            condition("Accepted", "False", said.reason, &said.message, generation)
        }
        (_, Some(refused)) => {
            let reason = match refused {
                LinkRefused::Own => "Invalid",
                LinkRefused::Taken { .. } => "Conflicted",
                LinkRefused::TooMany => "TooMany",
            };
            condition("Accepted", "False", reason, &refused.to_string(), generation)
        }
        (_, None) => condition("Accepted", "True", "Accepted", "", generation),
    }
}

fn connected(peer: Option<&PeerState>, generation: Option<i64>) -> Value {
    let say =
        |status, reason, message: &str| condition("Connected", status, reason, message, generation);
    let Some(peer) = peer else {
        return say("False", "NotAccepted", "the link is not used");
    };
    let because = |text: &str| match &peer.last_error {
        Some(error) => format!("{text}: {error}"),
        None => text.to_owned(),
    };
    match peer.lease {
        LeaseStatus::Valid if peer.holding => say(
            "True",
            "Holding",
            "the other cluster has lost most of its services at once; what it had is kept for \
             a while",
        ),
        LeaseStatus::Valid => say("True", "Connected", ""),
        LeaseStatus::Expired => {
            say("False", "LeaseExpired", &because("the other cluster is not heard any more"))
        }
        LeaseStatus::Never => {
            say("False", "Pending", &because("the other cluster has not been heard yet"))
        }
    }
}

fn of_federation(it: &Condition, generation: Option<i64>) -> Value {
    let status = match it.status {
        ConditionStatus::False => "False",
        ConditionStatus::True => "True",
        ConditionStatus::Unknown => "Unknown",
    };
    condition(it.kind, status, &it.reason, &it.message, generation)
}

fn condition(
    kind: &str,
    status: &str,
    reason: &str,
    message: &str,
    generation: Option<i64>,
) -> Value {
    let mut value = json!({ "type": kind, "status": status, "reason": reason, "message": message });
    if let Some(generation) = generation {
        value["observedGeneration"] = json!(generation);
    }
    value
}

/// The generation that was decided about.
fn generation(inputs: &McsInputs<'_>, object: &ObjectRef) -> Option<i64> {
    inputs.decided.configuration.objects.generations.get(object)
}

fn with_status(object: &Value, status: Value) -> Value {
    let mut metadata = json!({ "name": text(object, "/metadata/name") });
    let namespace = text(object, "/metadata/namespace");
    if !namespace.is_empty() {
        metadata["namespace"] = json!(namespace);
    }
    json!({
        "apiVersion": text(object, "/apiVersion"),
        "kind": text(object, "/kind"),
        "metadata": metadata,
        "status": status,
    })
}
