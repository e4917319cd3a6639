//! What there is in a cluster, as one JSON value that tables are made of. Pure.

use isthmus_model::name::SYSTEM_NAMESPACE;
use serde_json::{Value, json};

use super::condition::{RawCondition, RawStatus, conditions};
use super::objects::{ROUTES, is_ours};
use super::system::{self, Leader, replicas};
use super::{Inspection, items, judge, text};
use crate::link::{CONFIG_MAP, Invitation};

/// The state of a cluster.
///
/// Fields: `installed`, `cluster`, `clusterset`, `trustDomain`, `addresses`, `version`,
/// `leader`, `deployments`, `gateways`, `routes`, `links`, `imports`, `exports`,
/// `problems` (how many findings [`judge`](judge::judge) has that are no notes).
pub fn summary(inspection: &Inspection) -> Value {
    let invitation = inspection.find("ConfigMap", SYSTEM_NAMESPACE, CONFIG_MAP);
    let invitation = invitation.and_then(|map| Invitation::from_config_map(map).ok());
    let of = |field: fn(&Invitation) -> Value| invitation.as_ref().map_or(Value::Null, field);
    let findings = judge::judge(inspection);
    let problems = findings.iter().filter(|it| it.weight == judge::Weight::Problem).count();
    json!({
        "installed": system::absence(inspection).is_none(),
        "cluster": of(|it| json!(it.cluster.as_str())),
        "clusterset": of(|it| json!(it.clusterset.as_str())),
        "trustDomain": of(|it| json!(it.trust_domain.as_str())),
        "addresses": of(|it| json!(it.addresses)),
        "version": version(inspection),
        "leader": match system::leader(inspection) {
            Leader::Known(holder) => json!(holder),
            Leader::Nobody(_) | Leader::Unread => Value::Null,
        },
        "deployments": inspection.of("Deployment").iter().map(deployment).collect::<Vec<_>>(),
        "gateways": inspection.of("Gateway").iter()
            .filter(|gateway| is_ours(inspection, gateway))
            .map(|gateway| self::gateway(inspection, gateway))
            .collect::<Vec<_>>(),
        "routes": routes(inspection),
        "links": links(inspection.of("ClusterLink"), inspection.of("ServiceImport")),
        "imports": inspection.of("ServiceImport").iter().map(import).collect::<Vec<_>>(),
        "exports": inspection.of("ServiceExport").iter().map(export).collect::<Vec<_>>(),
        "problems": problems,
    })
}

/// ClusterLinks as `isthmus link status` shows them. The numbers are those that a
/// controller writes into the status; what it does not write is null, but for the imports,
/// which are counted by the clusters of ServiceImports.
pub fn links(links: &[Value], imports: &[Value]) -> Vec<Value> {
    links.iter().map(|one| link(one, imports)).collect()
}

fn link(link: &Value, imports: &[Value]) -> Value {
    let status = &link["status"];
    let known = conditions(status);
    let of = |kind: &str| known.iter().find(|condition| condition.kind == kind);
    let (accepted, connected) = (of("Accepted"), of("Connected"));
    let state = match (accepted.map(|it| it.status), connected.map(|it| it.status)) {
        (Some(RawStatus::False), _) => "refused",
        (_, Some(RawStatus::True)) => "connected",
        (_, Some(RawStatus::False)) => "down",
        (_, Some(RawStatus::Unknown) | None) => "pending",
    };
    let why = match state {
        "refused" => accepted,
        _ => connected,
    };
    let pick = |names: &[&str]| {
        let found = names.iter().find_map(|name| status.pointer(name));
        found.cloned().unwrap_or_default()
    };
    let cluster = crate::link::agree::cluster_of(link);
    let mut imported = pick(&["/importedServices", "/servicesImported"]);
    if imported.is_null() {
        let is_its = |import: &&Value| {
            items(import, "/status/clusters").iter().any(|it| text(it, "/cluster") == cluster)
        };
        imported = json!(imports.iter().filter(is_its).count());
    }
    json!({
        "name": text(link, "/metadata/name"),
        "cluster": cluster,
        "trustDomain": text(link, "/spec/trustDomain"),
        "addresses": items(link, "/spec/addresses"),
        "dial": link.pointer("/spec/dial").cloned().unwrap_or_else(|| {
            json!(!items(link, "/spec/addresses").is_empty())
        }),
        "state": state,
        "reason": why.map_or("", |it| it.reason.as_str()),
        "message": why.map_or("", |it| it.message.as_str()),
        "transport": pick(&["/transport"]),
        "rttMicros": pick(&["/rttMicros", "/rttMicroseconds"]),
        "imported": imported,
        "exported": pick(&["/exportedServices", "/servicesExported"]),
        "lease": pick(&["/lease"]),
    })
}

/// The version of the controller: its label, or the tag of its image.
fn version(inspection: &Inspection) -> Value {
    let controller = inspection.find("Deployment", SYSTEM_NAMESPACE, system::CONTROLLER);
    let Some(controller) = controller else { return Value::Null };
    let labels = controller.pointer("/metadata/labels");
    let label = labels.and_then(|all| all.get("app.kubernetes.io/version")?.as_str());
    let image = text(controller, "/spec/template/spec/containers/0/image");
    let tag = image.rsplit_once(':').map(|(_, tag)| tag).filter(|tag| !tag.contains('/'));
    label.or(tag).map_or(Value::Null, Value::from)
}

fn deployment(deployment: &Value) -> Value {
    let (wanted, available) = replicas(deployment);
    let ready = deployment.pointer("/status/readyReplicas").and_then(Value::as_u64).unwrap_or(0);
    json!({
        "namespace": text(deployment, "/metadata/namespace"),
        "name": text(deployment, "/metadata/name"),
        "wanted": wanted,
        "ready": ready,
        "available": available,
        "image": text(deployment, "/spec/template/spec/containers/0/image"),
    })
}

fn gateway(inspection: &Inspection, gateway: &Value) -> Value {
    let known = conditions(&gateway["status"]);
    let programmed = known.iter().find(|it| it.part.is_empty() && it.kind == "Programmed");
    let attached = items(gateway, "/status/listeners")
        .iter()
        .filter_map(|listener| listener.get("attachedRoutes")?.as_u64())
        .fold(0, u64::saturating_add);
    let addresses: Vec<&str> =
        items(gateway, "/status/addresses").iter().map(|at| text(at, "/value")).collect();
    json!({
        "namespace": text(gateway, "/metadata/namespace"),
        "name": text(gateway, "/metadata/name"),
        "class": text(gateway, "/spec/gatewayClassName"),
        "addresses": addresses,
        "programmed": programmed.map_or("Unknown", word),
        "reason": programmed.map_or("", |it| it.reason.as_str()),
        "message": programmed.map_or("", |it| it.message.as_str()),
        "listeners": items(gateway, "/spec/listeners").len(),
        "attachedRoutes": attached,
        "pods": pods(inspection, gateway),
    })
}

/// Available pods of the Deployments that have the Gateway's name on them.
///
/// Spec: GEP-1762, resources of a Gateway carry its name in a label.
fn pods(inspection: &Inspection, gateway: &Value) -> Value {
    let name = text(gateway, "/metadata/name");
    let mut own = inspection.of("Deployment").iter().filter(|deployment| {
        let labels = deployment.pointer("/metadata/labels");
        text(deployment, "/metadata/namespace") == text(gateway, "/metadata/namespace")
            && labels.and_then(|all| all.get(GATEWAY_LABEL)?.as_str()) == Some(name)
    });
    own.next().map_or(Value::Null, |deployment| {
        let (wanted, available) = replicas(deployment);
        json!(format!("{available}/{wanted}"))
    })
}

/// How many routes of each kind there are.
fn routes(inspection: &Inspection) -> Value {
    let count = |kind: &&str| ((*kind).to_owned(), json!(inspection.of(kind).len()));
    let counts = ROUTES.iter().map(count).filter(|(_, count)| *count != json!(0));
    Value::Object(counts.collect())
}

fn import(import: &Value) -> Value {
    let clusters: Vec<&str> =
        items(import, "/status/clusters").iter().map(|it| text(it, "/cluster")).collect();
    // v1beta1 has these fields at the top, v1alpha1 in spec.
    let of = |field: &str| {
        let nested = import.pointer(&format!("/spec/{field}"));
        import.get(field).or(nested).cloned().unwrap_or_default()
    };
    let ports = of("ports");
    let ports: Vec<Value> =
        items(&ports, "").iter().filter_map(|port| port.get("port").cloned()).collect();
    json!({
        "namespace": text(import, "/metadata/namespace"),
        "name": text(import, "/metadata/name"),
        "type": of("type"),
        "addresses": of("ips"),
        "ports": ports,
        "clusters": clusters,
    })
}

fn export(export: &Value) -> Value {
    let known = conditions(&export["status"]);
    let bad: Vec<String> =
        known.iter().filter(|it| it.is_problem()).map(ToString::to_string).collect();
    let valid = known.iter().find(|condition| condition.kind == "Valid");
    json!({
        "namespace": text(export, "/metadata/namespace"),
        "name": text(export, "/metadata/name"),
        "valid": valid.map_or("Unknown", word),
        "problems": bad,
    })
}

fn word(condition: &RawCondition) -> &'static str {
    match condition.status {
        RawStatus::False => "False",
        RawStatus::True => "True",
        RawStatus::Unknown => "Unknown",
    }
}

const GATEWAY_LABEL: &str = "gateway.networking.k8s.io/gateway-name";
