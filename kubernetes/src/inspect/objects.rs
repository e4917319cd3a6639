//! What the conditions of the users' objects say, and what is not said at all.

use isthmus_config::CONTROLLER_NAME;
use serde_json::Value;

use super::condition::{RawCondition, conditions};
use super::judge::Finding;
use super::{Inspection, items, name_of, text};

/// Findings of Gateways, routes, ListenerSets, policies, exports, imports and links.
pub(super) fn findings(inspection: &Inspection) -> Vec<Finding> {
    let mut findings = Vec::new();
    for class in inspection.of("GatewayClass") {
        if text(class, "/spec/controllerName") == CONTROLLER_NAME {
            judge(class, Whose::Ours, &mut findings);
        }
    }
    for gateway in inspection.of("Gateway") {
        if is_ours(inspection, gateway) {
            judge(gateway, Whose::Ours, &mut findings);
            address(gateway, &mut findings);
        }
    }
    for set in inspection.of("ListenerSet") {
        if gateway_of(inspection, set).is_some_and(|gateway| is_ours(inspection, gateway)) {
            judge(set, Whose::Ours, &mut findings);
        }
    }
    for kind in ROUTES.iter().chain(&["BackendTLSPolicy", "ServiceImport"]) {
        inspection.of(kind).iter().for_each(|object| judge(object, Whose::Shared, &mut findings));
    }
    for kind in ["ServiceExport", "ClusterLink"] {
        inspection.of(kind).iter().for_each(|object| judge(object, Whose::Ours, &mut findings));
    }
    findings
}

/// Whether an object belongs to us alone, so that we must say something of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    Ours,
    Shared,
}

fn judge(object: &Value, whose: Whose, findings: &mut Vec<Finding>) {
    let known = conditions(&object["status"]);
    let is_unjudged = known.iter().all(RawCondition::is_pending);
    if whose == Whose::Ours && is_unjudged {
        let advice = "the controller writes one within seconds: see its Deployment and its log";
        findings.push(Finding::problem(name_of(object), "has no conditions from Isthmus", advice));
        return;
    }
    for condition in known.iter().filter(|condition| condition.is_problem()) {
        let advice = advice(condition);
        findings.push(Finding::problem(name_of(object), condition.to_string(), advice));
    }
    let generation = object.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or(0);
    let seen = known.iter().map(|condition| condition.observed_generation).max().unwrap_or(0);
    if seen > 0 && seen < generation {
        let problem = format!("its conditions are of generation {seen}, and it is at {generation}");
        let advice = "ask again in some seconds; if it stays, see the controller's log";
        findings.push(Finding::note(name_of(object), problem, advice));
    }
}

fn address(gateway: &Value, findings: &mut Vec<Finding>) {
    if items(gateway, "/status/addresses").is_empty() {
        let (namespace, name) =
            (text(gateway, "/metadata/namespace"), text(gateway, "/metadata/name"));
        let advice = format!(
            "see `kubectl -n {namespace} get services -l gateway.networking.k8s.io/gateway-name={name}`: a LoadBalancer needs somebody who assigns addresses"
        );
        findings.push(Finding::problem(name_of(gateway), "has no address", advice));
    }
}

/// Whether a Gateway is of a class of ours.
pub(super) fn is_ours(inspection: &Inspection, gateway: &Value) -> bool {
    let class = text(gateway, "/spec/gatewayClassName");
    let class = inspection.find("GatewayClass", "", class);
    class.is_some_and(|class| text(class, "/spec/controllerName") == CONTROLLER_NAME)
}

fn gateway_of<'i>(inspection: &'i Inspection, set: &Value) -> Option<&'i Value> {
    let own = text(set, "/metadata/namespace");
    let named = text(set, "/spec/parentRef/namespace");
    let namespace = if named.is_empty() { own } else { named };
    inspection.find("Gateway", namespace, text(set, "/spec/parentRef/name"))
}

/// What to do about a condition, where its message does not say it.
///
/// Spec: the reasons are those of the Gateway API and KEP-1645.
fn advice(condition: &RawCondition) -> &'static str {
    match (condition.kind.as_str(), condition.reason.as_str()) {
        ("Accepted", "NoMatchingParent") => {
            "compare sectionName and port of the parentRef with the listeners"
        }
        ("Accepted", "NotAllowedByListeners") => {
            "let allowedRoutes of a listener take the route's namespace and kind"
        }
        ("Accepted", "NoMatchingListenerHostname") => {
            "give route and listener hostnames that have one in common"
        }
        (_, "RefNotPermitted") => "add a ReferenceGrant to the namespace that is referred to",
        (_, "BackendNotFound") => "create the backend or correct its name and namespace",
        (_, "InvalidCertificateRef") => "create the Secret of type kubernetes.io/tls that is named",
        ("Programmed", "AddressNotAssigned") => "see the Service of the Gateway",
        ("Conflicted", _) => "give the listeners different ports, protocols or hostnames",
        ("Conflict", _) => {
            "make the exports of all clusters equal; the oldest one counts until then"
        }
        ("Connected", _) => {
            "see `isthmus link status -o wide`, and whether the addresses of the link can be reached"
        }
        ("Valid", _) => "the Service must exist, and not be of type ExternalName",
        _ => "",
    }
}

/// The kinds of routes.
pub(super) const ROUTES: &[&str] = &["HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute", "UDPRoute"];
