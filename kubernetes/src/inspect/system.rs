//! The system's own parts: definitions, Deployments, the Lease, the stub domain.

use isthmus_model::name::SYSTEM_NAMESPACE;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use super::coredns::{self, StubDomain};
use super::judge::Finding;
use super::{Inspection, items, name_of, text};
use crate::status::release;

/// The finding of a cluster in which Isthmus is not installed.
pub(super) fn absence(inspection: &Inspection) -> Option<Finding> {
    let is_there = |name: &str| inspection.find("Deployment", SYSTEM_NAMESPACE, name).is_some();
    let has_link = !inspection.unserved.iter().any(|kind| kind == "ClusterLink");
    if PARTS.iter().any(|name| is_there(name)) || has_link && !inspection.has_read("Deployment") {
        return None;
    }
    let problem = format!("Isthmus is not installed: there is no Deployment {CONTROLLER}");
    Some(Finding::problem(
        format!("Namespace {SYSTEM_NAMESPACE}"),
        problem,
        "install it with `isthmus install` or the chart",
    ))
}

/// Kinds that are not served, and definitions of another release.
pub(super) fn definitions(inspection: &Inspection) -> Vec<Finding> {
    let mut findings = Vec::new();
    for kind in &inspection.unserved {
        let advice = "apply the CustomResourceDefinitions: `isthmus install` does";
        let what = format!("CustomResourceDefinition of {kind}");
        findings.push(Finding::problem(what, "is not there", advice));
    }
    for (name, annotations) in inspection.definitions.iter().flatten() {
        if !name.ends_with(".gateway.networking.k8s.io") {
            continue;
        }
        let object = format!("CustomResourceDefinition {name}");
        let known = release::KNOWN;
        let Some(found) = annotations.get(release::ANNOTATION) else {
            let annotation = release::ANNOTATION;
            let problem = format!("has no annotation {annotation}, so its release is unknown");
            findings.push(Finding::note(object, problem, format!("apply those of {known}")));
            continue;
        };
        let problem = format!("is of release {found} of the Gateway API, and {known} is known");
        if !release::is_supported(found) {
            let advice = format!("apply the standard channel of {known}");
            findings.push(Finding::problem(object, problem, advice));
        } else if found != known {
            findings.push(Finding::note(object, problem, ""));
        }
    }
    findings
}

/// Parts that are absent, and Deployments of ours that lack pods, with what their pods say.
pub(super) fn deployments(inspection: &Inspection) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !inspection.has_read("Deployment") {
        return findings;
    }
    for name in PARTS {
        if inspection.find("Deployment", SYSTEM_NAMESPACE, name).is_none() {
            let object = format!("Deployment {SYSTEM_NAMESPACE}/{name}");
            findings.push(Finding::problem(object, "is not there", "run `isthmus install` again"));
        }
    }
    for deployment in inspection.of("Deployment") {
        let (wanted, available) = replicas(deployment);
        if wanted == 0 {
            let advice = "scale it up if that is not meant";
            findings.push(Finding::note(name_of(deployment), "is scaled to 0", advice));
        } else if available < wanted {
            let mut problem = format!("{available} of {wanted} pods are available");
            let reasons = pod_reasons(inspection, deployment);
            if !reasons.is_empty() {
                problem.push_str(&format!(": {}", reasons.join(", ")));
            }
            let namespace = text(deployment, "/metadata/namespace");
            let advice = format!("see `kubectl -n {namespace} describe pods` and their logs");
            findings.push(Finding::problem(name_of(deployment), problem, advice));
        }
    }
    findings
}

/// Pods that are wanted and available.
pub(super) fn replicas(deployment: &Value) -> (u64, u64) {
    let number = |pointer| deployment.pointer(pointer).and_then(Value::as_u64);
    (number("/spec/replicas").unwrap_or(1), number("/status/availableReplicas").unwrap_or_default())
}

/// Why the pods of a Deployment do not run, each reason once.
fn pod_reasons(inspection: &Inspection, deployment: &Value) -> Vec<String> {
    let mut reasons: Vec<String> = Vec::new();
    let selector = deployment.pointer("/spec/selector/matchLabels").and_then(Value::as_object);
    let Some(selector) = selector.filter(|selector| !selector.is_empty()) else { return reasons };
    for pod in inspection.of("Pod") {
        let labels = pod.pointer("/metadata/labels");
        let is_its = text(pod, "/metadata/namespace") == text(deployment, "/metadata/namespace")
            && selector
                .iter()
                .all(|(key, value)| labels.and_then(|all| all.get(key)) == Some(value));
        if !is_its {
            continue;
        }
        for reason in reasons_of(pod) {
            if !reasons.contains(&reason) && reasons.len() < REASONS_MAX {
                reasons.push(reason);
            }
        }
    }
    let failed = items(deployment, "/status/conditions").iter().find(|condition| {
        text(condition, "/type") == "ReplicaFailure" && text(condition, "/status") == "True"
    });
    reasons.extend(failed.map(|condition| text(condition, "/message").to_owned()));
    reasons
}

/// What keeps a pod from being ready, in the words of scheduler and kubelet.
fn reasons_of(pod: &Value) -> Vec<String> {
    let mut reasons = Vec::new();
    for pointer in ["/status/initContainerStatuses", "/status/containerStatuses"] {
        for container in items(pod, pointer) {
            let waiting = text(container, "/state/waiting/reason");
            if waiting.is_empty() || ["ContainerCreating", "PodInitializing"].contains(&waiting) {
                continue;
            }
            let message = text(container, "/state/waiting/message");
            let last = text(container, "/lastState/terminated/reason");
            let mut reason = waiting.to_owned();
            if let Some(code) = container.pointer("/lastState/terminated/exitCode") {
                reason.push_str(&format!(" ({last}, exit code {code})"));
            } else if !message.is_empty() {
                reason.push_str(&format!(" ({message})"));
            }
            reasons.push(reason);
        }
    }
    if !reasons.is_empty() {
        return reasons;
    }
    for condition in items(pod, "/status/conditions") {
        let (kind, message) = (text(condition, "/type"), text(condition, "/message"));
        let is_bad = text(condition, "/status") == "False" && !message.is_empty();
        if is_bad && ["PodScheduled", "ContainersReady"].contains(&kind) {
            reasons.push(message.to_owned());
        }
    }
    reasons
}

/// Who leads, if somebody does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Leader {
    /// Nobody: why.
    Nobody(String),
    /// This process.
    Known(String),
    /// The Lease was not read.
    Unread,
}

/// Who holds the Lease of the controller.
pub(super) fn leader(inspection: &Inspection) -> Leader {
    if !inspection.has_read("Lease") {
        return Leader::Unread;
    }
    let Some(lease) = inspection.find("Lease", SYSTEM_NAMESPACE, LEASE) else {
        return Leader::Nobody("is not there: no controller has led yet".to_owned());
    };
    let holder = text(lease, "/spec/holderIdentity");
    if holder.is_empty() {
        return Leader::Nobody("nobody holds it".to_owned());
    }
    let seconds = lease.pointer("/spec/leaseDurationSeconds").and_then(Value::as_i64).unwrap_or(15);
    let renewed: Option<Timestamp> = text(lease, "/spec/renewTime").parse().ok();
    let now = Timestamp::try_from(inspection.now).ok();
    if let (Some(renewed), Some(now)) = (renewed, now) {
        let age = now.as_second().saturating_sub(renewed.as_second());
        // Clocks of operator and cluster may differ by some seconds.
        if age > seconds.saturating_add(SKEW_SECONDS) {
            return Leader::Nobody(format!("{holder} has not renewed it for {age} s"));
        }
    }
    Leader::Known(holder.to_owned())
}

/// A Lease that nobody holds.
pub(super) fn lease(inspection: &Inspection) -> Option<Finding> {
    let Leader::Nobody(why) = leader(inspection) else { return None };
    let advice = format!(
        "no status is written and no change is taken: see the pods of Deployment {SYSTEM_NAMESPACE}/{CONTROLLER}"
    );
    Some(Finding::problem(format!("Lease {SYSTEM_NAMESPACE}/{LEASE}"), why, advice))
}

/// A CoreDNS that does not ask us for `clusterset.local`.
pub(super) fn stub_domain(inspection: &Inspection) -> Option<Finding> {
    let (namespace, name, zone) = (coredns::NAMESPACE, coredns::CONFIG_MAP, coredns::ZONE);
    let object = format!("ConfigMap {namespace}/{name}");
    let advice =
        format!("`isthmus install` adds the stub domain, without it pods do not resolve {zone}");
    if !inspection.has_read("ConfigMap") {
        return None;
    }
    let Some(config_map) = inspection.find("ConfigMap", namespace, name) else {
        let problem =
            format!("is not there: whether the cluster's DNS asks for {zone} is not known");
        let advice = format!("let it forward {zone} to the Service {SYSTEM_NAMESPACE}/{DNS}");
        return Some(Finding::note(object, problem, advice));
    };
    let corefile = config_map.pointer("/data/Corefile").and_then(Value::as_str).unwrap_or_default();
    match coredns::stub_domain(corefile) {
        StubDomain::Absent => {
            Some(Finding::problem(object, format!("has no server block for {zone}"), advice))
        }
        StubDomain::NotForwarded => {
            let problem = format!("has a server block for {zone} that forwards nothing");
            Some(Finding::problem(object, problem, advice))
        }
        StubDomain::Forwarded { to } => {
            let service = inspection.find("Service", SYSTEM_NAMESPACE, DNS)?;
            let own: Vec<&str> =
                items(service, "/spec/clusterIPs").iter().filter_map(Value::as_str).collect();
            let leads = own.is_empty() || to.iter().any(|at| own.contains(&coredns::host(at)));
            let problem = format!(
                "forwards {zone} to {}, and the Service {SYSTEM_NAMESPACE}/{DNS} is at {}",
                to.join(" "),
                own.join(" "),
            );
            (!leads).then(|| Finding::problem(object, problem, "run `isthmus install` again"))
        }
    }
}

/// The Lease of the controllers.
pub(super) const LEASE: &str = "isthmus-controller";
/// The Deployment of the controllers.
pub(super) const CONTROLLER: &str = "isthmus-controller";
const DNS: &str = "isthmus-dns";
/// The Deployments of the system.
pub(super) const PARTS: &[&str] = &[CONTROLLER, DNS, "isthmus-eastwest"];
/// Reasons of pods in one finding.
const REASONS_MAX: usize = 3;
/// How far the clocks of operator and cluster may be apart.
const SKEW_SECONDS: i64 = 15;
