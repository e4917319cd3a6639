//! Waits until what was applied runs, and says what does not and why.

use std::time::Duration;

use anyhow::bail;
use isthmus_kubernetes::install::{Filter, Installer};
use isthmus_model::name::SYSTEM_NAMESPACE;
use isthmus_runtime::clock;
use serde_json::Value;

use super::cluster::{POLL, named, own, say};
use super::manifests::{COMPONENT_LABEL, COMPONENTS};
use crate::commands::reach::explained;

/// Waits until the server serves the kinds of CRDs.
pub(super) async fn for_crds(
    installer: &mut Installer,
    names: &[String],
    limit: Duration,
) -> anyhow::Result<()> {
    let end = clock::now() + limit;
    for name in names {
        let id = named("apiextensions.k8s.io/v1", "CustomResourceDefinition", "", name);
        loop {
            let found = installer.get(&id).await.map_err(|failure| explained(&failure))?;
            let found = found.unwrap_or_default();
            if condition(&found, "Established").is_some_and(|(status, _)| status == "True") {
                break;
            }
            if clock::now() >= end {
                let (_, why) = condition(&found, "NamesAccepted").unwrap_or_default();
                bail!("CustomResourceDefinition {name} is not established: {why}");
            }
            tokio::time::sleep(POLL).await;
        }
    }
    Ok(())
}

/// Waits until every Deployment is as far as it will come.
pub(super) async fn for_deployments(
    installer: &mut Installer,
    limit: Duration,
) -> anyhow::Result<()> {
    let end = clock::now() + limit;
    for component in COMPONENTS {
        let name = format!("isthmus-{component}");
        let id = own("apps/v1", "Deployment", &name);
        loop {
            let found = installer.get(&id).await.map_err(|failure| explained(&failure))?;
            let found = found.unwrap_or_default();
            if is_complete(&found) {
                say(&format!("Deployment {name} is available"))?;
                break;
            }
            if clock::now() >= end {
                let reasons = reasons(installer, &found, component).await?;
                bail!(
                    "Deployment {SYSTEM_NAMESPACE}/{name} is not available after {} s:\n{}",
                    limit.as_secs(),
                    reasons.join("\n")
                );
            }
            tokio::time::sleep(POLL).await;
        }
    }
    Ok(())
}

/// Whether a Deployment runs what it should.
fn is_complete(deployment: &Value) -> bool {
    let number = |pointer: &str| deployment.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
    let Some(generation) = deployment.pointer("/metadata/generation").and_then(Value::as_u64)
    else {
        return false;
    };
    let wanted = number("/spec/replicas");
    number("/status/observedGeneration") >= generation
        && number("/status/updatedReplicas") >= wanted
        && number("/status/replicas") == wanted
        && number("/status/availableReplicas") >= wanted
}

/// What keeps a Deployment: of itself, and of each of its pods.
async fn reasons(
    installer: &mut Installer,
    deployment: &Value,
    component: &str,
) -> anyhow::Result<Vec<String>> {
    let mut reasons = Vec::new();
    if let Some((status, message)) = condition(deployment, "ReplicaFailure")
        && status == "True"
    {
        reasons.push(format!("  {message}"));
    }
    let labels = format!("{COMPONENT_LABEL}={component}");
    let filter = Filter { namespace: SYSTEM_NAMESPACE, labels: &labels, fields: "" };
    let pods = installer.list("v1", "Pod", filter).await;
    for pod in pods.map_err(|failure| explained(&failure))? {
        let Some(mut reason) = pod_reason(&pod) else { continue };
        let name = text(&pod, "/metadata/name");
        let fields = format!("involvedObject.name={name},type=Warning");
        let filter = Filter { namespace: SYSTEM_NAMESPACE, labels: "", fields: &fields };
        // Events only add to what is known.
        if let Ok(events) = installer.list("v1", "Event", filter).await
            && let Some(event) = events.last()
        {
            reason = format!("{reason}; {}: {}", text(event, "/reason"), text(event, "/message"));
        }
        reasons.push(format!("  pod {name}: {reason}"));
    }
    if reasons.is_empty() {
        reasons.push("  it has no pods: is the controller manager running?".to_owned());
    }
    Ok(reasons)
}

/// Why a pod is not ready; none when it is.
fn pod_reason(pod: &Value) -> Option<String> {
    let is = |kind: &str| condition(pod, kind).is_some_and(|(status, _)| status == "True");
    if is("Ready") {
        return None;
    }
    if let Some((status, message)) = condition(pod, "PodScheduled")
        && status == "False"
    {
        return Some(format!("not scheduled: {message}"));
    }
    let container = pod.pointer("/status/containerStatuses/0").unwrap_or(&Value::Null);
    if let Some(waiting) = container.pointer("/state/waiting") {
        let before = container.pointer("/lastState/terminated/exitCode");
        let exit = before.map(|code| format!(", ended with exit code {code}")).unwrap_or_default();
        let (reason, message) = (text(waiting, "/reason"), text(waiting, "/message"));
        return Some(format!("waiting: {reason}{exit} {message}").trim_end().to_owned());
    }
    if container.pointer("/state/running").is_some() {
        let name = text(pod, "/metadata/name");
        return Some(format!(
            "running, but not ready: see kubectl -n {SYSTEM_NAMESPACE} logs {name}"
        ));
    }
    Some(format!("in phase {}", text(pod, "/status/phase")))
}

/// Status and message of a condition.
fn condition<'v>(object: &'v Value, kind: &str) -> Option<(&'v str, &'v str)> {
    let conditions = object.pointer("/status/conditions")?.as_array()?;
    let found = conditions.iter().find(|condition| condition["type"] == kind)?;
    Some((found["status"].as_str()?, found["message"].as_str().unwrap_or_default()))
}

fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or("?")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_deployment_is_complete_with_all_its_pods() {
        let deployment = |available: u32| {
            json!({
                "metadata": { "generation": 2 }, "spec": { "replicas": 2 },
                "status": {
                    "observedGeneration": 2, "updatedReplicas": 2, "replicas": 2,
                    "availableReplicas": available,
                },
            })
        };
        assert!(!is_complete(&deployment(1)));
        assert!(is_complete(&deployment(2)));
        assert!(!is_complete(&Value::Null));
    }

    #[test]
    fn why_a_pod_is_not_ready_is_said() {
        let pod = json!({ "status": { "containerStatuses": [{
            "state": { "waiting": { "reason": "ImagePullBackOff", "message": "no such image" } },
        }] } });
        assert_eq!(pod_reason(&pod).unwrap(), "waiting: ImagePullBackOff no such image");
        let pod = json!({ "status": { "conditions": [
            { "type": "PodScheduled", "status": "False", "message": "0/1 nodes" },
        ] } });
        assert_eq!(pod_reason(&pod).unwrap(), "not scheduled: 0/1 nodes");
        let pod = json!({ "status": { "conditions": [{ "type": "Ready", "status": "True" }] } });
        assert_eq!(pod_reason(&pod), None);
    }
}
